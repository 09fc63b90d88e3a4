//! Durations, sizes and ranges as people write them.

pub mod duration;
mod keep_alive;
pub mod range;
pub mod size;

pub use keep_alive::{GoDurationError, KeepAlive, parse_go_duration};
