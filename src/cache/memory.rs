//! [`Memory`]: entries in this process. A look-up takes well under a microsecond and no task.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::config::Eviction;
use super::counts::Counts;
use super::{Entry, ResponsesConfig, Statistics, Summary, Tier, Usage, Wanted, Which};
use crate::generation::Identity;
use crate::telemetry::Metrics;

/// The tier in memory.
pub(super) struct Memory {
    /// By [`Identity::short_key`]: of two entries with the same one the later stays, and who looks for the other does not take it.
    entries: Cache<u64, Arc<Entry>, BuildHasherDefault<AsItIs>>,
    budget: u64,
    counts: Arc<Counts>,
}

/// Keys are hashes already. moka wants the hash of every key whenever it clears up its table: to fetch those of keys that lie
/// elsewhere in memory was 6% of the work for an answer that is asked for once.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// An entry leaves when it is no answer any more, wherever it spent its time before.
struct Fresh;

impl Expiry<u64, Arc<Entry>> for Fresh {
    fn expire_after_create(&self, _: &u64, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.remaining(SystemTime::now()))
    }

    fn expire_after_update(
        &self,
        _: &u64,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.remaining(SystemTime::now()))
    }
}

impl Memory {
    pub(super) fn new(config: &ResponsesConfig, metrics: Arc<Metrics>) -> Self {
        let counts = Arc::new(Counts::new("memory", metrics));
        let policy = match config.policy {
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
            Eviction::Lru => EvictionPolicy::lru(),
        };
        let mut builder = Cache::builder()
            .max_capacity(config.memory)
            .eviction_policy(policy)
            .weigher(|_, entry: &Arc<Entry>| u32::try_from(entry.size()).unwrap_or(u32::MAX))
            .expire_after(Fresh)
            .eviction_listener({
                let counts = Arc::clone(&counts);
                move |_, _, cause| {
                    if let Some(reason) = reason(cause) {
                        counts.evicted(reason, 1);
                    }
                }
            });
        if !config.idle.is_zero() {
            builder = builder.time_to_idle(config.idle);
        }
        let entries = builder.build_with_hasher(BuildHasherDefault::default());
        Self { entries, budget: config.memory, counts }
    }

    /// As [`Tier::get`], at once.
    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        let found = self.entries.get(&wanted.identity.short_key()).filter(|entry| wanted.takes(entry));
        if found.is_some() {
            self.counts.hit.inc()
        } else {
            self.counts.miss.inc()
        };
        found
    }

    /// Whether an answer is there, for who does not ask for it.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.entries.contains_key(&identity.short_key())
    }

    /// As [`Tier::put`], at once.
    pub(super) fn keep(&self, entry: &Arc<Entry>) {
        self.entries.insert(entry.identity.short_key(), Arc::clone(entry));
    }

    /// As [`Tier::purge`], at once.
    pub(super) fn throw_away(&self, which: &Which) -> u64 {
        let meant = self.all().filter(|entry| which.means(entry));
        let gone =
            meant.filter(|entry| self.entries.remove(&entry.identity.short_key()).is_some()).count() as u64;
        self.tend();
        gone
    }

    /// Keeps what `other` has and this one does not.
    pub(super) fn adopt(&self, other: &Self) {
        other.all().filter(|entry| !self.has(&entry.identity)).for_each(|entry| self.keep(&entry));
        self.tend();
    }

    /// Does what was put off and brings the metrics up to date.
    pub(super) fn tend(&self) {
        self.entries.run_pending_tasks();
        self.counts.holds(self.held());
    }

    /// All entries.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Entry>> + '_ {
        self.entries.iter().map(|(_, entry)| entry)
    }

    fn held(&self) -> Usage {
        Usage {
            entries: self.entries.entry_count(),
            bytes: self.entries.weighted_size(),
            budget: self.budget,
        }
    }
}

#[async_trait]
impl Tier for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn get(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        self.find(wanted)
    }

    async fn put(&self, entry: &Arc<Entry>) {
        self.keep(entry);
    }

    async fn purge(&self, which: &Which) -> u64 {
        self.throw_away(which)
    }

    fn usage(&self) -> Option<Usage> {
        self.tend();
        Some(self.held())
    }

    fn list(&self, which: &Which, most: usize) -> Vec<Summary> {
        let meant = self.all().filter(|entry| which.means(entry));
        meant.take(most).map(|entry| Summary::of(&entry)).collect()
    }

    fn statistics(&self) -> Statistics {
        self.counts.statistics()
    }
}

/// The label of a reason to leave; `None`: it did not leave but was replaced.
fn reason(cause: RemovalCause) -> Option<&'static str> {
    match cause {
        RemovalCause::Expired => Some("expired"),
        RemovalCause::Explicit => Some("purged"),
        RemovalCause::Size => Some("size"),
        RemovalCause::Replaced => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{TTL, entry, identity, wanted};
    use super::*;

    fn memory(config: ResponsesConfig) -> (Memory, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Memory::new(&config, Arc::clone(&metrics)), metrics)
    }

    /// One that is fresh by the clock of the machine, which is what the cache goes by.
    fn fresh(prompt: &str, text: &str) -> Arc<Entry> {
        let now = SystemTime::now();
        Arc::new(Entry { created: now, expires: now + TTL, ..entry(prompt, text) })
    }

    #[test]
    fn what_was_kept_is_found_by_the_same_request_alone() {
        let (memory, _) = memory(ResponsesConfig::default());
        memory.keep(&fresh("p", "x"));
        assert!(memory.find(&wanted(&identity("p"))).is_some());
        assert!(memory.find(&wanted(&identity("q"))).is_none());
        assert_eq!(memory.statistics(), Statistics { hits: 1, misses: 1, ..Statistics::default() });
    }

    #[test]
    fn its_budget_is_in_bytes_and_what_leaves_is_counted() {
        for policy in [Eviction::TinyLfu, Eviction::Lru] {
            let (memory, metrics) =
                memory(ResponsesConfig { memory: 64 << 10, policy, ..ResponsesConfig::default() });
            for number in 0..100 {
                memory.keep(&fresh(&number.to_string(), &"x".repeat(4 << 10)));
            }
            let usage = memory.usage().unwrap();
            assert!((8..=16).contains(&usage.entries) && usage.bytes <= 64 << 10, "{policy:?}: {usage:?}");
            let evicted = metrics.cache_evictions.with_label_values(&["memory", "size"]).get();
            assert_eq!(evicted + usage.entries, 100, "{policy:?}");
        }
    }

    #[test]
    fn an_entry_that_has_expired_elsewhere_is_not_kept() {
        let (memory, _) = memory(ResponsesConfig::default());
        memory.keep(&Arc::new(entry("p", "of 1970")));
        assert!(memory.find(&wanted(&identity("p"))).is_none());
    }

    #[tokio::test]
    async fn a_purge_takes_what_is_named_and_no_more() {
        let (memory, _) = memory(ResponsesConfig::default());
        let other = Entry { model: "other".into(), ..(*fresh("q", "x")).clone() };
        memory.keep(&fresh("p", "x"));
        memory.keep(&Arc::new(other));
        let of = |model: &str| Which { model: Some(model.to_owned()), ..Which::default() };
        assert_eq!(memory.purge(&of("nobody")).await, 0);
        assert_eq!(memory.purge(&of("other")).await, 1);
        assert_eq!(memory.list(&Which::default(), 10).len(), 1);
        assert_eq!(memory.purge(&Which::default()).await, 1);
        assert!(memory.find(&wanted(&identity("p"))).is_none());
    }
}
