//! The `retry` section.

use serde::{Deserialize, Serialize};

/// When a request is run again after its node failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often a request is run in all while no byte of the answer has gone out; 1: never again.
    pub attempts: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 2 }
    }
}

impl RetryConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        if self.attempts == 0 { vec![("attempts", "must be at least 1".to_owned())] } else { Vec::new() }
    }
}
