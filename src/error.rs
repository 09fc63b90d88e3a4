//! [`Error`]: everything a request can fail with. One closed enum decides status, stable code, log level and retry-after;
//! a dialect only decides the shape.

use std::time::Duration;

use http::StatusCode;
use tracing::Level;

use crate::generation::{Failure, FailureCode, Loading, LoadingState, retry_after};

/// Why a request failed. The message is Ollama's where Ollama has one
/// (<https://github.com/ollama/ollama/blob/main/server/routes.go>), because clients match on it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The body is empty.
    #[error("missing request body")]
    MissingBody,
    /// The request cannot be understood, or a field has a value it cannot have.
    #[error("{message}")]
    Invalid {
        /// What is wrong, for the person who sent it.
        message: String,
        /// The field, where one is to blame.
        param: Option<&'static str>,
    },
    /// The body is larger than `limits.body`.
    #[error("request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The cap in bytes.
        limit: u64,
    },
    /// No model of this name is configured.
    #[error("model '{name}' not found")]
    ModelNotFound {
        /// As the client wrote it.
        name: String,
    },
    /// The same, as the embedding endpoints of Ollama say it.
    #[error("model \"{name}\" not found, try pulling it first")]
    ModelNotPulled {
        /// As the client wrote it.
        name: String,
    },
    /// The model cannot do what is asked.
    #[error("\"{model}\" does not support {capability}")]
    Unsupported {
        /// As the client wrote it.
        model: String,
        /// `chat`, `generate`, `thinking`.
        capability: &'static str,
    },
    /// The same, as Ollama says it of what is asked for beside text.
    #[error("{model} does not support {capability}")]
    Incapable {
        /// The full name, such as `registry.ollama.ai/library/demo:latest`.
        model: String,
        /// `tools`, `insert`, `vision`.
        capability: &'static str,
    },
    /// The endpoint exists in the mirrored API but is not built.
    #[error("{endpoint} is not implemented by arriero")]
    NotImplemented {
        /// The path.
        endpoint: String,
    },
    /// No such path.
    #[error("404 page not found")]
    NoSuchPath,
    /// The path exists with another method.
    #[error("405 method not allowed")]
    MethodNotAllowed,
    /// The `Origin` header is not allowed.
    #[error("origin not allowed")]
    ForbiddenOrigin,
    /// The `Host` header does not name this machine.
    #[error("host not allowed")]
    ForbiddenHost,
    /// As many requests as `queue.depth` wait already.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    QueueFull {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// It waited longer than `queue.wait`, or than the client's own limit.
    #[error("server busy, please try again.  no capacity within {}s", .waited.as_secs())]
    QueueTimeout {
        /// How long it waited.
        waited: Duration,
    },
    /// The model cannot be loaded; the reason is in words.
    #[error("model '{model}' failed to load: {reason}")]
    LoadFailed {
        /// The configured name.
        model: String,
        /// What the worker or the supervisor says.
        reason: String,
    },
    /// There is not enough memory for the model at the moment.
    #[error("there is no room for model '{model}' at the moment: {reason}")]
    NoRoom {
        /// The configured name.
        model: String,
        /// With the numbers.
        reason: String,
        /// How long it will take, as far as it can be said, until it could be used.
        eta: Duration,
    },
    /// The load made no progress for `load_timeout`.
    #[error("timed out waiting for model '{model}' to load")]
    LoadTimeout {
        /// The configured name.
        model: String,
    },
    /// A node refused the request with a reason of its own.
    #[error("{}", .0.message)]
    Node(Failure),
    /// Every attempt ended with a node that died or broke the protocol.
    #[error(
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, check \
         the server logs for details"
    )]
    NodeLost {
        /// What was seen last; for the log alone, it may name paths.
        reason: String,
    },
    /// The server behind `passthrough` cannot be reached, or broke off.
    #[error("the server that answers this endpoint cannot be reached")]
    Unreachable {
        /// What was seen; for the log alone.
        reason: String,
    },
    /// A model that is known, and that no node serves now.
    #[error("no node serves model '{model}' at the moment")]
    NoNode {
        /// As [`crate::library::Library::canonical`] spells it.
        model: String,
    },
    /// No node of this name.
    #[error("node '{name}' not found")]
    NodeNotFound {
        /// As it was written.
        name: String,
    },
    /// Every node that serves the model fails, is busy or is taken out.
    #[error("no node takes requests for model '{model}' at the moment")]
    NodesShut {
        /// As [`crate::library::Library::canonical`] spells it.
        model: String,
        /// When the first of them is worth another try.
        retry_after: Duration,
    },
    /// The client takes a kept answer only (`Cache-Control: only-if-cached`), and there is none.
    #[error("no answer to this request is kept")]
    NotKept,
    /// The client's own deadline passed.
    #[error("deadline of the request exceeded")]
    DeadlineExceeded {
        /// How far its model was on its way, if it was not there.
        loading: Option<Loading>,
    },
    /// The stream that the client wants to go on with is not there any more, or was the answer to something else.
    #[error("the stream cannot be resumed; send the request again without Last-Event-ID")]
    StreamGone,
    /// The process is stopping.
    #[error("arriero is shutting down")]
    ShuttingDown,
    /// A bug or a failure of this process.
    #[error("internal error: {reason}")]
    Internal {
        /// For the log and the report.
        reason: String,
    },
}

