//! The data port: Pingora's phases, one file per concern.
//!
//! Inference endpoints are answered from `request_filter` by readers of flights (`answer`); lists and descriptions of
//! models from what the library knows (`info`); everything else that must reach a server takes Pingora's native
//! streaming path (`passthrough`). There is no third way.

mod access;
mod answer;
mod body;
mod choices;
mod context;
mod info;
mod journal;
mod passthrough;
mod reply;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use tokio_util::task::TaskTracker;

pub use access::Access;

pub use context::Context;

use crate::config::{LimitsConfig, PassthroughConfig};
use crate::dispatch::Dispatch;
use crate::telemetry::Metrics;

/// Whether this process takes requests, and why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The data port.
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
    /// For `/health`.
    pub readiness: Readiness,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// One token per request under way, so that a stop can wait for them.
    pub active: TaskTracker,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.active.token())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        request::filter(self, session, ctx).await
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        passthrough::peer(self).await
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        passthrough::request(self, request, ctx)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        reply::decorate(response, ctx, self.headers)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &pingora::Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        passthrough::failed(self, session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&pingora::Error>, ctx: &mut Context) {
        journal::write(self, session, error, ctx);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &pingora::Error) -> bool {
        // The journal's one line per request says it.
        true
    }
}
