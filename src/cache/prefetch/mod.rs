//! [`Prefetch`]: which request comes next, learnt from those that came after each other.
//!
//! Per client, which is a tenant and its session, the last request is known. Which one follows which is counted ([`row`]) by the keys of
//! their identities, so for each tenant apart. Of a key nothing can be computed, so the requests are kept too; all of it within a budget,
//! and what was used least lately leaves first. What is done about an expectation is the business of whoever asks. Measured is whether
//! expectations were right, and whether answers that were made ahead were used.

mod config;
mod row;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use config::PrefetchConfig;

use super::Which;
use crate::generation::{Generation, Identity, Key};
use crate::telemetry::Metrics;
use row::Row;

/// Clients whose last request is known, and answers that were made ahead and not asked for yet.
const CLIENTS: u64 = 10_000;
const MADE: u64 = 10_000;
/// The part of the budget that one request may take.
const LARGEST_PART: u64 = 16;
/// Expectations that wait for a model to have nothing to do.
const WAITING: usize = 64;

/// What is asked next. It begins with nothing, switched off.
pub struct Prefetch {
    /// For those who only ask that.
    is_on: AtomicBool,
    learnt: RwLock<Arc<Learnt>>,
    metrics: Arc<Metrics>,
}

/// What was learnt under one configuration.
struct Learnt {
    config: PrefetchConfig,
    known: Cache<Key, Known>,
    clients: Cache<Client, Last>,
    /// Those that were made ahead; true: the answer is kept, false: it is being computed.
    made: Cache<Key, bool>,
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Whose requests come after each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// As in [`crate::generation::Scope`].
    pub tenant: Arc<str>,
    /// Where the client says so.
    pub session: Option<u64>,
}

/// A request, as much of it as it takes to run it again.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// What it asks.
    pub identity: Identity,
    /// As the client calls the model.
    pub asked_as: Arc<str>,
    /// The model's configured name.
    pub model: Arc<str>,
    /// Whose it is: as in [`crate::generation::Scope`].
    pub tenant: Arc<str>,
    /// A hash of the client's key.
    pub key_of_client: Option<Arc<str>>,
    /// What ties it to others.
    pub session: Option<u64>,
    /// Which of several answers.
    pub choice: usize,
    /// The request.
    pub generation: Generation,
}

#[derive(Clone)]
struct Known {
    request: Arc<Remembered>,
    row: Row,
}

#[derive(Clone)]
struct Last {
    key: Key,
    at: Instant,
    expected: Arc<[Key]>,
}

impl Remembered {
    fn size(&self) -> usize {
        // The canonical bytes say how long the request is.
        size_of::<Self>() + Row::SIZE + 2 * self.identity.bytes().len()
    }
}

