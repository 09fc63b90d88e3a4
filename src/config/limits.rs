//! The `limits` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{duration, size};

/// What a client may take of this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The largest request body in bytes.
    #[serde(with = "size")]
    pub body: u64,
    /// How long running requests may go on after SIGTERM.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// A client that reads nothing for this long is cut off.
    #[serde(with = "duration")]
    pub client_write: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            // There are images in JSON, and Ollama has no limit at all.
            body: 100 << 20,
            drain: Duration::from_secs(30),
            client_write: Duration::from_secs(60),
        }
    }
}

impl LimitsConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.body == 0 {
            faults.push(("body", "must be more than 0".to_owned()));
        }
        if self.client_write.is_zero() {
            faults.push(("client_write", "must be more than 0".to_owned()));
        }
        faults
    }
}
