//! Durations, sizes and ranges as people write them, and the order of those that wait.

pub mod duration;
mod keep_alive;
pub mod line;
pub mod range;
pub mod share;
pub mod size;

pub use keep_alive::{GoDurationError, KeepAlive, parse_go_duration};
