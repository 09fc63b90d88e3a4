//! Pingora's native streaming path, for paths that another server answers (`passthrough` in the config).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::{Context, Proxy, journal, reply, request};
use crate::config::PassthroughConfig;
use crate::error::Error;

/// What [`Context::endpoint`] says of such a request.
const ENDPOINT: &str = "passthrough";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pingora's phases of a request that is passed on.
pub(super) struct Passthrough(pub Arc<Proxy>);

#[async_trait]
impl ProxyHttp for Passthrough {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.0.active.token())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        ctx.endpoint = ENDPOINT;
        request::admit(&self.0, session.as_downstream_mut(), ctx).await.map(|admitted| !admitted)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        peer(&self.0).await
    }

    /// Makes the request this process' own: the server has a `Host` and CORS check of its own, and the client has passed ours.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        if let Some((host, port)) = self.0.passthrough.as_ref().and_then(PassthroughConfig::authority) {
            head.insert_header("Host", format!("{host}:{port}"))?;
        }
        head.remove_header("Origin");
        head.insert_header("X-Request-Id", &ctx.id)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        reply::decorate(response, ctx, self.0.headers)
    }

    /// Tells the client in its dialect, if nothing was sent yet.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &pingora::Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let is_clients = error.esource() == &ErrorSource::Downstream;
        let answer = Error::Unreachable { reason: error.to_string() };
        let error_code = answer.status().as_u16();
        if is_clients {
            request::failed(&self.0, session.as_downstream_mut(), error, ctx).await;
        } else if session.response_written().is_some() {
            ctx.outcome = answer.code();
            ctx.error = Some(answer);
        } else if let Err(error) = reply::error(&self.0, session.as_downstream_mut(), ctx, answer).await {
            tracing::debug!(%error, "the client left before it could be told");
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&pingora::Error>, ctx: &mut Context) {
        journal::write(&self.0, session.as_downstream(), error, ctx);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &pingora::Error) -> bool {
        // The journal's one line per request says it.
        true
    }
}

/// The configured server.
pub(super) async fn peer(proxy: &Proxy) -> pingora::Result<Box<HttpPeer>> {
    let Some((host, port)) = proxy.passthrough.as_ref().and_then(PassthroughConfig::authority) else {
        return Err(pingora::Error::explain(ErrorType::InternalError, "no passthrough is configured"));
    };
    // Resolved here and not by `HttpPeer::new`, which blocks the thread and panics on a name that does not resolve.
    let found = tokio::net::lookup_host((host.as_str(), port)).await.ok().and_then(|mut found| found.next());
    let Some(address) = found else {
        return Err(pingora::Error::explain(ErrorType::ConnectNoRoute, format!("cannot resolve {host}")));
    };
    let mut peer = HttpPeer::new(address, false, host);
    peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
    Ok(Box::new(peer))
}
