//! [`Vectors`]: embeddings, kept by input, so that of a batch only the inputs that are new are computed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use moka::sync::Cache;

use super::config::EmbeddingsConfig;
use super::counts::Counts;
use super::{Statistics, Usage, Wanted, Which};
use crate::generation::Identity;
use crate::telemetry::Metrics;

/// What a vector takes beside its numbers and its input.
const OVERHEAD: usize = 256;

/// The embedding of one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// L2-normalised.
    pub numbers: Arc<Vec<f32>>,
    /// Tokens of the input.
    pub tokens: u64,
    /// The node that computed it.
    pub node: Arc<str>,
    /// When.
    pub created: SystemTime,
}

/// Embeddings in memory, by the identity of an input.
pub struct Vectors {
    store: ArcSwap<Store>,
    /// Held while vectors move from one store to the next, so that a purge finds them in one of both.
    moving: Mutex<()>,
    counts: Arc<Counts>,
}

/// What is kept under one configuration.
struct Store {
    kept: Cache<Identity, Kept>,
    config: EmbeddingsConfig,
}

#[derive(Clone)]
struct Kept {
    model: Arc<str>,
    tenant: Arc<str>,
    vector: Vector,
}

impl Vectors {
    /// Empty; with a budget of 0 it stays so.
    pub fn new(config: &EmbeddingsConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            store: ArcSwap::from_pointee(Store::new(config)),
            moving: Mutex::default(),
            counts: Arc::new(Counts::new("embeddings", metrics)),
        }
    }

    /// Goes on under other settings, with what there is room for.
    pub fn configure(&self, config: &EmbeddingsConfig) {
        let _moving = self.moving();
        if self.store.load().config == *config {
            return;
        }
        let store = Arc::new(Store::new(config));
        let before = self.store.swap(Arc::clone(&store));
        for (identity, kept) in &before.kept {
            store.kept.insert(Identity::clone(&identity), kept);
        }
    }

    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.store.load().config.memory > 0
    }

    /// The vector that `wanted` takes.
    pub fn find(&self, wanted: &Wanted<'_>) -> Option<Vector> {
        let store = self.store.load();
        let is_fit = |kept: &Kept| {
            let age = wanted.now.duration_since(kept.vector.created).unwrap_or_default();
            age < store.config.ttl && wanted.max_age.is_none_or(|most| age <= most)
        };
        let found = store.kept.get(wanted.identity).filter(is_fit);
        if found.is_some() {
            self.counts.hit.inc()
        } else {
            self.counts.miss.inc()
        };
        found.map(|kept| kept.vector)
    }

    /// Keeps the vector of an input of the model with this name, for this tenant.
    pub fn keep(&self, identity: &Identity, model: &Arc<str>, tenant: &str, vector: Vector) {
        let (model, tenant) = (Arc::clone(model), tenant.into());
        self.store.load().kept.insert(identity.clone(), Kept { model, tenant, vector });
    }

    /// Throws away, and says how many.
    pub fn purge(&self, which: &Which) -> u64 {
        let _moving = self.moving();
        let store = self.store.load_full();
        let is_meant =
            |identity: &Identity, kept: &Kept| which.is(|| identity.key(), &kept.model, &kept.tenant);
        let meant = store.kept.iter().filter(|(identity, kept)| is_meant(identity, kept));
        let gone = meant.filter(|(identity, _)| store.kept.remove(&**identity).is_some()).count() as u64;
        self.counts.evicted("purged", gone);
        self.tend();
        gone
    }

    /// What they take.
    pub fn usage(&self) -> Usage {
        let store = self.store.load();
        store.kept.run_pending_tasks();
        Usage {
            entries: store.kept.entry_count(),
            bytes: store.kept.weighted_size(),
            budget: store.config.memory,
        }
    }

    /// What came of look-ups.
    pub fn statistics(&self) -> Statistics {
        self.counts.statistics()
    }

    /// Does what was put off and brings the metrics up to date.
    pub fn tend(&self) {
        self.counts.holds(self.usage());
    }
}

impl Store {
    fn new(config: &EmbeddingsConfig) -> Self {
        let size = |identity: &Identity, kept: &Kept| {
            OVERHEAD + identity.bytes().len() + size_of_val(kept.vector.numbers.as_slice())
        };
        let kept = Cache::builder()
            .max_capacity(config.memory)
            .weigher(move |identity, kept| u32::try_from(size(identity, kept)).unwrap_or(u32::MAX))
            .time_to_live(config.ttl);
        Self { kept: kept.build(), config: config.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::entry::tests::{START, identity, wanted};
    use super::*;

    fn vectors(config: &EmbeddingsConfig) -> Vectors {
        let vectors = Vectors::new(config, Arc::new(Metrics::new().unwrap()));
        let numbers = Arc::new(vec![1.0, 0.0]);
        let vector = Vector { numbers, tokens: 3, node: "n".into(), created: START };
        vectors.keep(&identity("a"), &"m".into(), "t", vector);
        vectors
    }

    #[test]
    fn each_input_has_its_own() {
        let vectors = vectors(&EmbeddingsConfig::default());
        let (a, b) = (identity("a"), identity("b"));
        assert_eq!(vectors.find(&wanted(&a)).unwrap().tokens, 3);
        assert_eq!(vectors.find(&wanted(&b)), None);
        assert_eq!(vectors.usage().entries, 1);
        let late = Wanted {
            now: START + Duration::from_secs(9),
            max_age: Some(Duration::from_secs(8)),
            ..wanted(&a)
        };
        assert_eq!(vectors.find(&late), None);
    }

    #[test]
    fn they_are_purged_by_model() {
        let (vectors, a) = (vectors(&EmbeddingsConfig::default()), identity("a"));
        let of = |model: &str| Which { model: Some(model.to_owned()), ..Which::default() };
        assert_eq!((vectors.purge(&of("other")), vectors.purge(&of("m"))), (0, 1));
        assert_eq!(vectors.find(&wanted(&a)), None);
    }

    #[test]
    fn under_other_settings_they_stay_for_as_long_as_those_say() {
        let (vectors, a) = (vectors(&EmbeddingsConfig::default()), identity("a"));
        let is_found = |seconds| {
            vectors.find(&Wanted { now: START + Duration::from_secs(seconds), ..wanted(&a) }).is_some()
        };
        assert!(is_found(60));
        vectors.configure(&EmbeddingsConfig { memory: 1 << 20, ttl: Duration::from_secs(10) });
        assert!(is_found(9) && !is_found(60));
        vectors.configure(&EmbeddingsConfig { memory: 0, ..EmbeddingsConfig::default() });
        assert!(!vectors.is_on() && !is_found(9));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let (vectors, a) =
            (vectors(&EmbeddingsConfig { memory: 0, ..EmbeddingsConfig::default() }), identity("a"));
        assert!(!vectors.is_on() && vectors.find(&wanted(&a)).is_none());
    }
}
