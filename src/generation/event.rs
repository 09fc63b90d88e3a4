//! [`Event`]: one piece of a canonical answer, and one NDJSON line of a worker's answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One piece of a canonical answer. A complete answer is any number of `Delta`s and `ToolCall`s, then exactly one `Done`
/// or `Error`; an answer that ends without either was cut off and must never pass for whole. On the wire it is an object with
/// one key, `{"delta":{…}}`, which parses in one pass where a tag inside would have to be found first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// New text.
    Delta(Delta),
    /// A complete tool call.
    ToolCall {
        /// `{"id","function":{"name","arguments":{…}}}`, arguments as an object.
        call: Value,
        /// Ids of the tokens that it was read from, marks included. They have no log probabilities.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tokens: Vec<u32>,
    },
    /// The end of a complete answer.
    Done(Done),
    /// The end of an answer that failed.
    Error(Failure),
}

impl Event {
    /// Bytes that it occupies, roughly: text, tokens, log probabilities.
    pub fn size(&self) -> usize {
        match self {
            Self::Delta(delta) => {
                let alternatives: usize = delta.logprobs.iter().map(|l| 64 + 64 * l.top.len()).sum();
                96 + delta.text.len() + delta.thinking.len() + 4 * delta.tokens.len() + alternatives
            }
            // A call is as long as the text of its tokens.
            Self::ToolCall { tokens, .. } => 512 + 16 * tokens.len(),
            Self::Done(done) => 128 + 4 * done.context.len(),
            Self::Error(_) => 128,
        }
    }
}

/// New text and the tokens that make it up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Whole UTF-8 characters. May be empty while a character, or what may become a stop sequence, is held back.
    #[serde(default)]
    pub text: String,
    /// New thinking text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Ids of the tokens sampled since the last delta.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// One entry per token, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
}

/// The log probability of a sampled token, from the model's own distribution (before penalties, cuts and temperature).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token as text; lossy where the token is part of a character.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's exact bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens at this place, best first; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Alternative>,
}

/// One entry of [`TokenLogprob::top`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The token as text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's exact bytes.
    pub bytes: Vec<u8>,
}

/// The end of a complete answer, with counts and timings. Durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Why it ended.
    pub reason: DoneReason,
    /// Tokens of the prompt, those served from the sequence's cache included.
    pub prompt_tokens: u64,
    /// Those of `prompt_tokens` that were not computed again.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens generated, the end-of-text token included.
    pub completion_tokens: u64,
    /// Tokens guessed ahead.
    #[serde(default)]
    pub guessed_tokens: u64,
    /// Those of `guessed_tokens` that were right.
    #[serde(default)]
    pub accepted_tokens: u64,
    /// Reading the prompt.
    pub prompt_duration: u64,
    /// Generating.
    pub completion_duration: u64,
    /// Ids of the rendered prompt and the answer; only for [`Input::Prompt`](super::Input::Prompt).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<u32>,
}

/// Why a complete answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneReason {
    /// An end token or a stop sequence.
    #[default]
    Stop,
    /// The token limit or the context.
    Length,
}

/// Why a generation failed, as a node reports it: the body of an error response (`{"error": Failure}`), or the last event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the status.
    pub code: FailureCode,
    /// For the person reading it.
    pub message: String,
}

/// The kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request cannot be served as it is: 400.
    InvalidRequest,
    /// The prompt does not fit and must not be cut: 400.
    ContextLength,
    /// The model cannot do this (embed, infill…): 400.
    Unsupported,
    /// It has come through the node before: 508, worth another node.
    Loop,
    /// The worker cannot take it now (loading, stopping): 503, worth another node.
    Unavailable,
    /// The worker broke: 500, worth another node before the first event.
    Internal,
}
