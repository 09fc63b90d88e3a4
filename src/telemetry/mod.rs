//! Telemetry: the metrics this process exports and how it logs.

mod counted;
mod log;
mod metrics;

pub use counted::Counted;
pub use log::{LogConfig, LogFormat, LogLevel, set_level as set_log_level, start as start_log};
pub use metrics::Metrics;