impl Prefetch {
    /// Switched off.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let learnt = Learnt::new(PrefetchConfig::default(), metrics);
        Self {
            is_on: AtomicBool::new(false),
            learnt: RwLock::new(Arc::new(learnt)),
            metrics: Arc::clone(metrics),
        }
    }

    /// Goes on under other settings. Where they differ it begins with nothing.
    pub fn configure(&self, config: &PrefetchConfig) {
        if *config != self.learnt().config {
            let learnt = Learnt::new(config.clone(), &self.metrics);
            *self.learnt.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(learnt);
        }
        self.is_on.store(config.enabled, Ordering::Release);
    }

    /// Whether anything is learnt.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// What is in force now.
    pub fn config(&self) -> PrefetchConfig {
        self.learnt().config.clone()
    }

    /// Learns that a request with this key has come, which `request` makes if it was not known; what is expected next.
    pub fn observe(
        &self,
        client: Client,
        key: Key,
        request: impl FnOnce() -> Remembered,
        now: Instant,
    ) -> Vec<Arc<Remembered>> {
        let learnt = self.learnt();
        let last = learnt.clients.get(&client);
        if let Some(last) = last.filter(|last| now.saturating_duration_since(last.at) <= learnt.config.window)
        {
            if last.key == key {
                return Vec::new();
            }
            if !last.expected.is_empty() {
                let result = if last.expected.contains(&key) { "right" } else { "wrong" };
                self.metrics.prefetch_predictions.with_label_values(&[result]).inc();
            }
            learnt.count(last.key, key, now);
        }
        let expected = learnt.expected(key, request, now);
        let keys = expected.iter().map(|request| request.identity.key()).collect();
        learnt.clients.insert(client, Last { key, at: now, expected: keys });
        expected
    }

    /// A request has come for which an answer may have been made ahead; `is_hit`: it got one that was kept.
    pub fn asked(&self, key: Key, is_hit: bool) {
        if let Some(is_kept) = self.learnt().made.remove(&key) {
            self.count(if is_hit || !is_kept { "used" } else { "wasted" });
        }
    }

    /// The right to wait until a model has nothing to do. `None`: too many do.
    pub fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.learnt().waiting).try_acquire_owned().ok()
    }

    /// The right to compute. `None`: as many do as may.
    pub fn run(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.learnt().running).try_acquire_owned().ok()
    }

    /// An answer is being made ahead.
    pub fn begin(&self, key: Key) {
        self.learnt().made.insert(key, false);
    }

    /// It is kept now, because it was `computed` or `promoted`.
    pub fn succeed(&self, key: Key, how: &str) {
        let learnt = self.learnt();
        // Whoever has asked for it meanwhile has used it.
        if how == "promoted" || learnt.made.contains_key(&key) {
            learnt.made.insert(key, true);
        }
        self.count(how);
    }

    /// Nothing came of it, because it was `given_up` or `failed`.
    pub fn fail(&self, key: Key, why: &str) {
        self.learnt().made.invalidate(&key);
        self.count(why);
    }

    /// Forgets requests whose answers are purged.
    pub fn purge(&self, which: &Which) {
        let learnt = self.learnt();
        for (key, Known { request, .. }) in &learnt.known {
            if which.is(|| *key, &request.model, &request.tenant) {
                learnt.known.invalidate(&*key);
            }
        }
    }

    /// Does what was put off.
    pub fn tend(&self) {
        let learnt = self.learnt();
        learnt.known.run_pending_tasks();
        learnt.clients.run_pending_tasks();
        learnt.made.run_pending_tasks();
    }

    fn learnt(&self) -> Arc<Learnt> {
        Arc::clone(&self.learnt.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, result: &str) {
        self.metrics.prefetches.with_label_values(&[result]).inc();
    }
}

