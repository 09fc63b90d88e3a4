//! Durations and sizes as people write them.

mod keep_alive;

pub use keep_alive::{GoDurationError, KeepAlive, keep_alive_option, parse_go_duration};
