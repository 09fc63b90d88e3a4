//! The `workers.snapshots` section, and what follows from it for a worker.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generation::seam::{SnapshotCounts, SnapshotSettings};
use crate::telemetry::Metrics;
use crate::units::{folder, size};

/// Hex digits of a model's digest that name its folder: enough that no two models ever share one.
const NAME: usize = 32;

/// What workers keep on disk of the prompts they have read. On by default, because what it saves is what everybody waits for
/// after a restart, and who may read it is who may read the model's log: files are their owner's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotsConfig {
    /// Bytes that all of it takes at most; 0: nothing is saved.
    #[serde(with = "size")]
    pub budget: u64,
    /// Shorter beginnings of prompts are read again instead.
    pub min_tokens: u32,
    /// Where; absent: `arriero/snapshots` in `$XDG_CACHE_HOME`, else in `~/.cache`.
    pub dir: Option<PathBuf>,
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self { budget: 2 << 30, min_tokens: 256, dir: None }
    }
}

impl SnapshotsConfig {
    /// What is wrong, in words.
    pub(super) fn fault(&self) -> Option<String> {
        if self.min_tokens == 0 {
            Some("min_tokens must be at least 1".to_owned())
        } else if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            Some("dir must be an absolute path".to_owned())
        } else {
            None
        }
    }

    /// The folder of all models; `None`: nothing is saved. `variable` reads the environment.
    pub(super) fn root(&self, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        if self.budget == 0 {
            return None;
        }
        self.dir.clone().or_else(|| Some(folder::cache(variable)?.join("arriero").join("snapshots")))
    }

    /// What a worker of the model with this digest is told. The folder is the model's own, so that a worker can be kept from
    /// what others have saved.
    pub(super) fn settings(&self, root: &Path, digest: &str, stop_timeout: Duration) -> SnapshotSettings {
        SnapshotSettings {
            folder: root.join(digest.get(..NAME).unwrap_or(digest)),
            budget: self.budget,
            min_tokens: self.min_tokens,
            // The other half is for what runs, and for the end itself.
            patience: stop_timeout / 2,
        }
    }
}

/// What has been counted since an earlier look at the same worker; the bytes are those of now.
pub(super) fn since(earlier: SnapshotCounts, now: SnapshotCounts) -> SnapshotCounts {
    SnapshotCounts {
        saved: now.saved.saturating_sub(earlier.saved),
        restored: now.restored.saturating_sub(earlier.restored),
        restored_tokens: now.restored_tokens.saturating_sub(earlier.restored_tokens),
        damaged: now.damaged.saturating_sub(earlier.damaged),
        foreign: now.foreign.saturating_sub(earlier.foreign),
        failed: now.failed.saturating_sub(earlier.failed),
        bytes: now.bytes,
    }
}

/// Adds to the metrics what [`since`] found.
pub(super) fn count(metrics: &Metrics, model: &str, counts: SnapshotCounts) {
    let events = [
        ("saved", counts.saved),
        ("restored", counts.restored),
        ("damaged", counts.damaged),
        ("foreign", counts.foreign),
        ("failed", counts.failed),
    ];
    for (event, count) in events {
        metrics.snapshots.with_label_values(&[model, event]).inc_by(count);
    }
    metrics.snapshot_restored_tokens.with_label_values(&[model]).inc_by(counts.restored_tokens);
    metrics.snapshot_bytes.with_label_values(&[model]).set(i64::try_from(counts.bytes).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(config: &SnapshotsConfig, variables: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        config.root(variable).map(|root| root.display().to_string())
    }

    #[test]
    fn snapshots_are_where_the_configuration_says_else_in_the_cache_of_the_user() {
        let config = SnapshotsConfig::default();
        let found = |path: &str| Some(path.to_owned());
        let both = [("XDG_CACHE_HOME", "/c"), ("HOME", "/h")];
        assert_eq!(root(&config, &both), found("/c/arriero/snapshots"));
        assert_eq!(
            root(&config, &[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]),
            found("/h/.cache/arriero/snapshots")
        );
        assert_eq!(root(&config, &[]), None, "nobody's home");
        let elsewhere = SnapshotsConfig { dir: Some("/d".into()), ..SnapshotsConfig::default() };
        assert_eq!(root(&elsewhere, &both), found("/d"));
        assert_eq!(root(&SnapshotsConfig { budget: 0, ..elsewhere }, &both), None, "switched off");
    }

    #[test]
    fn what_a_worker_counts_is_counted_once() {
        let metrics = Metrics::new().unwrap();
        let first =
            SnapshotCounts { restored: 1, restored_tokens: 500, bytes: 7, ..SnapshotCounts::default() };
        let second = SnapshotCounts { restored: 3, restored_tokens: 900, bytes: 5, ..first };
        count(&metrics, "m", since(SnapshotCounts::default(), first));
        count(&metrics, "m", since(first, second));
        assert_eq!(metrics.snapshots.with_label_values(&["m", "restored"]).get(), 3);
        assert_eq!(metrics.snapshot_restored_tokens.with_label_values(&["m"]).get(), 900);
        assert_eq!(metrics.snapshot_bytes.with_label_values(&["m"]).get(), 5);
    }

    #[test]
    fn a_model_has_a_folder_of_its_own() {
        let (config, digest) = (SnapshotsConfig::default(), "ab".repeat(32));
        let settings = config.settings(Path::new("/c"), &digest, Duration::from_secs(10));
        assert_eq!(settings.folder, Path::new("/c").join("ab".repeat(16)));
        assert_eq!(settings.patience, Duration::from_secs(5));
    }
}
