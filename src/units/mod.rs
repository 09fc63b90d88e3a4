//! Durations, sizes, ranges and sets of numbers as people write them, texts that are not shown, where files belong, and the order of those
//! that wait.

pub mod duration;
pub mod folder;
mod indices;
mod keep_alive;
pub mod line;
pub mod range;
mod secret;
pub mod share;
pub mod size;

pub use indices::{Indices, IndicesFault};
pub use keep_alive::{GoDurationError, KeepAlive, parse_go_duration};
pub use secret::Secret;
