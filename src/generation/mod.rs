//! The canonical form in the middle: what a dialect parses into, and what a node answers with.
//!
//! A dialect turns a client's request into a [`Generation`] (or an [`Embedding`]) and [`Event`]s back into its own wire
//! form; queue, routing and flight see nothing else. The same types, as JSON, cross the seam between proxy and worker
//! ([`seam`]), so `curl --unix-socket` can talk to a worker.

pub mod ability;
mod adapter;
mod embedding;
mod event;
mod fold;
mod identity;
mod image;
mod loading;
mod options;
mod priority;
mod question;
mod ranking;
mod request;
mod resume;
pub mod seam;
#[cfg(test)]
mod tests;
mod unknown;

pub use adapter::Adaptation;
pub use embedding::{Embedding, Embeddings};
pub use event::{Alternative, Delta, Done, DoneReason, Event, Failure, FailureCode, TokenLogprob};
pub use fold::FoldConfig;
pub use identity::{Identity, Key, NoKey, Scope};
pub use image::Image;
pub use loading::{Loading, LoadingState, retry_after};
pub use options::Options;
pub use priority::{NoPriority, Priority};
pub use ranking::{Ranking, Scores};
pub use request::{Format, Generation, Input, Message, Role, Snippet, Think, ToolChoice};
pub use resume::Resume;
pub use unknown::{Unknown, put_under};
