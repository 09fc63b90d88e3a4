//! The data port, one file per concern.
//!
//! `port` reads the line a request begins with. What Arriero answers itself it answers on Pingora's HTTP session (`request`):
//! inference endpoints by readers of flights (`answer`), lists and descriptions of models from what the library knows (`info`).
//! Everything else that must reach a server takes Pingora's native streaming path (`passthrough`). There is no third way.

mod access;
mod answer;
mod body;
mod choices;
mod claim;
mod context;
mod deadline;
mod header;
mod info;
mod journal;
mod passthrough;
mod port;
mod reply;
mod request;

use std::sync::Arc;

use http::HeaderName;
use tokio_util::task::TaskTracker;

pub use access::Access;
pub use context::Context;
pub use port::{Front, Port};

use crate::config::{LimitsConfig, PassthroughConfig};
use crate::dispatch::Dispatch;
use crate::routing::Sites;
use crate::telemetry::Metrics;

/// Whether this process takes requests, and why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the data port answers with.
pub struct Proxy {
    /// The way to the nodes.
    pub dispatch: Arc<Dispatch>,
    /// Who may call.
    pub access: Access,
    /// The `limits` section.
    pub limits: LimitsConfig,
    /// Where paths go that this process does not answer.
    pub passthrough: Option<PassthroughConfig>,
    /// Whether the `X-Arriero-*` headers are sent.
    pub headers: bool,
    /// Where clients are, by their addresses.
    pub sites: Sites,
    /// The header that says it; none where the configured one is not a name.
    pub site_header: Option<HeaderName>,
    /// Whether requests may ask for a fault.
    pub drills: bool,
    /// For `/health`.
    pub readiness: Readiness,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// One token per request under way, so that a stop can wait for them.
    pub active: TaskTracker,
}
