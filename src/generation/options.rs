//! [`Options`]: sampling and limits, with Ollama's names and defaults.

use serde::{Deserialize, Serialize};

/// Sampling and limits. `None` means: the model's configured value, else the default named here, which is Ollama's
/// (<https://github.com/ollama/ollama/blob/main/docs/api.md>). The dialects translate their own names and defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Most tokens to generate; negative: until the end (bounded by ten times the context). Default -1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_predict: Option<i64>,
    /// 0 is greedy. Default 0.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Keep the k likeliest; 0 or less is off. Default 40.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i32>,
    /// Nucleus; 1 is off. Default 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Least probability relative to the best; 0 is off. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Locally typical sampling; 1 is off. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// Window of the penalties in tokens; 0 is off, -1 the whole context. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_last_n: Option<i32>,
    /// Divides positive and multiplies negative logits of repeated tokens; 1 is off. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// Subtracted once from logits of tokens in the window. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Subtracted per occurrence. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of these tokens before anything else; by token id, each once, so that equal requests are equal.
    /// Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<Vec<(u32, f32)>>,
    /// Keep what lies within so many standard deviations of the best logit; 0 or less is off. Default off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_n_sigma: Option<f32>,
    /// DRY: strength of the penalty on tokens that would prolong a repetition; 0 is off. Default 0. The defaults of this and the
    /// following are llama.cpp's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_multiplier: Option<f32>,
    /// DRY: the penalty is `multiplier * base ^ (length of the repetition - allowed length)`; below 1 is off. Default 1.75.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_base: Option<f32>,
    /// DRY: repetitions shorter than this are free. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_allowed_length: Option<i32>,
    /// DRY: tokens that are searched for repetitions; 0 is off, -1 the whole context. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_penalty_last_n: Option<i32>,
    /// DRY: texts across which nothing counts as a repetition. Default `\n`, `:`, `"` and `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// XTC: how often the likeliest tokens are left out; 0 is off. Default 0. Not at temperature 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_probability: Option<f32>,
    /// XTC: of the tokens at least this likely all but the least likely are left out; over 0.5 is off. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_threshold: Option<f32>,
    /// Fixed: same output for the same prompt. `None` or negative: the proxy draws one per request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// The output ends before the first match; no part of a match is sent. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// Context of this request in tokens; capped at what the worker has per sequence. Default: the worker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_ctx: Option<i64>,
    /// Tokens kept at the front when the context shifts or the prompt is cut; -1 all of the prompt. Default 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_keep: Option<i64>,
}

impl Options {
    /// The defaults named above, as far as they are values.
    pub fn standard() -> Self {
        Self {
            num_predict: Some(-1),
            temperature: Some(0.8),
            top_k: Some(40),
            top_p: Some(0.9),
            min_p: Some(0.0),
            typical_p: Some(1.0),
            repeat_last_n: Some(64),
            repeat_penalty: Some(1.0),
            presence_penalty: Some(0.0),
            frequency_penalty: Some(0.0),
            logit_bias: None,
            top_n_sigma: Some(0.0),
            dry_multiplier: Some(0.0),
            dry_base: Some(1.75),
            dry_allowed_length: Some(2),
            dry_penalty_last_n: Some(64),
            dry_sequence_breakers: Some(["\n", ":", "\"", "*"].map(str::to_owned).to_vec()),
            xtc_probability: Some(0.0),
            xtc_threshold: Some(0.1),
            seed: None,
            stop: None,
            num_ctx: None,
            num_keep: Some(4),
        }
    }

    /// Fills what is absent here from `defaults` (a model's configured options).
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            num_predict: self.num_predict.or(defaults.num_predict),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            typical_p: self.typical_p.or(defaults.typical_p),
            repeat_last_n: self.repeat_last_n.or(defaults.repeat_last_n),
            repeat_penalty: self.repeat_penalty.or(defaults.repeat_penalty),
            presence_penalty: self.presence_penalty.or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(defaults.frequency_penalty),
            logit_bias: self.logit_bias.or_else(|| defaults.logit_bias.clone()),
            top_n_sigma: self.top_n_sigma.or(defaults.top_n_sigma),
            dry_multiplier: self.dry_multiplier.or(defaults.dry_multiplier),
            dry_base: self.dry_base.or(defaults.dry_base),
            dry_allowed_length: self.dry_allowed_length.or(defaults.dry_allowed_length),
            dry_penalty_last_n: self.dry_penalty_last_n.or(defaults.dry_penalty_last_n),
            dry_sequence_breakers: self
                .dry_sequence_breakers
                .or_else(|| defaults.dry_sequence_breakers.clone()),
            xtc_probability: self.xtc_probability.or(defaults.xtc_probability),
            xtc_threshold: self.xtc_threshold.or(defaults.xtc_threshold),
            seed: self.seed.or(defaults.seed),
            stop: self.stop.or_else(|| defaults.stop.clone()),
            num_ctx: self.num_ctx.or(defaults.num_ctx),
            num_keep: self.num_keep.or(defaults.num_keep),
        }
    }
}
