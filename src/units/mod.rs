//! Durations and sizes as people write them.

pub mod duration;
mod keep_alive;
pub mod size;

pub use keep_alive::{KeepAlive, keep_alive_option};
