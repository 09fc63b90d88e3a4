//! [`Responses`]: all tiers of the response cache behind one door.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::disk::Disk;
use super::memory::Memory;
use super::shared::Shared;
use super::{
    Entry, PolicyConfig, Replay, ResponsesConfig, Statistics, Summary, Tier, Turn, Usage, Vectors, Wanted,
    Which,
};
use crate::dialect::name;
use crate::telemetry::Metrics;

/// How often what was put off is done.
const TEND: Duration = Duration::from_secs(5);

/// Answers that are kept. Dropping it waits until what was to be on disk is.
pub struct Responses {
    policy: Policy,
    /// Those of models that have another one, by the keys of their names.
    policies: HashMap<String, Policy>,
    /// How stored answers are streamed.
    pub replay: Replay,
    memory: Arc<Memory>,
    /// The faster first.
    slower: Vec<Arc<dyn Tier>>,
    shared: Option<Arc<Shared>>,
}

/// What is kept of a model's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything is.
    pub is_enabled: bool,
    /// How old an answer may be.
    pub ttl: Duration,
    /// Whether those with tool calls are.
    pub with_tool_calls: bool,
}

/// A tier, for who looks at it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub tier: &'static str,
    /// What it holds; absent where only the server knows.
    #[serde(flatten)]
    pub usage: Option<Usage>,
    /// What came of look-ups.
    #[serde(flatten)]
    pub statistics: Statistics,
}

impl Responses {
    /// The tiers of `config`; `folder` is that of the one on disk. Runs inside of a runtime.
    pub fn new(
        config: &ResponsesConfig,
        folder: Option<&Path>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, String> {
        let mut slower: Vec<Arc<dyn Tier>> = Vec::new();
        if let (true, Some(folder)) = (config.enabled, folder) {
            let disk = Disk::open(folder, config.disk.budget, Arc::clone(metrics));
            slower.push(Arc::new(disk.map_err(|error| format!("cache.responses.disk: {error}"))?));
        }
        let shared = config.shared.as_ref().filter(|_| config.enabled);
        let shared = shared.map(|shared| Shared::new(shared, Arc::clone(metrics))).transpose();
        let shared = shared.map_err(|error| format!("cache.responses.shared: {error}"))?.map(Arc::new);
        slower.extend(shared.iter().map(|shared| Arc::clone(shared) as Arc<dyn Tier>));
        let policy =
            Policy { is_enabled: config.enabled, ttl: config.ttl, with_tool_calls: config.tool_calls };
        let of = |own: &PolicyConfig| Policy {
            is_enabled: own.enabled.unwrap_or(policy.is_enabled),
            ttl: own.ttl.unwrap_or(policy.ttl),
            with_tool_calls: own.tool_calls.unwrap_or(policy.with_tool_calls),
        };
        let policies = config.models.iter().filter_map(|(model, own)| Some((name::key(model)?, of(own))));
        Ok(Self {
            policy,
            policies: policies.collect(),
            replay: config.replay,
            memory: Arc::new(Memory::new(config, Arc::clone(metrics))),
            slower,
            shared,
        })
    }

    /// What is kept of the answers of the model with this name.
    pub fn policy(&self, model: &str) -> Policy {
        if self.policies.is_empty() {
            return self.policy;
        }
        let own = name::key(model).and_then(|key| self.policies.get(&key));
        own.copied().unwrap_or(self.policy)
    }

    /// The answer that is in memory.
    pub fn memory(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        self.memory.find(wanted)
    }

    /// Whether there is more than memory.
    pub fn is_deep(&self) -> bool {
        !self.slower.is_empty()
    }

    /// The answer that is elsewhere; faster tiers have it from now on.
    pub async fn deeper(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        for (level, tier) in self.slower.iter().enumerate() {
            if let Some(entry) = tier.get(wanted).await {
                self.promote(&entry, level).await;
                return Some(entry);
            }
        }
        None
    }

    /// Whose turn it is to compute what nobody has.
    pub async fn turn(&self, wanted: &Wanted<'_>) -> Turn {
        let Some(shared) = &self.shared else { return Turn::Free };
        let turn = shared.turn(wanted).await;
        if let Turn::Answered(entry) = &turn {
            self.promote(entry, self.slower.len() - 1).await;
        }
        turn
    }

    async fn promote(&self, entry: &Arc<Entry>, level: usize) {
        self.memory.keep(entry);
        for faster in self.slower.iter().take(level) {
            faster.put(entry).await;
        }
    }

    /// Keeps an answer in memory.
    pub fn keep(&self, entry: &Arc<Entry>) {
        self.memory.keep(entry);
    }

    /// Keeps an answer in the slower tiers.
    pub async fn keep_deeper(&self, entry: &Arc<Entry>) {
        for tier in &self.slower {
            tier.put(entry).await;
        }
    }

    /// Throws away, and says how many by tier.
    pub async fn purge(&self, which: &Which) -> BTreeMap<&'static str, u64> {
        let mut gone = BTreeMap::new();
        // The slower first, so that nothing is promoted behind the purge's back.
        for tier in self.slower.iter().rev() {
            gone.insert(tier.name(), tier.purge(which).await);
        }
        gone.insert(self.memory.name(), self.memory.purge(which).await);
        gone
    }

