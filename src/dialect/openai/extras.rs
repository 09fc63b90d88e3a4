//! [`Extras`]: sampling fields that OpenAI's API does not have, at the top level, as clients of llama-server and vLLM send them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::sampling::float;
use crate::dialect::json::{Integer, object};
use crate::error::Error;
use crate::generation::Options;

object! {
    /// The fields, as they come.
    pub(in crate::dialect) struct Extras {
        "top_k" => top_k: Integer,
        "min_p" => min_p: f64,
        "typical_p" => typical_p: f64,
        "repeat_penalty" => repeat_penalty: f64,
        "repetition_penalty" => repetition_penalty: f64,
        "repeat_last_n" => repeat_last_n: Integer,
        "top_n_sigma" => top_n_sigma: f64,
        "dry_multiplier" => dry_multiplier: f64,
        "dry_base" => dry_base: f64,
        "dry_allowed_length" => dry_allowed_length: Integer,
        "dry_penalty_last_n" => dry_penalty_last_n: Integer,
        "dry_sequence_breakers" => dry_sequence_breakers: Vec<String>,
        "xtc_probability" => xtc_probability: f64,
        "xtc_threshold" => xtc_threshold: f64,
    }
}

impl Extras {
    /// The options that these fields are.
    pub(in crate::dialect) fn options(self) -> Result<Options, Error> {
        let number = |name, value: Option<f64>| value.map(|value| float(name, value)).transpose();
        let count = |value: Option<Integer>| {
            value.map(|Integer(value)| i32::try_from(value).unwrap_or(if value < 0 { -1 } else { i32::MAX }))
        };
        Ok(Options {
            top_k: count(self.top_k),
            min_p: number("min_p", self.min_p)?,
            typical_p: number("typical_p", self.typical_p)?,
            repeat_penalty: number("repeat_penalty", self.repeat_penalty.or(self.repetition_penalty))?,
            repeat_last_n: count(self.repeat_last_n),
            top_n_sigma: number("top_n_sigma", self.top_n_sigma)?,
            dry_multiplier: number("dry_multiplier", self.dry_multiplier)?,
            dry_base: number("dry_base", self.dry_base)?,
            dry_allowed_length: count(self.dry_allowed_length),
            dry_penalty_last_n: count(self.dry_penalty_last_n),
            dry_sequence_breakers: self.dry_sequence_breakers,
            xtc_probability: number("xtc_probability", self.xtc_probability)?,
            xtc_threshold: number("xtc_threshold", self.xtc_threshold)?,
            ..Options::default()
        })
    }
}

/// OpenAI's `logit_bias`, `{"token id": -100 to 100}`, by token id. Whether the model has such tokens is known where it runs.
pub(in crate::dialect) fn logit_bias(map: Map<String, Value>) -> Result<Vec<(u32, f32)>, Error> {
    let wrong = |message| Error::invalid_param("logit_bias", message);
    let mut biases = BTreeMap::new();
    for (token, bias) in map {
        let id = token
            .parse::<u32>()
            .map_err(|_| wrong(format!("invalid key in 'logit_bias': {token:?} is not a token id")))?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(|| {
            wrong(format!("invalid value for 'logit_bias.{token}': must be a number between -100 and 100"))
        })?;
        biases.insert(id, bias as f32);
    }
    Ok(biases.into_iter().collect())
}
