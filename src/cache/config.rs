//! The `cache` section.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::client;
use super::{PrefetchConfig, SemanticConfig};
use crate::dialect::name;
use crate::units::{Secret, duration, folder, range, size};

/// What is kept of answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Texts.
    pub responses: ResponsesConfig,
    /// Vectors.
    pub embeddings: EmbeddingsConfig,
    /// Answers to similar questions.
    pub semantic: SemanticConfig,
    /// Answers before anybody asks for them.
    pub prefetch: PrefetchConfig,
}

/// What is kept of texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponsesConfig {
    /// Whether anything is.
    pub enabled: bool,
    /// Bytes in this process.
    #[serde(with = "size")]
    pub memory: u64,
    /// How old an answer may be, wherever it is kept.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// How long one stays in memory that nobody asks for; zero: as long as any.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Which one leaves memory when it is full.
    pub policy: Eviction,
    /// How fast a stored answer is streamed.
    pub replay: Replay,
    /// Whether answers with tool calls are kept.
    pub tool_calls: bool,
    /// Models with other settings, by name.
    pub models: BTreeMap<String, PolicyConfig>,
    /// Answers on disk.
    pub disk: DiskConfig,
    /// Answers that instances share.
    pub shared: Option<SharedConfig>,
}

impl Default for ResponsesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            memory: 256 << 20,
            ttl: Duration::from_secs(5 * 60),
            idle: Duration::ZERO,
            policy: Eviction::default(),
            replay: Replay::default(),
            tool_calls: false,
            models: BTreeMap::new(),
            disk: DiskConfig::default(),
            shared: None,
        }
    }
}

/// Which entry leaves memory first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// The one asked for least often; a new one comes in only if it is asked for more often. (G. Einziger et al., "TinyLFU", 2017.)
    #[default]
    TinyLfu,
    /// The one not asked for the longest.
    Lru,
}

/// How fast a stored answer is streamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// At once.
    #[default]
    Instant,
    /// As it came.
    Paced,
}

/// What differs for a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// As [`ResponsesConfig::enabled`].
    pub enabled: Option<bool>,
    /// As [`ResponsesConfig::ttl`].
    #[serde(with = "optional")]
    pub ttl: Option<Duration>,
    /// As [`ResponsesConfig::tool_calls`].
    pub tool_calls: Option<bool>,
}

/// Answers on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// What its file may take in bytes; 0: there is none.
    #[serde(with = "size")]
    pub budget: u64,
    /// Where; absent: `arriero/responses` in `$XDG_CACHE_HOME`, else in `~/.cache`.
    pub dir: Option<PathBuf>,
}

impl DiskConfig {
    /// The folder; `None`: nothing is kept on disk, or there is no place for it. `variable` reads the environment.
    pub fn folder(&self, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        if self.budget == 0 {
            return None;
        }
        self.dir.clone().or_else(|| Some(folder::cache(variable)?.join("arriero").join("responses")))
    }
}

/// Answers that instances share, in a Valkey or Redis server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedConfig {
    /// `redis://host:port/database`, `rediss://` for TLS, or `unix:/path`.
    pub url: String,
    /// Who this is to the server.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// For TLS: a PEM file of whom to trust, in place of the system's certificates.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The longest that a request waits for it.
    #[serde(default = "deadline", with = "duration")]
    pub deadline: Duration,
    /// How long it is left alone after it has failed.
    #[serde(default = "pause", with = "duration")]
    pub pause: Duration,
    /// Computing each answer in one instance only.
    #[serde(default)]
    pub lease: LeaseConfig,
}

fn deadline() -> Duration {
    Duration::from_millis(20)
}

fn pause() -> Duration {
    Duration::from_secs(5)
}

/// Computing each answer in one instance only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// How long a request waits for the answer of another instance; zero: not at all.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// How long after an instance has died others wait for it.
    #[serde(with = "duration")]
    pub time: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { wait: Duration::from_secs(10), time: Duration::from_secs(3) }
    }
}

/// What is kept of vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingsConfig {
    /// Bytes in this process; 0: none.
    #[serde(with = "size")]
    pub memory: u64,
    /// How old a vector may be.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

impl Default for EmbeddingsConfig {
    fn default() -> Self {
        Self { memory: 64 << 20, ttl: Duration::from_secs(3600) }
    }
}

/// Longer than any answer is worth, and short of what clocks and servers can count.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// A file that holds a few answers at least.
const LEAST_ON_DISK: u64 = 4 << 20;

