//! What a [`Breaker`](super::Breaker) says of itself.

use std::time::Instant;

use serde::Serialize;

/// What may go to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// A few requests, to see whether it is back.
    HalfOpen,
}

impl State {
    /// The value in metrics: 0 closed, 1 open, 2 half open.
    pub fn value(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change of state, with why.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// In words.
    pub reason: String,
}

/// Why nothing may go to a node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut {
    /// When it is worth another try; `None`: when somebody says so.
    pub retry_at: Option<Instant>,
}

/// What a person has decided about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Forced {
    /// Nothing goes there.
    Open,
    /// Everything does, whatever comes back.
    Closed,
}

/// How things stand, for who looks at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Now.
    pub state: State,
    /// What a person has decided, if anything.
    pub forced: Option<Forced>,
    /// Why it is as it is.
    pub reason: String,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Requests in the window.
    pub requests: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// Those of them that were slow.
    pub slow: u32,
    /// Seconds until requests go there again.
    pub retry_in: Option<f64>,
    /// The part of its requests that it gets, 1 but after it has come back.
    pub share: f64,
}
