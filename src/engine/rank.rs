//! [`inputs`]: from a [`Ranking`] to the tokens that a ranking model scores, one input per document, as llama-server forms them.

use super::model::Model;
use super::sampling::Token;
use crate::generation::{Failure, FailureCode, Ranking};

/// The query with each document. An input that does not fit is an error: a score of a part would pass for one of the whole.
pub fn inputs(model: &Model, ranking: &Ranking) -> Result<Vec<Vec<Token>>, Failure> {
    let template = model.rank_template();
    let context = model.facts.context as usize;
    let input = |(index, document): (usize, &String)| {
        let tokens = match &template {
            Some(template) => {
                // One pass, so that a query that holds the other's mark is no way into it.
                model.tokenize(&filled(template, &ranking.query, document), false, true)
            }
            None => {
                let text = |text: &str| model.tokenize(text, false, false);
                framed(&model.frame(), &text(&ranking.query), &text(document))
            }
        };
        match tokens.len() {
            0 => Err(failure(FailureCode::InvalidRequest, format!("document {index} has no tokens"))),
            length if length > context => Err(failure(
                FailureCode::ContextLength,
                format!(
                    "document {index} with the query has {length} tokens: the context length is {context} tokens"
                ),
            )),
            _ => Ok(tokens),
        }
    };
    ranking.documents.iter().enumerate().map(input).collect()
}

/// Special tokens around two texts, where the model wants them.
pub struct Frame {
    /// Before all.
    pub start: Option<Token>,
    /// After each text.
    pub end: Option<Token>,
    /// Between the texts.
    pub separator: Option<Token>,
}

fn framed(frame: &Frame, query: &[Token], document: &[Token]) -> Vec<Token> {
    let Frame { start, end, separator } = frame;
    let before = start.iter().chain(query).chain(end);
    before.chain(separator).chain(document).chain(end).copied().collect()
}

/// A template with `{query}` and `{document}` in it, filled in.
fn filled(template: &str, query: &str, document: &str) -> String {
    let mut text = String::with_capacity(template.len() + query.len() + document.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (plain, mark) = rest.split_at(at);
        text.push_str(plain);
        let marks = [("{query}", query), ("{document}", document), ("{", "{")];
        let known = marks.into_iter().find_map(|(name, value)| Some((mark.strip_prefix(name)?, value)));
        let (after, value) = known.unwrap_or((mark, ""));
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    text
}

fn failure(code: FailureCode, message: String) -> Failure {
    Failure { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_between_the_special_tokens_that_the_model_wants() {
        let frame = |start, end, separator| framed(&Frame { start, end, separator }, &[1, 2], &[3]);
        assert_eq!(frame(Some(100), Some(101), Some(102)), [100, 1, 2, 101, 102, 3, 101]);
        assert_eq!(frame(Some(100), None, Some(102)), [100, 1, 2, 102, 3]);
        assert_eq!(frame(None, None, None), [1, 2, 3]);
    }

    #[test]
    fn a_template_is_filled_once() {
        assert_eq!(filled("<{query}|{document}>{x}{", "{document}", "{query}"), "<{document}|{query}>{x}{");
    }
}