impl CacheConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.responses.faults();
        faults.extend(ttl_fault(self.embeddings.ttl).map(|fault| ("embeddings.ttl", fault)));
        faults.extend(self.semantic.faults());
        faults.extend(self.prefetch.faults());
        faults
    }
}

impl ResponsesConfig {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        faults.extend(ttl_fault(self.ttl).map(|fault| ("responses.ttl", fault)));
        for (model, policy) in &self.models {
            if name::key(model).is_none() {
                faults.push(("responses.models", format!("{model:?} cannot be the name of a model")));
            }
            let fault = policy.ttl.and_then(ttl_fault);
            faults.extend(fault.map(|fault| ("responses.models", format!("the ttl of {model:?} {fault}"))));
        }
        if self.disk.budget > 0 {
            let fault = range::fault(self.disk.budget, LEAST_ON_DISK..=u64::MAX);
            faults.extend(fault.map(|_| ("responses.disk.budget", "must be 0 or at least 4MiB".to_owned())));
        }
        if self.disk.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            faults.push(("responses.disk.dir", "must be an absolute path".to_owned()));
        }
        faults.extend(self.shared.iter().flat_map(SharedConfig::faults));
        faults
    }
}

impl SharedConfig {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        faults.extend(client(self).err());
        if self.deadline.is_zero() || self.deadline > Duration::from_secs(1) {
            faults.push(("responses.shared.deadline", "must be more than 0s and at most 1s".to_owned()));
        }
        if self.pause.is_zero() {
            faults.push(("responses.shared.pause", "must be more than 0s".to_owned()));
        }
        if self.lease.time < Duration::from_millis(100) {
            faults.push(("responses.shared.lease.time", "must be at least 100ms".to_owned()));
        }
        faults
    }
}

fn ttl_fault(ttl: Duration) -> Option<String> {
    (ttl.is_zero() || ttl > LONGEST).then(|| "must be more than 0s and at most a year".to_owned())
}

/// A duration that may be left out.
mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::units::duration;

    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "duration")] Duration);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(duration)| duration))
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_named_by_their_keys() {
        assert_eq!(CacheConfig::default().faults(), []);
        let config = json!({
            "responses": {
                "ttl": "0s", "models": { "m": { "ttl": "1h" }, "a b": {} }, "disk": { "budget": "1KiB", "dir": "here" },
                "shared": { "url": "http://x", "deadline": "2s", "pause": "0s", "lease": { "time": "1ms" } },
            },
            "embeddings": { "ttl": "10000h" },
        });
        let config: CacheConfig = serde_json::from_value(config).unwrap();
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        let expected = [
            "responses.ttl",
            "responses.models",
            "responses.disk.budget",
            "responses.disk.dir",
            "responses.shared.url",
            "responses.shared.deadline",
            "responses.shared.pause",
            "responses.shared.lease.time",
            "embeddings.ttl",
        ];
        assert_eq!(keys, expected);
    }

    fn shared(config: serde_json::Value) -> SharedConfig {
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn passwords_do_not_stand_in_urls() {
        let faults = |url: &str| shared(json!({ "url": url })).faults();
        assert_eq!(faults("redis://10.0.0.1:6379/2"), []);
        assert_eq!(faults("unix:/run/valkey.sock"), []);
        assert!(faults("redis://:secret@10.0.0.1").iter().any(|(_, fault)| fault.contains("password")));
    }

    #[test]
    fn passwords_are_not_shown() {
        let config = shared(json!({ "url": "unix:/s", "password": "open sesame" }));
        assert!(!format!("{config:?}").contains("sesame"));
        assert!(!serde_json::to_string(&config).unwrap().contains("sesame"));
    }

    #[test]
    fn whom_to_trust_is_for_tls_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "no certificate").unwrap();
        let of = |url: &str, ca: Option<&std::path::Path>| shared(json!({ "url": url, "ca": ca })).faults();
        let keys =
            |faults: Vec<(&'static str, String)>| faults.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(of("rediss://box:6380", None), []);
        assert_eq!(keys(of("rediss://box:6380/#insecure", None)), ["responses.shared.url"]);
        assert_eq!(keys(of("rediss://box:6380", Some(&file))), ["responses.shared.ca"]);
        assert_eq!(keys(of("rediss://box:6380", Some(&folder.path().join("none")))), ["responses.shared.ca"]);
        assert_eq!(keys(of("redis://box:6379", Some(&file))), ["responses.shared.ca"]);
    }
}
