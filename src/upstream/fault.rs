//! [`Fault`]: how an exchange failed.

use std::time::Duration;

use crate::error::Error;
use crate::generation::{Failure, FailureCode};

/// How an exchange failed. Texts are what was seen, for the log; they may name paths and addresses.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no connection: nothing was sent.
    #[error("connect: {0}")]
    Connect(String),
    /// The node was silent for longer than its patience allows.
    #[error("timeout: {0}")]
    Timeout(String),
    /// The node is gone or broke the protocol.
    #[error("{0}")]
    Broken(String),
    /// The node answered, with a reason. Another node would say the same, unless the code says otherwise.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The node does not do it for this proxy: it lacks the model, or does not know the key. Others may.
    #[error("{}", .0.message)]
    Declined(Failure),
    /// The node wants to be left alone for a while.
    #[error("{}", .failure.message)]
    RateLimited {
        /// Its reason.
        failure: Failure,
        /// How long, if it said so.
        retry_after: Option<Duration>,
    },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(failure) | Fault::Declined(failure) | Fault::RateLimited { failure, .. } => {
                Self::Node(failure)
            }
            Fault::Connect(reason) | Fault::Timeout(reason) => Self::Unreachable { reason },
            Fault::Broken(reason) => Self::NodeLost { reason },
        }
    }
}

impl Fault {
    pub(super) fn broken(stage: &str, error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{stage}: {error}"))
    }

    /// The label in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "broken",
            Self::Refused(_) => "refused",
            Self::Declined(_) => "declined",
            Self::RateLimited { .. } => "rate_limited",
        }
    }

    /// Whether the node is there and said so.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Declined(_) | Self::RateLimited { .. })
    }

    /// Whether another node may do better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Timeout(_)
            | Self::Broken(_)
            | Self::Declined(_)
            | Self::RateLimited { .. } => true,
            Self::Refused(failure) => {
                matches!(failure.code, FailureCode::Unavailable | FailureCode::Internal | FailureCode::Loop)
            }
        }
    }
}
