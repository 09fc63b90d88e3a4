//! [`Counts`]: what came of requests to one tier.

use std::sync::Arc;

use prometheus::IntCounter;
use serde::Serialize;

use super::Usage;
use crate::telemetry::Metrics;

/// What came of requests to a tier since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Answered.
    pub hits: u64,
    /// Not answered: nothing there, or nothing fresh enough.
    pub misses: u64,
    /// What was there could not be read.
    pub damaged: u64,
    /// It did not answer in time, or with an error.
    pub failures: u64,
}

/// The counters of a tier; looked up once, because a hit is counted in less time than finding its counter takes.
pub(super) struct Counts {
    tier: &'static str,
    metrics: Arc<Metrics>,
    pub hit: IntCounter,
    pub miss: IntCounter,
    pub damaged: IntCounter,
    pub failed: IntCounter,
}

impl Counts {
    pub(super) fn new(tier: &'static str, metrics: Arc<Metrics>) -> Self {
        let result = |result| metrics.cache_requests.with_label_values(&[tier, result]);
        let (hit, miss) = (result("hit"), result("miss"));
        let (damaged, failed) = (result("damaged"), result("failed"));
        Self { tier, hit, miss, damaged, failed, metrics }
    }

    /// An entry has left for `reason`.
    pub(super) fn evicted(&self, reason: &str, count: u64) {
        self.metrics.cache_evictions.with_label_values(&[self.tier, reason]).inc_by(count);
    }

    /// An entry could not be kept for `reason`.
    pub(super) fn not_stored(&self, reason: &str) {
        self.metrics.cache_store_failures.with_label_values(&[self.tier, reason]).inc();
    }

    pub(super) fn holds(&self, usage: Usage) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.cache_entries.with_label_values(&[self.tier]).set(count(usage.entries));
        self.metrics.cache_bytes.with_label_values(&[self.tier]).set(count(usage.bytes));
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            hits: self.hit.get(),
            misses: self.miss.get(),
            damaged: self.damaged.get(),
            failures: self.failed.get(),
        }
    }
}