impl Learnt {
    fn new(config: PrefetchConfig, metrics: &Arc<Metrics>) -> Self {
        let wasted = metrics.prefetches.with_label_values(&["wasted"]);
        let made = Cache::builder().max_capacity(MADE).time_to_live(config.window).eviction_listener(
            move |_, _, cause: RemovalCause| {
                if cause.was_evicted() {
                    wasted.inc();
                }
            },
        );
        let size = |_: &Key, known: &Known| u32::try_from(known.request.size()).unwrap_or(u32::MAX);
        let known =
            Cache::builder().max_capacity(config.memory).eviction_policy(EvictionPolicy::lru()).weigher(size);
        Self {
            known: known.build(),
            clients: Cache::builder().max_capacity(CLIENTS).time_to_idle(config.window).build(),
            made: made.build(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            running: Arc::new(Semaphore::new(config.in_flight.min(Semaphore::MAX_PERMITS))),
            config,
        }
    }

    /// `key` has come after `last`.
    fn count(&self, last: Key, key: Key, now: Instant) {
        if let Some(mut known) = self.known.get(&last) {
            known.row.count(key, self.config.half_life, now);
            // Two at a time count as one: it is a statistic.
            self.known.insert(last, known);
        }
    }

    /// What comes after `key`, which is known from now on.
    fn expected(&self, key: Key, request: impl FnOnce() -> Remembered, now: Instant) -> Vec<Arc<Remembered>> {
        let Some(known) = self.known.get(&key) else {
            let request = request();
            if request.size() as u64 <= self.config.memory / LARGEST_PART {
                self.known.insert(key, Known { request: Arc::new(request), row: Row::new(now) });
            }
            return Vec::new();
        };
        let likely = known.row.likely(self.config.threshold, self.config.half_life, now);
        likely.iter().filter_map(|key| Some(self.known.get(key)?.request)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::entry::tests::identity;
    use super::*;

    fn prefetch(config: PrefetchConfig) -> (Prefetch, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let prefetch = Prefetch::new(&metrics);
        prefetch.configure(&PrefetchConfig { enabled: true, ..config });
        (prefetch, metrics)
    }

    fn client(session: u64) -> Client {
        Client { tenant: "t".into(), session: Some(session) }
    }

    /// What is expected after `prompt`.
    fn ask(prefetch: &Prefetch, session: u64, prompt: &str, now: Instant) -> Vec<String> {
        let identity = identity(prompt);
        let request = || Remembered {
            identity: identity.clone(),
            asked_as: "m".into(),
            model: "m".into(),
            tenant: "t".into(),
            key_of_client: None,
            session: Some(session),
            choice: 0,
            generation: Generation::new(
                "m",
                crate::generation::Input::Raw { prompt: prompt.into(), images: Vec::new() },
            ),
        };
        let expected = prefetch.observe(client(session), identity.key(), request, now);
        let prompt = |request: &Arc<Remembered>| match &request.generation.input {
            crate::generation::Input::Raw { prompt, .. } => prompt.clone(),
            _ => String::new(),
        };
        expected.iter().map(prompt).collect()
    }

    fn counted(metrics: &Metrics, result: &str) -> u64 {
        metrics.prefetches.with_label_values(&[result]).get()
    }

    #[test]
    fn what_came_twice_after_a_request_is_expected_after_it() {
        let (prefetch, metrics) = prefetch(PrefetchConfig::default());
        let now = Instant::now();
        for session in 0..2 {
            assert_eq!(ask(&prefetch, session, "a", now), [""; 0]);
            assert_eq!(ask(&prefetch, session, "b", now), [""; 0]);
        }
        assert_eq!(ask(&prefetch, 7, "a", now), ["b"], "also of another session");
        ask(&prefetch, 7, "b", now);
        ask(&prefetch, 8, "a", now);
        ask(&prefetch, 8, "c", now);
        let predictions = |result| metrics.prefetch_predictions.with_label_values(&[result]).get();
        assert_eq!((predictions("right"), predictions("wrong")), (1, 1));
    }

    #[test]
    fn requests_of_different_sessions_or_with_a_long_pause_do_not_follow_each_other() {
        let (prefetch, _) = prefetch(PrefetchConfig::default());
        let now = Instant::now();
        for session in 0..4 {
            ask(&prefetch, 10 + session, "a", now);
            ask(&prefetch, 20 + session, "b", now);
            ask(&prefetch, 10 + session, "b", now + Duration::from_secs(301));
        }
        assert_eq!(ask(&prefetch, 30, "a", now), [""; 0]);
    }

    #[test]
    fn what_is_purged_is_forgotten_and_so_is_everything_under_other_settings() {
        let (prefetch, _) = prefetch(PrefetchConfig::default());
        let now = Instant::now();
        let habit = |first: u64| {
            for session in first..first + 2 {
                ask(&prefetch, session, "a", now);
                ask(&prefetch, session, "b", now);
            }
            ask(&prefetch, first + 2, "a", now)
        };
        assert_eq!(habit(0), ["b"]);
        prefetch.purge(&Which { key: Some(identity("b").key()), ..Which::default() });
        assert_eq!(ask(&prefetch, 3, "a", now), [""; 0]);
        assert_eq!(habit(10), ["b"]);
        prefetch.configure(&PrefetchConfig { enabled: true, threshold: 0.9, ..PrefetchConfig::default() });
        assert_eq!(ask(&prefetch, 20, "a", now), [""; 0]);
    }

    #[test]
    fn its_budget_is_kept() {
        let (prefetch, _) = prefetch(PrefetchConfig { memory: 64 << 10, ..PrefetchConfig::default() });
        for number in 0..1000 {
            ask(&prefetch, 0, &number.to_string(), Instant::now());
        }
        prefetch.tend();
        let known = &prefetch.learnt().known;
        assert!(known.weighted_size() <= 64 << 10 && known.entry_count() > 10, "{}", known.entry_count());
        ask(&prefetch, 0, &"x".repeat(4 << 10), Instant::now());
        assert!(!known.contains_key(&identity(&"x".repeat(4 << 10)).key()), "a sixteenth at most");
    }

    #[test]
    fn an_answer_that_was_made_ahead_is_used_or_wasted() {
        let (prefetch, metrics) = prefetch(PrefetchConfig::default());
        let keys = ["a", "b", "c", "d"].map(|prompt| identity(prompt).key());
        keys[..3].iter().for_each(|key| prefetch.begin(*key));
        prefetch.asked(keys[0], false);
        prefetch.succeed(keys[0], "computed");
        prefetch.succeed(keys[1], "computed");
        prefetch.asked(keys[1], true);
        prefetch.fail(keys[2], "given_up");
        prefetch.succeed(keys[3], "promoted");
        prefetch.asked(keys[3], false);
        keys.iter().for_each(|key| prefetch.asked(*key, true));
        prefetch.tend();
        let counts =
            ["computed", "promoted", "given_up", "used", "wasted"].map(|result| counted(&metrics, result));
        assert_eq!(counts, [2, 1, 1, 2, 1]);
    }
}
