//! The `queue` section.

use std::time::Duration;

/// The queue in front of each model.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// Requests that may wait.
    pub depth: usize,
    /// How long one waits at most.
    pub wait: Duration,
}
