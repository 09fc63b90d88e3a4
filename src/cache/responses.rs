//! [`Responses`]: all tiers of the response cache behind one door.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;

use super::disk::DISK;
use super::tiers::{Policy, Tiers};
use super::{
    Entry, Likeness, Prefetch, Replay, ResponsesConfig, Statistics, Summary, Tier, Turn, Usage, Vectors,
    Wanted, Which,
};
use crate::generation::Identity;
use crate::telemetry::Metrics;

/// How often what was put off is done.
const TEND: Duration = Duration::from_secs(5);

/// Answers that are kept. Dropping it waits until what was to be on disk is.
pub struct Responses {
    /// Swapped as a whole.
    tiers: ArcSwap<Tiers>,
    /// Held while entries move from one memory to the next, so that a purge finds them in one of both.
    moving: Mutex<()>,
    metrics: Arc<Metrics>,
    /// Which questions are similar.
    pub likeness: Likeness,
    /// What is asked next.
    pub prefetch: Prefetch,
}

/// The tiers of another configuration, ready to be put in force.
pub struct Renewed(Tiers);

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
        Ok(Self {
            tiers: ArcSwap::from_pointee(Tiers::new(config, folder, None, metrics)?),
            moving: Mutex::default(),
            metrics: Arc::clone(metrics),
            likeness: Likeness::new(metrics),
            prefetch: Prefetch::new(metrics),
        })
    }

    /// Makes what another configuration needs; nothing has changed yet. Runs inside of a runtime, and blocks: it opens a file.
    pub fn prepare(&self, config: &ResponsesConfig, folder: Option<&Path>) -> Result<Renewed, String> {
        let before = self.tiers.load_full();
        Tiers::new(config, folder, Some(&*before), &self.metrics).map(Renewed)
    }

    /// Goes on under it. What is in memory stays there, as far as there is room. Blocks: a tier that is given up writes what it has to.
    pub fn renew(&self, Renewed(tiers): Renewed) {
        let tiers = Arc::new(tiers);
        let before = {
            let _moving = self.moving();
            let before = self.tiers.swap(Arc::clone(&tiers));
            tiers.succeed(&before);
            before
        };
        drop(before);
        if !tiers.has_disk() {
            // Where there was none, there is nothing to be forgotten.
            let _ = self.metrics.cache_entries.remove_label_values(&[DISK]);
            let _ = self.metrics.cache_bytes.remove_label_values(&[DISK]);
        }
    }

    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of the answers of the model with this name.
    pub fn policy(&self, model: &str) -> Policy {
        self.tiers.load().policy(model)
    }

    /// How stored answers are streamed.
    pub fn replay(&self) -> Replay {
        self.tiers.load().replay()
    }

    /// The answer that is in memory.
    pub fn memory(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        self.tiers.load().memory.find(wanted)
    }

    /// Whether an answer is in memory, for who does not ask for it.
    pub fn is_in_memory(&self, identity: &Identity) -> bool {
        self.tiers.load().memory.has(identity)
    }

    /// Whether there is more than memory.
    pub fn is_deep(&self) -> bool {
        !self.tiers.load().slower.is_empty()
    }

    /// The answer that is elsewhere; faster tiers have it from now on.
    pub async fn deeper(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        let tiers = self.tiers.load_full();
        for (level, tier) in tiers.slower.iter().enumerate() {
            if let Some(entry) = tier.get(wanted).await {
                tiers.promote(&entry, level).await;
                return Some(entry);
            }
        }
        None
    }

    /// Whose turn it is to compute what nobody has.
    pub async fn turn(&self, wanted: &Wanted<'_>) -> Turn {
        let tiers = self.tiers.load_full();
        let Some(shared) = &tiers.shared else { return Turn::Free };
        let turn = shared.turn(wanted).await;
        if let Turn::Answered(entry) = &turn {
            tiers.promote(entry, tiers.slower.len() - 1).await;
        }
        turn
    }

    /// Returns when nothing that concerns other instances is left to be said; for the end.
    pub async fn settle(&self) {
        if let Some(shared) = &self.tiers.load_full().shared {
            shared.settle().await;
        }
    }

    /// Keeps an answer in memory.
    pub fn keep(&self, entry: &Arc<Entry>) {
        self.tiers.load().memory.keep(entry);
    }

    /// Keeps an answer in the slower tiers.
    pub async fn keep_deeper(&self, entry: &Arc<Entry>) {
        for tier in &self.tiers.load_full().slower {
            tier.put(entry).await;
        }
    }

    /// Throws away, and says how many by tier.
    pub async fn purge(&self, which: &Which) -> BTreeMap<&'static str, u64> {
        let mut gone = BTreeMap::new();
        loop {
            let tiers = self.tiers.load_full();
            // The slower first, so that nothing is promoted behind the purge's back.
            for tier in tiers.slower.iter().rev() {
                *gone.entry(tier.name()).or_default() += tier.purge(which).await;
            }
            let _moving = self.moving();
            let now = self.tiers.load();
            *gone.entry(now.memory.name()).or_default() += now.memory.throw_away(which);
            if Arc::ptr_eq(&now, &tiers) {
                break;
            }
            // Another configuration has other tiers; they are to be purged too.
        }
        self.likeness.purge(which);
        self.prefetch.purge(which);
        gone
    }

    /// Every tier.
    pub fn reports(&self) -> Vec<Report> {
        let report = |tier: &dyn Tier| Report {
            tier: tier.name(),
            usage: tier.usage(),
            statistics: tier.statistics(),
        };
        let tiers = self.tiers.load();
        let slower = tiers.slower.iter().map(|tier| report(&**tier));
        std::iter::once(report(&*tiers.memory)).chain(slower).collect()
    }

    /// Up to `most` entries of each tier that can tell, by tier.
    pub fn entries(&self, which: &Which, most: usize) -> BTreeMap<&'static str, Vec<Summary>> {
        let tiers = self.tiers.load();
        let memory = (tiers.memory.name(), tiers.memory.list(which, most));
        let slower = tiers.slower.iter().map(|tier| (tier.name(), tier.list(which, most)));
        std::iter::once(memory).chain(slower).collect()
    }

    /// What is in memory of these.
    pub(super) fn in_memory(&self, which: &Which) -> Vec<Arc<Entry>> {
        self.tiers.load().memory.all().filter(|entry| which.means(entry)).collect()
    }

    /// Does what was put off, also that of `vectors`, now and then; never ends.
    pub async fn tend(&self, vectors: &Vectors) -> Infallible {
        loop {
            // Not all tiers: whoever drops them last waits for their disk.
            let shared = {
                let tiers = self.tiers.load();
                tiers.memory.tend();
                tiers.shared.clone()
            };
            vectors.tend();
            self.prefetch.tend();
            if let Some(shared) = shared {
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

    fn renew(responses: &Responses, config: serde_json::Value, folder: Option<&Path>) {
        let config = serde_json::from_value(config).unwrap();
        responses.renew(responses.prepare(&config, folder).unwrap());
    }

    #[tokio::test]
    async fn under_another_configuration_memory_keeps_what_it_has_room_for() {
        let responses = responses(json!({}), None);
        for number in 0..50 {
            responses.keep(&fresh(&number.to_string()));
        }
        let count = || responses.reports()[0].usage.unwrap();
        renew(&responses, json!({ "memory": "1MiB", "policy": "lru", "ttl": "9s", "replay": "paced" }), None);
        assert_eq!((count().entries, count().budget), (50, 1 << 20));
        assert_eq!((responses.policy("m").ttl, responses.replay()), (Duration::from_secs(9), Replay::Paced));
        renew(&responses, json!({ "memory": "10KiB", "policy": "lru" }), None);
        assert!((5..20).contains(&count().entries) && count().bytes <= 10 << 10, "{:?}", count());
        let before = count();
        renew(&responses, json!({ "memory": "10KiB", "policy": "lru", "enabled": false }), None);
        assert_eq!(count(), before);
        assert!(!responses.policy("m").is_enabled);
    }

    #[tokio::test]
    async fn a_purge_beside_a_reload_misses_nothing() {
        let responses = Arc::new(responses(json!({}), None));
        for round in 0..200 {
            (0..20).for_each(|number| responses.keep(&fresh(&format!("{number}"))));
            let config = json!({ "memory": format!("{}MiB", 8 + round % 2) });
            let renewed = responses.prepare(&serde_json::from_value(config).unwrap(), None).unwrap();
            let reload = std::thread::spawn({
                let responses = Arc::clone(&responses);
                move || responses.renew(renewed)
            });
            responses.purge(&Which::default()).await;
            reload.join().unwrap();
            assert_eq!(responses.reports()[0].usage.unwrap().entries, 0, "round {round}");
        }
    }

    #[tokio::test]
    async fn tiers_come_and_go_and_change_their_size_while_running() {
        let folder = tempfile::tempdir().unwrap();
        let responses = responses(json!({}), None);
        assert!(!responses.is_deep());
        let with = |budget: &str| json!({ "disk": { "budget": budget } });
        renew(&responses, with("8MiB"), Some(folder.path()));
        responses.keep_deeper(&fresh("p")).await;
        renew(&responses, with("16MiB"), Some(folder.path()));
        assert_eq!(responses.reports()[1].usage.unwrap().budget, 16 << 20);
        // Given up, it has everything on disk, and its file can be opened again.
        renew(&responses, json!({}), None);
        assert!(!responses.is_deep());
        renew(&responses, with("8MiB"), Some(folder.path()));
        let identity = identity("p");
        assert!(responses.deeper(&Wanted { now: SystemTime::now(), ..wanted(&identity) }).await.is_some());
        let elsewhere = tempfile::tempdir().unwrap();
        renew(&responses, with("8MiB"), Some(elsewhere.path()));
        assert_eq!(responses.reports()[1].usage.unwrap().entries, 0);
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
