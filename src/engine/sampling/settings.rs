//! [`Settings`]: what a request asks of sampling.

use super::Token;
use super::dry::Dry;
use crate::generation::Options;

/// The sampling half of [`Options`], all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub typical_p: f32,
    /// Window of the penalties in tokens.
    pub repeat_last_n: usize,
    /// 1 is off.
    pub repeat_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// Added to the raw logits.
    pub logit_bias: Vec<(Token, f32)>,
    /// 0 is off.
    pub top_n_sigma: f32,
    /// `None` is off.
    pub dry: Option<Dry>,
    /// `None` is off.
    pub xtc: Option<Xtc>,
    /// Key of the draws, with the position.
    pub seed: u64,
}

/// Exclude top choices (<https://github.com/oobabooga/text-generation-webui/pull/6335>, in llama.cpp since
/// <https://github.com/ggml-org/llama.cpp/pull/9742>): leaves out the likeliest tokens where several are likely enough.
#[derive(Clone, Debug, PartialEq)]
pub struct Xtc {
    /// How often.
    pub probability: f32,
    /// What is likely enough; at most 0.5, for there must be two of them.
    pub threshold: f32,
}

impl Settings {
    /// `context` is what a `repeat_last_n` of -1 means. What breaks a repetition for DRY takes a vocabulary to tell, so
    /// [`Dry::breakers`] are for the caller to fill in.
    pub fn new(options: &Options, context: usize) -> Self {
        Self {
            temperature: options.temperature.unwrap_or(0.8),
            top_k: usize::try_from(options.top_k.unwrap_or(40)).unwrap_or(0),
            top_p: options.top_p.unwrap_or(0.9),
            min_p: options.min_p.unwrap_or(0.0),
            typical_p: options.typical_p.unwrap_or(1.0),
            repeat_last_n: usize::try_from(options.repeat_last_n.unwrap_or(64)).unwrap_or(context),
            // llama.cpp refuses what is not positive; a division by it would turn the order of the logits around.
            repeat_penalty: options.repeat_penalty.filter(|&penalty| penalty > 0.0).unwrap_or(1.0),
            presence_penalty: options.presence_penalty.unwrap_or(0.0),
            frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
            logit_bias: options.logit_bias.clone().unwrap_or_default(),
            top_n_sigma: options.top_n_sigma.unwrap_or(0.0),
            dry: Dry::new(options, context),
            xtc: Xtc::new(options),
            seed: options.seed.and_then(|seed| u64::try_from(seed).ok()).unwrap_or_else(rand::random),
        }
    }

    /// Whether tokens are drawn from the logits as they come.
    pub(super) fn leaves_logits(&self) -> bool {
        let cuts = self.temperature > 0.0 && self.top_n_sigma > 0.0;
        self.logit_bias.is_empty() && !self.penalises() && self.dry.is_none() && !cuts
    }

    pub(super) fn penalises(&self) -> bool {
        self.repeat_last_n > 0
            && (self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }
}

impl Xtc {
    fn new(options: &Options) -> Option<Self> {
        let probability = options.xtc_probability.filter(|&probability| probability > 0.0)?;
        let threshold = options.xtc_threshold.unwrap_or(0.1);
        (threshold <= 0.5).then_some(Self { probability, threshold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether two requests are the same is asked with those filled in, so they have to be what is used here.
    #[test]
    fn what_is_not_said_means_the_standard_options() {
        let silent = Options { seed: Some(1), ..Options::default() };
        let with_dry = Options { dry_multiplier: Some(0.8), xtc_probability: Some(0.5), ..silent.clone() };
        for said in [silent, with_dry] {
            let filled_in = said.clone().or(&Options::standard());
            assert_eq!(Settings::new(&said, 512), Settings::new(&filled_in, 512));
        }
    }
}