    /// Every tier.
    pub fn reports(&self) -> Vec<Report> {
        let report = |tier: &dyn Tier| Report {
            tier: tier.name(),
            usage: tier.usage(),
            statistics: tier.statistics(),
        };
        std::iter::once(report(&*self.memory)).chain(self.slower.iter().map(|tier| report(&**tier))).collect()
    }

    /// Up to `most` entries of each tier that can tell, by tier.
    pub fn entries(&self, which: &Which, most: usize) -> BTreeMap<&'static str, Vec<Summary>> {
        let memory = (self.memory.name(), self.memory.list(which, most));
        let slower = self.slower.iter().map(|tier| (tier.name(), tier.list(which, most)));
        std::iter::once(memory).chain(slower).collect()
    }

    /// What is in memory of these.
    pub(super) fn in_memory<'a>(&'a self, which: &'a Which) -> impl Iterator<Item = Arc<Entry>> + 'a {
        self.memory.all().filter(|entry| which.means(entry))
    }

    /// Does what was put off, also that of `vectors`, now and then; never ends.
    pub async fn tend(&self, vectors: &Vectors) -> Infallible {
        loop {
            self.memory.tend();
            vectors.tend();
            if let Some(shared) = &self.shared {
                shared.tend().await;
            }
            tokio::time::sleep(TEND).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::super::entry::tests::{TTL, entry, identity, wanted};
    use super::*;

    fn responses(config: serde_json::Value, folder: Option<&Path>) -> Responses {
        let config = serde_json::from_value(config).unwrap();
        Responses::new(&config, folder, &Arc::new(Metrics::new().unwrap())).unwrap()
    }

    fn fresh(prompt: &str) -> Arc<Entry> {
        let now = SystemTime::now();
        Arc::new(Entry { created: now, expires: now + TTL, ..entry(prompt, "x") })
    }

    #[tokio::test]
    async fn a_hit_on_disk_is_one_in_memory_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({ "disk": { "budget": "8MiB" } });
        {
            let entry = fresh("p");
            responses(config.clone(), Some(folder.path())).keep_deeper(&entry).await;
        }
        let again = responses(config, Some(folder.path()));
        let identity = identity("p");
        let wanted = Wanted { now: SystemTime::now(), ..wanted(&identity) };
        assert!(again.memory(&wanted).is_none());
        assert!(again.deeper(&wanted).await.is_some());
        assert!(again.memory(&wanted).is_some());
        let gone = again.purge(&Which::default()).await;
        assert_eq!(gone, BTreeMap::from([("disk", 1), ("memory", 1)]));
        assert!(again.memory(&wanted).is_none() && again.deeper(&wanted).await.is_none());
    }

    #[tokio::test]
    async fn models_have_policies_of_their_own_under_every_spelling() {
        let config = json!({ "ttl": "1m", "models": { "Small": { "ttl": "1h" }, "off:latest": { "enabled": false } } });
        let responses = responses(config, None);
        assert_eq!(responses.policy("small:latest").ttl, Duration::from_secs(3600));
        assert_eq!(responses.policy("other").ttl, Duration::from_secs(60));
        assert!(!responses.policy("off").is_enabled && responses.policy("small").is_enabled);
    }

    #[tokio::test]
    async fn every_tier_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let responses = responses(json!({ "disk": { "budget": "8MiB" } }), Some(folder.path()));
        responses.keep(&fresh("p"));
        let reports = serde_json::to_value(responses.reports()).unwrap();
        assert_eq!((&reports[0]["tier"], &reports[0]["entries"]), (&json!("memory"), &json!(1)));
        assert_eq!((&reports[1]["tier"], &reports[1]["budget"]), (&json!("disk"), &json!(8 << 20)));
        assert_eq!(responses.entries(&Which::default(), 5)["memory"].len(), 1);
    }
}
