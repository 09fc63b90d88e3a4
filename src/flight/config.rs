//! The `coalesce` section.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialect::name;
use crate::generation::FoldConfig;

/// Which requests share one computation while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoalesceConfig {
    /// When equal requests share.
    pub mode: CoalesceMode,
    /// The modes of models that have another one, by the model's name.
    pub models: BTreeMap<String, CoalesceMode>,
    /// Who shares with whom.
    pub scope: CoalesceScope,
    /// Which differences between requests do not count.
    pub fold: FoldConfig,
    /// How long a stream waits for a client that lost its connection and had asked for event ids. 0: nobody gets ids.
    #[serde(with = "crate::units::duration")]
    pub grace: Duration,
}

impl Default for CoalesceConfig {
    fn default() -> Self {
        Self {
            mode: CoalesceMode::default(),
            models: BTreeMap::new(),
            scope: CoalesceScope::default(),
            fold: FoldConfig::default(),
            grace: Duration::from_secs(10),
        }
    }
}

/// When equal requests share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoalesceMode {
    /// Where the answer would be the same anyway: at temperature 0, or with a seed.
    #[default]
    Deterministic,
    /// Also where each would have got an answer of its own.
    Always,
    /// Never.
    Off,
}

/// Who shares with whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoalesceScope {
    /// Requests with the same key (`Authorization`, `X-Api-Key`); those without one are of one tenant.
    #[default]
    Tenant,
    /// All.
    All,
}

/// A word that is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be deterministic, always or off")]
pub struct NoMode;

impl FromStr for CoalesceMode {
    type Err = NoMode;

    /// As the header `X-Arriero-Coalesce` has it.
    fn from_str(text: &str) -> Result<Self, NoMode> {
        match text.trim().to_ascii_lowercase().as_str() {
            "deterministic" => Ok(Self::Deterministic),
            "always" => Ok(Self::Always),
            "off" => Ok(Self::Off),
            _ => Err(NoMode),
        }
    }
}

/// A stream that nobody reads is not kept longer than this: it takes a sequence of a worker.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

impl CoalesceConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.grace > LONGEST_GRACE {
            faults.push(("grace", "must be at most 10m".to_owned()));
        }
        if let Some(model) = self.models.keys().find(|model| name::key(model).is_none()) {
            faults.push(("models", format!("{model:?} cannot be the name of a model")));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_words_of_the_config() {
        for mode in [CoalesceMode::Deterministic, CoalesceMode::Always, CoalesceMode::Off] {
            let word = serde_json::to_value(mode).unwrap();
            assert_eq!(word.as_str().unwrap().to_uppercase().parse(), Ok(mode));
        }
        assert_eq!("on".parse::<CoalesceMode>(), Err(NoMode));
    }
}
