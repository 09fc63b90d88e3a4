//! The `workers` section.

use std::path::PathBuf;
use std::time::Duration;

use crate::units::KeepAlive;

/// How workers are run.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkersConfig {
    /// How long a model that does not say otherwise stays in memory after its last request.
    pub keep_alive: KeepAlive,
    /// A load that makes no progress for this long has failed; zero: never.
    pub load_timeout: Duration,
    /// Distinct models in memory at once; 0: three.
    pub max_loaded: usize,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// Between two looks at a ready worker.
    pub probe_interval: Duration,
    /// Hold-off after the first failure; doubles with each further one.
    pub restart_backoff: Duration,
    /// The longest hold-off.
    pub restart_backoff_max: Duration,
    /// Where sockets and the built-in model's file go; `None`: a place of this process.
    pub runtime_dir: Option<PathBuf>,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self {
            keep_alive: KeepAlive::For(Duration::from_secs(5 * 60)),
            load_timeout: Duration::from_secs(5 * 60),
            max_loaded: 0,
            stop_timeout: Duration::from_secs(10),
            probe_interval: Duration::from_secs(1),
            restart_backoff: Duration::from_millis(500),
            restart_backoff_max: Duration::from_secs(30),
            runtime_dir: None,
        }
    }
}
