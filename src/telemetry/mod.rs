//! Telemetry: the metrics this process exports and how it logs.

mod log;
mod metrics;

pub use log::{LogConfig, LogFormat, LogLevel, start as start_log};
pub use metrics::Metrics;
