//! `POST /detokenize`: `{"tokens":[…]}` to `{"content"}`.

use super::{TextField, ask, required};
use crate::dialect::json::{self, object};
use crate::dialect::{Call, Question};
use crate::error::Error;
use crate::generation::seam::Tokens;

object! {
    struct Body {
        "model" => model: String,
        "tokens" => tokens: Vec<u32>,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let tokens = body.tokens.ok_or_else(|| required("tokens"))?;
    let question = Question::Detokenize(Tokens { tokens, pieces: Vec::new() });
    Ok(ask(body.model, question, TextField("content")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::testing::{call, refused};
    use crate::dialect::{Endpoint, Reply, Work};
    use crate::generation::seam::Text;

    #[test]
    fn tokens_go_in_and_a_text_comes_out() {
        let mut call = call(Endpoint::Detokenize, json!({"model": "m", "tokens": [1, 2]}));
        assert!(matches!(&call.work, Work::Ask(Question::Detokenize(tokens)) if tokens.tokens == [1, 2]));
        assert_eq!(
            call.render.reply(&Reply::Text(Text { text: "é".into() })),
            "{\"content\":\"é\"}".as_bytes()
        );
        assert_eq!(refused(Endpoint::Detokenize, json!({"model": "m"})).to_string(), "tokens is required");
        assert_eq!(refused(Endpoint::Detokenize, json!({"tokens": [-1]})).status(), 400);
    }
}
