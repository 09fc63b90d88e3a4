//! The `cache.semantic` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialect::name;
use crate::units::{duration, size};

/// When the answer to a similar question answers a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticConfig {
    /// Whether it does.
    pub mode: SemanticMode,
    /// The embedding model that says what is similar.
    pub model: Option<String>,
    /// The least cosine of the angle between two questions, 0 to 1.
    pub threshold: f64,
    /// The longest that a request waits to be compared.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// The fewest characters of a question that is compared.
    pub shortest: usize,
    /// The most.
    pub longest: usize,
    /// With how many questions one is compared, the latest of its conversation.
    pub compared: usize,
    /// What questions may take in memory, in bytes.
    #[serde(with = "size")]
    pub memory: u64,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        Self {
            mode: SemanticMode::Off,
            model: None,
            threshold: 0.95,
            deadline: Duration::from_millis(100),
            shortest: 12,
            longest: 500,
            compared: 1000,
            memory: 32 << 20,
        }
    }
}

/// Whether similar questions share answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SemanticMode {
    /// They do not.
    #[default]
    Off,
    /// It is only counted where they would.
    Shadow,
    /// They do.
    On,
}

/// Less is no likeness at all.
const LEAST_THRESHOLD: f64 = 0.5;

impl SemanticConfig {
    /// What is wrong, with the key of `cache` it is wrong with.
    pub(in crate::cache) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        match self.model.as_deref() {
            None if self.mode != SemanticMode::Off => {
                faults
                    .push(("semantic.model", "required unless mode is off: a model that embeds".to_owned()));
            }
            Some(model) if name::key(model).is_none() => {
                faults.push(("semantic.model", format!("{model:?} cannot be the name of a model")));
            }
            _ => {}
        }
        if !(LEAST_THRESHOLD..=1.0).contains(&self.threshold) {
            faults.push(("semantic.threshold", format!("must be {LEAST_THRESHOLD} to 1")));
        }
        if self.deadline.is_zero() || self.deadline > Duration::from_secs(10) {
            faults.push(("semantic.deadline", "must be more than 0s and at most 10s".to_owned()));
        }
        if self.longest < self.shortest {
            faults.push(("semantic.longest", "must be at least shortest".to_owned()));
        }
        if self.compared == 0 {
            faults.push(("semantic.compared", "must be at least 1".to_owned()));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_named_by_their_keys() {
        assert_eq!(SemanticConfig::default().faults(), []);
        let config =
            json!({ "mode": "shadow", "threshold": 0.3, "deadline": "11s", "longest": 3, "compared": 0 });
        let config: SemanticConfig = serde_json::from_value(config).unwrap();
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        let expected = [
            "semantic.model",
            "semantic.threshold",
            "semantic.deadline",
            "semantic.longest",
            "semantic.compared",
        ];
        assert_eq!(keys, expected);
        let named = SemanticConfig { model: Some("a b".to_owned()), ..SemanticConfig::default() };
        assert_eq!(named.faults()[0].0, "semantic.model");
    }
}
