//! The `memory` section.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Policy, PreloadConfig, Rung};
use crate::units::share::Share;
use crate::units::{duration, size};

/// What models may take of memory, and who leaves when it is short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Ordinary memory that models take together at most.
    pub budget: Share,
    /// The same on GPUs: all of them together, and, where models are bound to some, each.
    pub devices: Share,
    /// What stays available to everybody else: no model is loaded that would leave less.
    #[serde(with = "size")]
    pub margin: u64,
    /// Which model leaves to make room.
    pub policy: Policy,
    /// What is done where a model does not fit, the first that helps.
    pub ladder: Vec<Rung>,
    /// A model that has come stays for so long at least.
    #[serde(with = "duration")]
    pub min_residency: Duration,
    /// A model that waits for room gets it after so long at the latest, though others are in use: they take no more requests
    /// until it has had its turn.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// Whether models are loaded before anybody asks for them.
    pub preload: PreloadConfig,
    /// Where it is remembered what models take; absent: `arriero` in `$XDG_CACHE_HOME`, else in `~/.cache`.
    pub dir: Option<PathBuf>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            budget: Share::Percent(80.0),
            devices: Share::Percent(95.0),
            margin: 256 << 20,
            policy: Policy::default(),
            ladder: Rung::USUAL.to_vec(),
            min_residency: Duration::from_secs(1),
            max_wait: Duration::from_secs(15),
            preload: PreloadConfig::default(),
            dir: None,
        }
    }
}

impl MemoryConfig {
    /// The file that remembers; `None`: nothing does. `variable` reads the environment.
    pub fn ledger(&self, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        // A relative path in it is to be ignored, says the XDG specification.
        let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let folder = self.dir.clone().or_else(|| Some(cache()?.join("arriero")))?;
        Some(folder.join("models.json"))
    }

    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let shares = [("budget", self.budget), ("devices", self.devices)];
        let mut faults: Vec<_> =
            shares.into_iter().filter_map(|(key, share)| Some((key, share.fault()?.to_owned()))).collect();
        let is_twice = |rung: &Rung| self.ladder.iter().filter(|other| *other == rung).count() > 1;
        if !self.ladder.contains(&Rung::Evict) || self.ladder.iter().any(is_twice) {
            faults.push(("ladder", "must have evict, and nothing twice".to_owned()));
        }
        if self.max_wait < self.min_residency {
            let least = duration::format(self.min_residency);
            faults.push(("max_wait", format!("must not be less than min_residency, which is {least}")));
        }
        faults.extend(self.preload.fault().map(|fault| ("preload", fault.to_owned())));
        if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            faults.push(("dir", "must be an absolute path".to_owned()));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: serde_json::Value) -> Vec<&'static str> {
        let config: MemoryConfig = serde_json::from_value(config).unwrap();
        config.faults().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(faults(serde_json::json!({})), [""; 0]);
        let all = serde_json::json!({ "budget": "0%", "devices": "101%", "max_wait": "10ms", "dir": "x",
                                    "ladder": ["cpu"], "preload": {"models": 0} });
        assert_eq!(faults(all), ["budget", "devices", "ladder", "max_wait", "preload", "dir"]);
        assert_eq!(faults(serde_json::json!({ "ladder": ["evict", "kv_q8_0", "evict"] })), ["ladder"]);
    }

    #[test]
    fn it_is_remembered_where_the_configuration_says_else_in_the_cache_of_the_user() {
        let home = |name: &str| (name == "HOME").then(|| "/h".into());
        let config = MemoryConfig::default();
        assert_eq!(config.ledger(home), Some("/h/.cache/arriero/models.json".into()));
        assert_eq!(config.ledger(|_| None), None);
        let elsewhere = MemoryConfig { dir: Some("/d".into()), ..config };
        assert_eq!(elsewhere.ledger(home), Some("/d/models.json".into()));
    }
}
