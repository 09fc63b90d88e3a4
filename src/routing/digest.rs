//! [`Digest`]: what a strategy sees of a request.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use super::prefix::{Prefix, PrefixWriter};
use super::site::Site;
use crate::generation::Generation;

/// Bytes of a prompt per token: what English text and source code have with today's vocabularies, roughly.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of an answer where nobody knows: roughly the mean of public traces of chats.
const USUAL_ANSWER: u32 = 256;

/// A request as far as strategies go by it. Made once per request, used for each attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Digest {
    /// The model's name; each has a strategy of its own.
    pub model: Arc<str>,
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u32,
    /// Tokens of the answer, guessed.
    pub expected_tokens: u32,
    /// A hash of what ties a request to those before it, such as `X-Session-Id`.
    pub session: Option<u64>,
    /// What the prompt begins with.
    pub prefix: Prefix,
    /// Where the client is.
    pub client: Site,
}

impl Digest {
    /// Of a generation. One pass over its input, in which nothing is kept but hashes.
    pub fn of(generation: &Generation) -> Self {
        let mut writer = PrefixWriter::new(&generation.model);
        // Writing to a hasher does not fail, and neither does a type without maps of odd keys; were it to, the prefix would be shorter.
        let _ = serde_json::to_writer(&mut writer, &generation.adaptation);
        let _ = serde_json::to_writer(&mut writer, &generation.input);
        let most = generation.options.num_predict.and_then(|most| u32::try_from(most).ok());
        Self {
            expected_tokens: most.map_or(USUAL_ANSWER, |most| most.min(USUAL_ANSWER)),
            ..Self::read(&generation.model, writer.finish())
        }
    }

    /// Of a request without an answer in tokens, such as texts to embed: the model and the bytes that it reads.
    pub fn of_bytes(model: &str, bytes: &[u8]) -> Self {
        Self::read(model, Prefix::of(model, bytes))
    }

    fn read(model: &str, prefix: Prefix) -> Self {
        let prompt_tokens = u32::try_from(prefix.bytes() / BYTES_PER_TOKEN).unwrap_or(u32::MAX);
        Self { model: model.into(), prompt_tokens, prefix, ..Self::default() }
    }

    /// Tied to those with the same key.
    #[must_use]
    pub fn in_session(self, key: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        Self { session: Some(hasher.finish()), ..self }
    }

    /// From a client that is there.
    #[must_use]
    pub fn from_site(self, client: Site) -> Self {
        Self { client, ..self }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn generation(text: &str, num_predict: i64) -> Generation {
        let input = json!({ "kind": "chat", "messages": [{ "role": "user", "content": text }] });
        let options = json!({ "num_predict": num_predict });
        serde_json::from_value(json!({ "model": "m", "input": input, "options": options })).unwrap()
    }

    #[test]
    fn prompts_that_begin_alike_have_a_prefix_in_common() {
        let text = "The quick brown llama. ".repeat(100);
        let (a, b) =
            (Digest::of(&generation(&text, -1)), Digest::of(&generation(&(text.clone() + "No."), 9)));
        assert!((575..650).contains(&a.prompt_tokens), "{}", a.prompt_tokens);
        assert_eq!((a.expected_tokens, b.expected_tokens), (USUAL_ANSWER, 9));
        let equal = a.prefix.hashes().iter().zip(b.prefix.hashes()).filter(|(a, b)| a == b).count();
        assert!(equal >= text.len() / 256, "{equal}");
    }

    #[test]
    fn sessions_with_the_same_key_are_the_same() {
        let of = |key: &str| Digest::of_bytes("m", b"x").in_session(key.as_bytes()).session;
        assert!(of("a").is_some() && of("a") == of("a") && of("a") != of("b"));
    }
}
