//! [`Metrics`]: every family this process exports, on its own registry, handed down to whoever counts.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Seconds from 100 us to 10 minutes: a cache hit and a long story both land inside.
const LATENCY: &[f64] = &[
    1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// Seconds per token: 1 ms (a GPU with a small model) to 3 s.
const PER_TOKEN: &[f64] = &[1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 7.5e-2, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0];
/// Seconds this process adds to a request: 10 us to 1 s.
const OVERHEAD: &[f64] = &[1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.1, 1.0];

/// Cosines of questions that are worth comparing.
const SIMILARITY: &[f64] = &[0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0];

/// Every metric family. Labels are bounded: `model` and `node` only ever hold configured names, the rest are enums.
pub struct Metrics {
    registry: Registry,
    /// `{dialect, endpoint, model, outcome}`; outcome is `ok`, `cancelled` or an error's code.
    pub requests: IntCounterVec,
    /// `{endpoint, model}`: arrival to last byte.
    pub request_duration: HistogramVec,
    /// `{model}`: arrival to the first token handed to the client.
    pub ttft: HistogramVec,
    /// `{model}`: mean time per token after the first, one observation per request.
    pub tpot: HistogramVec,
    /// Arrival to first event, minus the queue, loads and nodes.
    pub overhead: Histogram,
    /// `{model}`.
    pub queue_wait: HistogramVec,
    /// `{model}`.
    pub queue_depth: IntGaugeVec,
    /// `{node}`: exchanges running.
    pub inflight: IntGaugeVec,
    /// `{model, type}`; type is `prompt`, `cached` or `completion`.
    pub tokens: IntCounterVec,
    /// `{model, result}`: tokens guessed ahead; result is `accepted` or `rejected`.
    pub speculated_tokens: IntCounterVec,
    /// `{model}`: requests answered by what was computed for another one.
    pub coalesced: IntCounterVec,
    /// `{reason}`.
    pub retries: IntCounterVec,
    /// `{result}`: second nodes asked; result is `won` or `lost`.
    pub hedges: IntCounterVec,
    /// `{model, to}`: requests that went on to another model.
    pub fallbacks: IntCounterVec,
    /// `{model, rung}`: what was done because a model found no room in memory as it is configured.
    pub model_rungs: IntCounterVec,
    /// Answers that went on elsewhere after their first byte.
    pub resumed: IntCounter,
    /// `{node, model}`: 0 closed, 1 open, 2 half open; without a model for the node as a whole.
    pub breaker_state: IntGaugeVec,
    /// `{node, from, to}`.
    pub breaker_transitions: IntCounterVec,
    /// `{strategy}`: how far the expected time to first token was off.
    pub prediction_error: HistogramVec,
    /// `{node}`: 1 while it takes requests.
    pub node_up: IntGaugeVec,
    /// `{node, result}`; result is `ok` or `failed`.
    pub canaries: IntCounterVec,
    /// `{node, model}`: the part of its requests that a node gets, 0 to 1.
    pub node_share: GaugeVec,
    /// `{model}`: workers of the model that are ready.
    pub model_loaded: IntGaugeVec,
    /// `{model}`.
    pub model_load: HistogramVec,
    /// `{model}`: loads that another model has left for.
    pub model_swaps: IntCounterVec,
    /// `{model, result}`: models loaded before anybody asked for them; result is `begun`, `used` or `unused`.
    pub preloads: IntCounterVec,
    /// `{device, kind}`: what workers take. Kind is `mapped`, `private` or `reserved` on the `host`, `all` on the `gpu`.
    pub memory: IntGaugeVec,
    /// `{device}`: what they may take.
    pub memory_budget: IntGaugeVec,
    /// `{reason}`: `idle`, `manual`, `limit`, `memory`.
    pub model_evictions: IntCounterVec,
    /// `{reason}`: `exited`, `killed`, `unresponsive`.
    pub worker_restarts: IntCounterVec,
    /// `{node}`: part of the KV cells in use.
    pub kv_used: GaugeVec,
    /// `{node}`.
    pub pauses: IntCounterVec,
    /// `{model, event}`; event is `saved`, `restored`, `damaged`, `foreign` or `failed`.
    pub snapshots: IntCounterVec,
    /// `{model}`: tokens that did not have to be read because they were on disk.
    pub snapshot_restored_tokens: IntCounterVec,
    /// `{model}`: on disk.
    pub snapshot_bytes: IntGaugeVec,
    /// `{tier, result}`: look-ups; result is `hit`, `miss`, `damaged` or `failed`.
    pub cache_requests: IntCounterVec,
    /// `{result}`: questions looked at by likeness; result is `hit`, `miss`, `failed`, `unfit`, or in shadow `same` or `other`.
    pub semantic_requests: IntCounterVec,
    /// `{result}`: of what was served, or would have been.
    pub semantic_similarity: HistogramVec,
    /// `{result}`: answers made ahead; result is `computed`, `promoted`, `given_up`, `failed`, `used` or `wasted`.
    pub prefetches: IntCounterVec,
    /// `{result}`: what was expected to be asked next; result is `right` or `wrong`.
    pub prefetch_predictions: IntCounterVec,
    /// `{tier}`.
    pub cache_entries: IntGaugeVec,
    /// `{tier}`.
    pub cache_bytes: IntGaugeVec,
    /// `{tier, reason}`: `size`, `expired` or `purged`.
    pub cache_evictions: IntCounterVec,
    /// `{tier, reason}`: `large`, `busy`, `full` or `failed`.
    pub cache_store_failures: IntCounterVec,
    /// Always 1; the labels tell the version and the features.
    pub build_info: Gauge,
}

impl Metrics {
    /// Registers every family.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let features = if cfg!(feature = "engine") { "engine" } else { "" };
        let build = Opts::new("arriero_build_info", "Version and features; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("features", features);
        let metrics = Self {
            requests: counter(
                r,
                "requests_total",
                "Requests answered.",
                &["dialect", "endpoint", "model", "outcome"],
            )?,
            request_duration: histogram(
                r,
                "request_duration_seconds",
                "From arrival to the last byte.",
                LATENCY,
                &["endpoint", "model"],
            )?,
            ttft: histogram(r, "ttft_seconds", "From arrival to the first token.", LATENCY, &["model"])?,
            tpot: histogram(
                r,
                "tpot_seconds",
                "Mean time per token after the first.",
                PER_TOKEN,
                &["model"],
            )?,
            overhead: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "arriero_overhead_seconds",
                        "Arrival to first event, minus the time queued, loading and spent upstream.",
                    )
                    .buckets(OVERHEAD.to_vec()),
                )?,
            )?,
            queue_wait: histogram(
                r,
                "queue_wait_seconds",
                "Waiting for a place to run.",
                LATENCY,
                &["model"],
            )?,
            queue_depth: gauge(r, "queue_depth", "Requests waiting for a place to run.", &["model"])?,
            inflight: gauge(r, "inflight", "Exchanges running on a node.", &["node"])?,
            tokens: counter(r, "tokens_total", "Tokens by type.", &["model", "type"])?,
            speculated_tokens: counter(
                r,
                "speculated_tokens_total",
                "Tokens guessed ahead, by whether they were right.",
                &["model", "result"],
            )?,
            coalesced: counter(
                r,
                "coalesced_requests_total",
                "Requests answered by what was being computed for another one.",
                &["model"],
            )?,
            retries: counter(r, "retries_total", "Exchanges started again elsewhere.", &["reason"])?,
            hedges: counter(
                r,
                "hedges_total",
                "Requests sent to a second node because the first was late.",
                &["result"],
            )?,
            fallbacks: counter(
                r,
                "fallbacks_total",
                "Requests that went on to another model.",
                &["model", "to"],
            )?,
            model_rungs: counter(
                r,
                "model_rungs_total",
                "What was done because a model found no room in memory as it is configured.",
                &["model", "rung"],
            )?,
            resumed: register(
                r,
                IntCounter::new(
                    "arriero_resumed_total",
                    "Answers that went on elsewhere after their first byte.",
                )?,
            )?,
            breaker_state: gauge(
                r,
                "breaker_state",
                "0 closed, 1 open, 2 half open; without a model for the node as a whole.",
                &["node", "model"],
            )?,
            breaker_transitions: counter(
                r,
                "breaker_transitions_total",
                "Breakers that changed their state.",
                &["node", "from", "to"],
            )?,
            prediction_error: histogram(
                r,
                "prediction_error_seconds",
                "How far the time to first token was off that a strategy expected.",
                LATENCY,
                &["strategy"],
            )?,
            node_up: gauge(r, "node_up", "1 while the node takes requests.", &["node"])?,
            canaries: counter(
                r,
                "canaries_total",
                "Generations of one token sent to see.",
                &["node", "result"],
            )?,
            node_share: register(
                r,
                GaugeVec::new(
                    Opts::new("arriero_node_share_ratio", "Part of its requests that a node gets."),
                    &["node", "model"],
                )?,
            )?,
            model_loaded: gauge(r, "model_loaded", "Workers of the model that are ready.", &["model"])?,
            model_load: histogram(r, "model_load_seconds", "Spawn to ready.", LATENCY, &["model"])?,
            model_swaps: counter(
                r,
                "model_swaps_total",
                "Loads that another model had to leave memory for.",
                &["model"],
            )?,
            preloads: counter(
                r,
                "preloads_total",
                "Models loaded before anybody asked for them, and what came of it.",
                &["model", "result"],
            )?,
            memory: gauge(r, "memory_bytes", "Memory that models take.", &["device", "kind"])?,
            memory_budget: gauge(r, "memory_budget_bytes", "Memory that models may take.", &["device"])?,
            model_evictions: counter(r, "model_evictions_total", "Models unloaded.", &["reason"])?,
            worker_restarts: counter(r, "worker_restarts_total", "Workers replaced.", &["reason"])?,
            kv_used: register(
                r,
                GaugeVec::new(Opts::new("arriero_kv_used_ratio", "Part of the KV cells in use."), &["node"])?,
            )?,
            pauses: counter(r, "pauses_total", "Sequences paused because KV cells ran out.", &["node"])?,
            snapshots: counter(r, "snapshots_total", "What became of snapshots.", &["model", "event"])?,
            snapshot_restored_tokens: counter(
                r,
                "snapshot_restored_tokens_total",
                "Tokens of prompts that came from disk.",
                &["model"],
            )?,
            snapshot_bytes: gauge(r, "snapshot_bytes", "Bytes of snapshots on disk.", &["model"])?,
            cache_requests: counter(
                r,
                "cache_requests_total",
                "What came of looking for answers that are kept.",
                &["tier", "result"],
            )?,
            semantic_requests: counter(
                r,
                "semantic_requests_total",
                "What came of looking for answers to similar questions.",
                &["result"],
            )?,
            semantic_similarity: histogram(
                r,
                "semantic_similarity_ratio",
                "How similar the questions were whose answers were given, or would have been.",
                SIMILARITY,
                &["result"],
            )?,
            prefetches: counter(
                r,
                "prefetches_total",
                "Answers made before anybody asked for them.",
                &["result"],
            )?,
            prefetch_predictions: counter(
                r,
                "prefetch_predictions_total",
                "Requests that were expected, by whether they came next.",
                &["result"],
            )?,
            cache_entries: gauge(r, "cache_entries", "Answers that are kept.", &["tier"])?,
            cache_bytes: gauge(r, "cache_bytes", "Bytes of the answers that are kept.", &["tier"])?,
            cache_evictions: counter(
                r,
                "cache_evictions_total",
                "Answers that are not kept any more.",
                &["tier", "reason"],
            )?,
            cache_store_failures: counter(
                r,
                "cache_store_failures_total",
                "Answers that could not be kept.",
                &["tier", "reason"],
            )?,
            build_info: register(r, Gauge::with_opts(build)?)?,
            registry,
        };
        metrics.build_info.set(1.0);
        Ok(metrics)
    }

    /// Forgets what was counted of a node that is gone for good.
    pub fn forget_node(&self, name: &str) {
        forget(&self.inflight, name);
        forget(&self.breaker_state, name);
        forget(&self.breaker_transitions, name);
        forget(&self.node_up, name);
        forget(&self.kv_used, name);
        forget(&self.pauses, name);
        forget(&self.canaries, name);
    }

    /// The exposition in Prometheus' text format 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        String::from_utf8(bytes).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Removes the series whose label `node` is this.
fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, node: &str) {
    for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<_, _> =
            metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.get("node") == Some(&node) {
            // It was there a moment ago; if somebody else has removed it, so much the better.
            let _ = family.remove(&labels);
        }
    }
}

fn counter(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(r, IntCounterVec::new(Opts::new(format!("arriero_{name}"), help), labels)?)
}

fn gauge(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    register(r, IntGaugeVec::new(Opts::new(format!("arriero_{name}"), help), labels)?)
}

fn histogram(
    r: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    register(
        r,
        HistogramVec::new(
            HistogramOpts::new(format!("arriero_{name}"), help).buckets(buckets.to_vec()),
            labels,
        )?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_node_that_is_gone_nothing_is_left_and_of_others_everything() {
        let metrics = Metrics::new().unwrap();
        for node in ["a", "ab"] {
            metrics.node_up.with_label_values(&[node]).set(1);
            metrics.kv_used.with_label_values(&[node]).set(0.5);
            metrics.breaker_transitions.with_label_values(&[node, "closed", "open"]).inc();
            metrics.breaker_state.with_label_values(&[node, ""]).set(1);
            metrics.breaker_state.with_label_values(&[node, "m"]).set(1);
        }
        metrics.forget_node("a");
        let left = metrics.render().unwrap();
        assert_eq!((left.matches("node=\"a\"").count(), left.matches("node=\"ab\"").count()), (0, 5));
    }
}
