//! [`Chunk`]: one event of a stream, chat's and the older completions' alike. Every field may be missing or null.

use serde::Deserialize;
use serde_json::Value;

use crate::generation::TokenLogprob;
use crate::node::protocol::logprob::Logprob;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Chunk {
    pub choices: Option<Vec<Choice>>,
    pub usage: Option<Usage>,
    pub timings: Option<Timings>,
    pub error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    /// Chat.
    pub delta: Option<Delta>,
    /// Completions.
    pub text: Option<String>,
    pub logprobs: Option<Logprobs>,
    pub finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta {
    pub content: Option<String>,
    /// OpenAI's refusals are text of their own.
    pub refusal: Option<String>,
    /// llama-server's, vLLM's and DeepSeek's name.
    pub reasoning_content: Option<String>,
    /// vLLM's newer one and Ollama's. Who sends both means one.
    pub reasoning: Option<String>,
    pub tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CallPiece {
    pub index: Option<usize>,
    pub id: Option<String>,
    pub function: Option<FunctionPiece>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FunctionPiece {
    pub name: Option<String>,
    pub arguments: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PromptDetails {
    pub cached_tokens: Option<u64>,
}

/// llama-server's own account; times in milliseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Timings {
    pub cache_n: u64,
    pub prompt_n: u64,
    pub prompt_ms: f64,
    pub predicted_n: u64,
    pub predicted_ms: f64,
    pub draft_n: u64,
    pub draft_n_accepted: u64,
}

/// Chat's form, and a list per property in completions'.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Logprobs {
    content: Option<Vec<Logprob>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
}

impl Logprobs {
    pub(super) fn canonical(self) -> Vec<TokenLogprob> {
        if let Some(content) = self.content {
            return content.into_iter().map(Logprob::canonical).collect();
        }
        let mut values = self.token_logprobs.unwrap_or_default().into_iter();
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let tokens = self.tokens.unwrap_or_default().into_iter();
        tokens
            .map(|token| {
                let value = values.next().flatten();
                let top = tops.next().flatten().unwrap_or_default().into_iter();
                let mut top: Vec<_> = top
                    .map(|(token, value)| Logprob::of(token, value.as_f64().map(|value| value as f32)))
                    .collect();
                top.sort_by(|a, b| b.value().total_cmp(&a.value()));
                Logprob::of(token, value).with(top).canonical()
            })
            .collect()
    }
}
