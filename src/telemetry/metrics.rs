//! [`Metrics`]: every family this process exports, on its own registry, handed down to whoever counts.

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
    /// `{reason}`.
    pub retries: IntCounterVec,
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
    /// `{model}`: workers of the model that are ready.
    pub model_loaded: IntGaugeVec,
    /// `{model}`.
    pub model_load: HistogramVec,
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
            retries: counter(r, "retries_total", "Exchanges started again elsewhere.", &["reason"])?,
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
            model_loaded: gauge(r, "model_loaded", "Workers of the model that are ready.", &["model"])?,
            model_load: histogram(r, "model_load_seconds", "Spawn to ready.", LATENCY, &["model"])?,
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
            build_info: register(r, Gauge::with_opts(build)?)?,
            registry,
        };
        metrics.build_info.set(1.0);
        Ok(metrics)
    }

    /// The exposition in Prometheus' text format 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        String::from_utf8(bytes).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
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
