//! [`Grammars`] and [`Constraint`]: decoding that can only produce what `format` asks for, by llguidance.

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
        let schema = match format {
            Format::Text => return Ok(None),
            Format::Json => json!({"type": "object"}),
            Format::Schema(schema) => schema.clone(),
        };
        let Value::Object(mut schema) = schema else {
            return Err(invalid("a JSON schema must be an object"));
        };
        schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITESPACE}));
        let grammar = TopLevelGrammar::from_json_schema(Value::Object(schema));
        let matcher = Matcher::new(self.0.create_parser(grammar));
        match matcher.get_error() {
            Some(reason) => Err(invalid(&reason)),
            None => Ok(Some(Constraint(matcher))),
        }
    }
}

fn invalid(reason: &str) -> Failure {
    let message = format!("invalid JSON schema in format: {}", reason.trim());
    Failure { code: FailureCode::InvalidRequest, message }
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
mod tests {
    use super::super::draw::uniform;
    use super::super::sampling::{Sampler, Settings};
    use super::*;
    use crate::generation::Options;

    const END: Token = 260;

    /// The 256 bytes, some longer pieces, and an end token.
    fn words() -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        words.extend(["{\"", "\":", "true", "  "].map(|piece| piece.as_bytes().to_vec()));
        words.push(b"\xff<end>".to_vec());
        words
    }

    fn grammars() -> Grammars {
        Grammars::new(&words(), &[END]).unwrap()
    }

    /// What a model of pure noise writes under `format`; strings and numbers are kept short by a bias.
    fn noise(format: &Format, seed: u64) -> Option<String> {
        let mut constraint = grammars().constraint(format).unwrap().unwrap();
        let options = Options { temperature: Some(1.0), seed: Some(seed as i64), ..Options::default() };
        let settings = Settings::new(&options, 4096);
        let (words, mut sampler, mut bytes) = (words(), Sampler::default(), Vec::new());
        for position in 0..4000u64 {
            let logits: Vec<f32> = (0..words.len() as u64)
                .map(|token| {
                    let bias =
                        if b"\"}],:0123456789 ".contains(&(token as u8)) && token < 256 { 4.0 } else { 0.0 };
                    (uniform(seed ^ 99, position * 1000 + token) * 4.0) as f32 + bias
                })
                .collect();
            let token = sampler.sample(&settings, &logits, &[], position, |logits| {
                constraint.restrict(logits).unwrap();
            })?;
            constraint.accept(token).unwrap();
            if token != END {
                bytes.extend_from_slice(&words[token as usize]);
            }
            if token == END || constraint.is_complete() {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        None
    }

    #[test]
    fn json_from_noise_parses_as_an_object() {
        let mut complete = 0;
        for seed in 0..20 {
            if let Some(text) = noise(&Format::Json, seed) {
                assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
                complete += 1;
            }
        }
        assert!(complete > 10, "only {complete} of 20 came to an end");
    }

    #[test]
    fn noise_obeys_a_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "colour": {"enum": ["red", "green"]},
                "count": {"type": "integer", "minimum": 3, "maximum": 12},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "maxItems": 2},
            },
            "required": ["colour", "count", "tags"],
            "additionalProperties": false,
        });
        for seed in 0..20 {
            let text = noise(&Format::Schema(schema.clone()), seed).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(["red", "green"].contains(&value["colour"].as_str().unwrap()));
            assert!((3..=12).contains(&value["count"].as_i64().unwrap()));
            let tags = value["tags"].as_array().unwrap();
            assert!((1..=2).contains(&tags.len()));
            assert!(tags.iter().all(|tag| tag.as_str().unwrap().chars().count() <= 3));
            assert_eq!(value.as_object().unwrap().len(), 3);
        }
    }

    #[test]
    fn an_invalid_schema_is_refused_with_the_reason() {
        for schema in [json!({"type": "nonsense"}), json!([1]), json!({"$ref": "#/$defs/missing"})] {
            let Err(failure) = grammars().constraint(&Format::Schema(schema.clone())) else {
                panic!("{schema} was accepted");
            };
            assert_eq!(failure.code, FailureCode::InvalidRequest);
            assert!(failure.message.len() > "invalid JSON schema in format: ".len());
        }
    }

    #[test]
    fn free_text_has_no_constraint_and_a_vocabulary_without_end_cannot_be_constrained() {
        assert!(grammars().constraint(&Format::Text).unwrap().is_none());
        assert!(Grammars::new(&words(), &[]).is_err());
    }
}
