//! [`Outcome`]: what became of a request, as far as strategies learn from it.

use std::time::Duration;

/// What became of a request that was sent. Times are from when it was sent to the node. Every request that was sent ends with `Done`,
/// `Failed` or `Cancelled`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It is on its way.
    Sent,
    /// Its first token has come.
    FirstToken {
        /// Time to first token.
        after: Duration,
    },
    /// It has been answered.
    Done {
        /// To the last token.
        after: Duration,
        /// Time to first token.
        ttft: Duration,
        /// Tokens of the answer.
        tokens: u64,
    },
    /// The node failed.
    Failed {
        /// When.
        after: Duration,
    },
    /// The client left; says nothing about the node.
    Cancelled,
}
