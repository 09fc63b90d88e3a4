//! The `retry` section.

use serde::{Deserialize, Serialize};

/// What happens to a request whose node fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Further attempts after the first.
    pub attempts: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 2 }
    }
}
