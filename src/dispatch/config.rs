//! The `retry` and `faults` sections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Late;

/// What happens to a request whose node fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Further attempts after the first.
    pub attempts: u32,
    /// Most of them on remote nodes, as a part of all requests, 0 to 1.
    pub budget: f64,
    /// When what has not begun to be answered is asked of a second node too.
    pub hedge: Late,
    /// Models that answer in place of those that only nodes serve; a model of the config has its own.
    pub fallbacks: BTreeMap<String, Vec<String>>,
}

/// The `faults` section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultsConfig {
    /// Whether requests may ask for a fault (`X-Arriero-Fault`).
    pub enabled: bool,
}

impl RetryConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let is_part = (0.0..=1.0).contains(&self.budget);
        if is_part { Vec::new() } else { vec![("budget", "must be from 0 to 1".to_owned())] }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 2, budget: 0.2, hedge: Late::Never, fallbacks: BTreeMap::new() }
    }
}
