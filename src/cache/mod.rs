//! The response cache: complete answers, kept as events and given again in any dialect.
//!
//! An entry belongs to an [`Identity`](crate::generation::Identity), so to the file that answers and to who asks, and is given only to a
//! request whose canonical bytes are the same. [`Responses`] is what the rest of the process sees: tiers, the fastest first, each a
//! [`Tier`] in a file of its own. None of them can fail a request: what a tier cannot do is counted and taken for a miss.
//!
//! Two things are learnt beside: which questions are similar ([`Likeness`]), and which request comes after which ([`Prefetch`]).

mod archive;
pub mod codec;
mod config;
mod control;
mod counts;
mod disk;
mod entry;
mod likeness;
mod memory;
mod prefetch;
mod responses;
mod shared;
mod tier;
mod tiers;
mod vectors;

pub use archive::Loaded;
pub use config::{
    CacheConfig, DiskConfig, EmbeddingsConfig, Eviction, LeaseConfig, PolicyConfig, Replay, ResponsesConfig,
    SharedConfig,
};
pub use control::Control;
pub use counts::Statistics;
pub use entry::{Entry, Wanted, is_whole};
pub use likeness::{Alike, Asked, Likeness, Point, SemanticConfig, SemanticMode};
pub use prefetch::{Client, Prefetch, PrefetchConfig, Remembered};
pub use responses::{Renewed, Report, Responses};
pub use shared::{Lease, Turn};
pub use tier::{Summary, Tier, Usage, Which};
pub use tiers::Policy;
pub use vectors::{Vector, Vectors};
