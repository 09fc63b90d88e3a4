//! `POST /tokenize`: `{"content","add_special","parse_special","with_pieces"}` to `{"tokens":[…]}`.

use bytes::{BufMut, BytesMut};

use super::{ask, required};
use crate::dialect::json::{self, object};
use crate::dialect::{Call, Question, Render, Reply};
use crate::error::Error;
use crate::generation::seam::{Tokenize, Tokens};

object! {
    struct Body {
        "model" => model: String,
        "content" => content: String,
        "add_special" => add_special: bool,
        "parse_special" => parse_special: bool,
        "with_pieces" => with_pieces: bool,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let question = Tokenize {
        text: body.content.ok_or_else(|| required("content"))?,
        add_special: body.add_special.unwrap_or(false),
        parse_special: body.parse_special.unwrap_or(true),
        with_pieces: body.with_pieces.unwrap_or(false),
    };
    let render = TokenList { with_pieces: question.with_pieces };
    Ok(ask(body.model, Question::Tokenize(question), render))
}

/// Renders ids, or `{"id","piece"}` where pieces were asked for.
struct TokenList {
    with_pieces: bool,
}

impl Render for TokenList {
    fn reply(&mut self, reply: &Reply) -> Vec<u8> {
        let Reply::Tokens(Tokens { tokens, pieces }) = reply else { return Vec::new() };
        let mut out = BytesMut::from(&b"{\"tokens\":"[..]);
        if self.with_pieces {
            json::list(&mut out, tokens.iter().zip(pieces), |out, (id, piece)| {
                out.put_slice(b"{\"id\":");
                json::number(out, *id);
                out.put_slice(b",\"piece\":");
                // What is no text by itself, such as a part of a character, is a list of bytes.
                match std::str::from_utf8(piece) {
                    Ok(text) => json::string(out, text),
                    Err(_) => json::numbers(out, piece),
                }
                out.put_u8(b'}');
            });
        } else {
            json::numbers(&mut out, tokens);
        }
        out.put_u8(b'}');
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::testing::{call, refused};
    use crate::dialect::{Endpoint, Work};

    #[test]
    fn the_defaults_are_those_of_llama_server() {
        let call = call(Endpoint::Tokenize, json!({"content": "a"}));
        let Work::Ask(Question::Tokenize(question)) = call.work else { panic!() };
        assert_eq!(
            question,
            Tokenize { text: "a".into(), add_special: false, parse_special: true, with_pieces: false }
        );
        assert_eq!(call.model, "");
        assert_eq!(refused(Endpoint::Tokenize, json!({})).to_string(), "content is required");
        assert_eq!(refused(Endpoint::Tokenize, json!({"content": [1]})).status(), 400);
    }

    #[test]
    fn pieces_are_text_or_bytes() {
        let tokens = Reply::Tokens(Tokens { tokens: vec![7, 8], pieces: vec![b"<a".to_vec(), vec![0xc3]] });
        let rendered = |with_pieces: bool| -> Value {
            let mut call = call(Endpoint::Tokenize, json!({"content": "a", "with_pieces": with_pieces}));
            serde_json::from_slice(&call.render.reply(&tokens)).unwrap()
        };
        assert_eq!(rendered(false), json!({"tokens": [7, 8]}));
        let pieces = json!({"tokens": [{"id": 7, "piece": "<a"}, {"id": 8, "piece": [195]}]});
        assert_eq!(rendered(true), pieces);
    }
}