/// What the client should see about an error when its dialect has types for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is at fault.
    InvalidRequest,
    /// What was asked for is not there.
    NotFound,
    /// Not allowed.
    Permission,
    /// This side is at fault or busy.
    Api,
}

impl Error {
    /// A request that cannot be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: None }
    }

    /// A field with a value it cannot have.
    pub fn invalid_param(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param) }
    }

    /// A failure of this process.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        Self::Internal { reason: reason.to_string() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MissingBody | Self::Invalid { .. } | Self::Unsupported { .. } | Self::Incapable { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ModelNotFound { .. }
            | Self::ModelNotPulled { .. }
            | Self::NodeNotFound { .. }
            | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::NotImplemented { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForbiddenOrigin | Self::ForbiddenHost => StatusCode::FORBIDDEN,
            Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::LoadTimeout { .. }
            | Self::NoRoom { .. }
            | Self::NoNode { .. }
            | Self::NodesShut { .. }
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::LoadFailed { .. } | Self::NodeLost { .. } | Self::Internal { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
            Self::DeadlineExceeded { .. } | Self::NotKept => StatusCode::GATEWAY_TIMEOUT,
            Self::StreamGone => StatusCode::CONFLICT,
            Self::Node(failure) => match failure.code {
                FailureCode::InvalidRequest | FailureCode::ContextLength | FailureCode::Unsupported => {
                    StatusCode::BAD_REQUEST
                }
                FailureCode::Loop => StatusCode::LOOP_DETECTED,
                FailureCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                FailureCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// A stable word for programs: OpenAI's `code`, and the `outcome` label of metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingBody => "missing_body",
            Self::Invalid { .. } => "invalid_request",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::ModelNotFound { .. } | Self::ModelNotPulled { .. } => "model_not_found",
            Self::Unsupported { .. } | Self::Incapable { .. } => "unsupported",
            Self::NotImplemented { .. } => "not_implemented",
            Self::NoSuchPath => "no_such_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::ForbiddenOrigin => "forbidden_origin",
            Self::ForbiddenHost => "forbidden_host",
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::LoadFailed { .. } => "load_failed",
            Self::LoadTimeout { .. } => "load_timeout",
            Self::NoRoom { .. } => "no_room",
            Self::Node(failure) => match failure.code {
                FailureCode::InvalidRequest => "invalid_request",
                FailureCode::ContextLength => "context_length_exceeded",
                FailureCode::Unsupported => "unsupported",
                FailureCode::Loop => "loop_detected",
                FailureCode::Unavailable => "unavailable",
                FailureCode::Internal => "node_failed",
            },
            Self::NodeLost { .. } => "node_lost",
            Self::Unreachable { .. } => "unreachable",
            Self::NoNode { .. } => "no_node",
            Self::NodesShut { .. } => "nodes_shut",
            Self::NodeNotFound { .. } => "node_not_found",
            Self::NotKept => "not_kept",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::StreamGone => "stream_gone",
            Self::ShuttingDown => "shutting_down",
            Self::Internal { .. } => "internal",
        }
    }

    /// Which family of error types the dialect should name.
    pub fn kind(&self) -> Kind {
        match self.status().as_u16() {
            403 => Kind::Permission,
            404 => Kind::NotFound,
            400..500 => Kind::InvalidRequest,
            _ => Kind::Api,
        }
    }

    /// How loudly it is logged: what the client did is information, what is full is a warning, what broke is an error.
    pub fn level(&self) -> Level {
        match self.status().as_u16() {
            _ if *self == Self::NotKept => Level::INFO,
            500 | 502 => Level::ERROR,
            503 | 504 | 508 => Level::WARN,
            _ => Level::INFO,
        }
    }

    /// Goes out as `Retry-After` with every rejection that a later try may survive.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after } => Some(*retry_after),
            Self::NodesShut { retry_after, .. } => Some((*retry_after).max(Duration::from_secs(1))),
            Self::QueueTimeout { .. } | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::NoRoom { eta, .. } => Some(retry_after(*eta)),
            Self::LoadTimeout { .. } | Self::NoNode { .. } => Some(Duration::from_secs(5)),
            Self::Node(Failure { code: FailureCode::Unavailable, .. }) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether whoever fails with it may have waited for a model on its way into memory.
    pub fn may_be_for_a_load(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. }
                | Self::QueueTimeout { .. }
                | Self::NoRoom { .. }
                | Self::LoadTimeout { .. }
                | Self::NoNode { .. }
                | Self::NodesShut { .. }
        )
    }

    /// How far the model was on its way, where the error itself says so.
    pub fn loading(&self) -> Option<Loading> {
        match self {
            Self::NoRoom { eta, .. } => {
                Some(Loading { state: LoadingState::NoRoom, progress: 0.0, eta: Some(*eta) })
            }
            Self::DeadlineExceeded { loading } => *loading,
            _ => None,
        }
    }

    /// The message, with what only the log may show.
    pub fn detail(&self) -> String {
        match self {
            Self::NodeLost { reason } | Self::Unreachable { reason } => format!("{self} ({reason})"),
            _ => self.to_string(),
        }
    }

    /// The field to blame, for dialects that name it.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { param, .. } => *param,
            _ => None,
        }
    }
}
