//! The `queue` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::range;

/// How many requests may wait for a place to run, and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Requests that may wait per model; one more is turned away at once. 0: nobody waits.
    pub depth: usize,
    /// The longest wait.
    #[serde(with = "crate::units::duration")]
    pub wait: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { depth: 512, wait: Duration::from_secs(60) }
    }
}

impl QueueConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let depth = range::fault(self.depth as u64, 0..=1_000_000);
        depth.map(|message| ("depth", message)).into_iter().collect()
    }
}
