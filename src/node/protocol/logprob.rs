//! [`Logprob`]: log probabilities as chats have them; Ollama copied OpenAI's form.

use serde::Deserialize;

use crate::generation::{Alternative, TokenLogprob};

/// That of one token.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Logprob {
    token: String,
    logprob: Option<f32>,
    bytes: Option<Vec<u8>>,
    top_logprobs: Option<Vec<Logprob>>,
}

impl Logprob {
    pub(super) fn of(token: String, logprob: Option<f32>) -> Self {
        Self { token, logprob, ..Self::default() }
    }

    pub(super) fn with(self, top: Vec<Self>) -> Self {
        Self { top_logprobs: Some(top), ..self }
    }

    /// What is impossible is told as the least number there is, for JSON has no infinity.
    pub(super) fn value(&self) -> f32 {
        self.logprob.unwrap_or(f32::MIN)
    }

    pub(super) fn canonical(self) -> TokenLogprob {
        let logprob = self.value();
        let top = self.top_logprobs.unwrap_or_default().into_iter().map(|top| Alternative {
            logprob: top.value(),
            bytes: top.bytes.unwrap_or_else(|| top.token.clone().into_bytes()),
            token: top.token,
        });
        TokenLogprob {
            logprob,
            top: top.collect(),
            bytes: self.bytes.unwrap_or_else(|| self.token.clone().into_bytes()),
            token: self.token,
        }
    }
}
