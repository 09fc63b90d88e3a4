//! [`Grammars`] and [`Constraint`]: decoding that can only produce what `format` asks for, by llguidance.

mod format;
mod gbnf;
mod mistake;

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::sampling::Token;
use crate::generation::{Failure, FailureCode, Format};

/// White space between two JSON tokens: none, a space, or a line break with its indentation. Bounded, because a small model
/// that finds itself in white space stays there.
const WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,32}";

/// Compiles constraints for one vocabulary. Building it walks the whole vocabulary, so there is one per model.
pub struct Grammars(ParserFactory);

impl Grammars {
    /// `words` are the tokens' bytes by id, those of special tokens behind [`TokTrie::SPECIAL_TOKEN_MARKER`]; `ends` are the
    /// tokens that end a generation. A vocabulary without any cannot be constrained, for nothing could end the output.
    pub fn new(words: &[Vec<u8>], ends: &[Token]) -> Result<Self, String> {
        let first = ends.first().ok_or("the model has no token that ends a text")?;
        let size = u32::try_from(words.len()).map_err(|_| "the vocabulary is too large")?;
        let trie = TokTrie::from(&TokRxInfo::new(size, *first), words).with_eos_tokens(ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|error| error.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self(factory))
    }

    /// The constraint for a request; `None` for free text.
    pub fn constraint(&self, format: &Format) -> Result<Option<Constraint>, Failure> {
        if let Format::Grammar(grammar) = format {
            let made = gbnf::lark(grammar).and_then(|lark| self.lark(lark));
            return made.map(Some).map_err(|reason| invalid(&format!("invalid grammar: {reason}")));
        }
        let Some(schema) = schema(format) else { return Ok(None) };
        let made = self.compile_schema(&schema);
        made.map(Some).map_err(|reason| self.explain(&schema, "format", reason))
    }

    /// The constraint of a grammar in llguidance's Lark. Errors in its words.
    pub fn lark(&self, grammar: String) -> Result<Constraint, String> {
        self.compile(TopLevelGrammar::from_lark(grammar))
    }

    /// What is wrong with `schema`, found at `place` of a request: the smallest part that cannot be used. `None` if it can.
    pub fn mistake(&self, schema: &Value, place: &str) -> Option<Failure> {
        self.compile_schema(schema).err().map(|reason| self.explain(schema, place, reason))
    }

    fn explain(&self, schema: &Value, place: &str, reason: String) -> Failure {
        let at = mistake::pointer(schema, &reason, |part| self.compile_schema(part).err())
            .map_or(String::new(), |pointer| format!(" at {pointer}"));
        invalid(&format!("invalid JSON schema in {place}{at}: {reason}"))
    }

    fn compile_schema(&self, schema: &Value) -> Result<Constraint, String> {
        if !schema.is_object() {
            return Err("a JSON schema must be an object".to_owned());
        }
        self.compile(TopLevelGrammar::from_json_schema(prepared(schema.clone())))
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Constraint, String> {
        let matcher = Matcher::new(self.0.create_parser(grammar));
        matcher.get_error().map_or(Ok(Constraint(matcher)), |reason| Err(reason.trim().to_owned()))
    }
}

/// The schema that `format` asks for; `None` for what is not JSON.
pub fn schema(format: &Format) -> Option<Value> {
    match format {
        Format::Text | Format::Grammar(_) => None,
        Format::Json => Some(json!({"type": "object"})),
        Format::Schema(schema) => Some(schema.clone()),
    }
}

/// A schema as a part of a grammar: with bounded white space, and formats that let only through what is one.
pub fn prepared(mut schema: Value) -> Value {
    format::narrow(&mut schema);
    let Value::Object(mut fields) = schema else { return schema };
    fields.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITESPACE}));
    Value::Object(fields)
}

fn invalid(message: &str) -> Failure {
    Failure { code: FailureCode::InvalidRequest, message: message.to_owned() }
}

/// Where one generation is in its grammar.
pub struct Constraint(Matcher);

impl Constraint {
    /// Sets the logits of tokens that cannot come next to negative infinity.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let allowed = self.0.compute_mask_or_eos().map_err(|error| error.to_string())?;
        for (token, logit) in (0..).zip(logits) {
            if !allowed.is_allowed(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Moves on by a sampled token.
    pub fn accept(&mut self, token: Token) -> Result<(), String> {
        if self.0.is_stopped() {
            return Ok(());
        }
        self.0.consume_token(token).map_err(|error| error.to_string())
    }

    /// Whether the output is complete: nothing but an end token could follow.
    pub fn is_complete(&self) -> bool {
        self.0.is_stopped() && !self.0.is_error()
    }
}

#[cfg(test)]
mod tests;
