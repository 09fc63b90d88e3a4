//! The `workers` section.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::snapshots::SnapshotsConfig;
use crate::units::{KeepAlive, duration};

/// How workers are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkersConfig {
    /// How long a model stays in memory after its last request, where neither model nor request says.
    pub keep_alive: KeepAlive,
    /// The least and the most that a request can ask for.
    pub keep_alive_min: KeepAlive,
    /// See [`WorkersConfig::keep_alive_min`].
    pub keep_alive_max: KeepAlive,
    /// A load that makes no progress for this long is given up; zero: never.
    #[serde(with = "duration")]
    pub load_timeout: Duration,
    /// Models in memory at once; 0: as many as fit, see [`WorkersConfig::loaded_limit`].
    pub max_loaded: usize,
    /// Load what was in memory at the last shutdown, as far as it fits. Off by default: after a crash that would be loaded again
    /// which may have been the reason.
    pub warm_start: bool,
    /// From SIGTERM to SIGKILL.
    #[serde(with = "duration")]
    pub stop_timeout: Duration,
    /// Between two health checks of a worker.
    #[serde(with = "duration")]
    pub probe_interval: Duration,
    /// Wait before the first restart of a worker that died; doubles with every further death.
    #[serde(with = "duration")]
    pub restart_backoff: Duration,
    /// The longest wait before a restart.
    #[serde(with = "duration")]
    pub restart_backoff_max: Duration,
    /// Workers give up what they do not need (Landlock) before they open a model.
    pub sandbox: bool,
    /// What workers keep on disk of the prompts they have read.
    pub snapshots: SnapshotsConfig,
    /// Where sockets live; absent: `arriero` in `$XDG_RUNTIME_DIR`, else in `/tmp`.
    pub runtime_dir: Option<PathBuf>,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self {
            keep_alive: KeepAlive::For(Duration::from_secs(5 * 60)),
            keep_alive_min: KeepAlive::Unload,
            keep_alive_max: KeepAlive::Forever,
            load_timeout: Duration::from_secs(5 * 60),
            max_loaded: 0,
            warm_start: false,
            stop_timeout: Duration::from_secs(10),
            probe_interval: Duration::from_secs(1),
            restart_backoff: Duration::from_millis(500),
            restart_backoff_max: Duration::from_secs(30),
            sandbox: true,
            snapshots: SnapshotsConfig::default(),
            runtime_dir: None,
        }
    }
}

impl WorkersConfig {
    /// What `max_loaded: 0` means where bytes are not counted, as in Ollama on one device.
    pub const AUTO_LOADED: usize = 3;

    /// Models in memory at once.
    pub fn loaded_limit(&self, counts_bytes: bool) -> usize {
        match self.max_loaded {
            0 if counts_bytes => usize::MAX,
            0 => Self::AUTO_LOADED,
            limit => limit,
        }
    }

    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.probe_interval.is_zero() {
            faults.push(("probe_interval", "must be more than 0".to_owned()));
        }
        if self.restart_backoff.is_zero() {
            faults.push(("restart_backoff", "must be more than 0".to_owned()));
        }
        if self.restart_backoff_max < self.restart_backoff {
            faults.push((
                "restart_backoff_max",
                format!(
                    "must not be less than restart_backoff, which is {}",
                    duration::format(self.restart_backoff)
                ),
            ));
        }
        if self.keep_alive_max < self.keep_alive_min {
            let least = self.keep_alive_min;
            faults
                .push(("keep_alive_max", format!("must not be less than keep_alive_min, which is {least}")));
        }
        faults.extend(self.snapshots.fault().map(|fault| ("snapshots", fault)));
        if self.runtime_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            faults.push(("runtime_dir", "must be an absolute path".to_owned()));
        }
        faults
    }
}
