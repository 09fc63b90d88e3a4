//! Pingora's native streaming path, for paths that another server answers (`passthrough` in the config).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::header::REQUEST_ID;
use super::{Context, Proxy, journal, reply, request};
use crate::config::PassthroughConfig;
use crate::error::Error;

/// What [`Context::endpoint`] says of such a request.
const ENDPOINT: &str = "passthrough";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pingora's phases of a request that is passed on.
pub(super) struct Passthrough {
    proxy: Arc<Proxy>,
    host: String,
    port: u16,
    /// What the server is called in `Host`.
    authority: HeaderValue,
}

impl Passthrough {
    /// The way to the configured server, if there is one.
    pub(super) fn new(proxy: &Arc<Proxy>) -> Option<Self> {
        let (host, port) = proxy.passthrough.as_ref().and_then(PassthroughConfig::authority)?;
        let authority = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let authority = HeaderValue::try_from(authority).ok()?;
        Some(Self { proxy: Arc::clone(proxy), host, port, authority })
    }

    async fn address(&self) -> pingora::Result<SocketAddr> {
        // Resolved here and not by `HttpPeer::new`, which blocks the thread and panics on a name that does not resolve.
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found.ok().and_then(|mut found| found.next()).ok_or_else(|| {
            pingora::Error::explain(ErrorType::ConnectNoRoute, format!("cannot resolve {}", self.host))
        })
    }
}

#[async_trait]
impl ProxyHttp for Passthrough {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.proxy.active.token())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        ctx.endpoint = ENDPOINT;
        let client = session.as_downstream_mut();
        if !request::admit(&self.proxy, client, ctx).await? {
            return Ok(true);
        }
        match self.proxy.dispatch.refusal(&ctx.via) {
            Some(error) => reply::error(&self.proxy, client, ctx, error).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        // No TLS, so no name to check.
        let mut peer = HttpPeer::new(self.address().await?, false, String::new());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        Ok(Box::new(peer))
    }

    /// Makes the request this process' own: the server has a `Host` and CORS check of its own, and the client has passed ours. If the
    /// server is an Arriero, it must know whom it may not send this back to.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        head.insert_header(header::HOST, self.authority.clone())?;
        head.remove_header(&header::ORIGIN);
        head.append_header(header::VIA, self.proxy.dispatch.via())?;
        head.insert_header(&REQUEST_ID, &ctx.id)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        let mut ours = HeaderMap::new();
        reply::decorate(&mut ours, ctx, self.proxy.headers);
        for (name, value) in &ours {
            match *name {
                // What the server's answer depends on stands beside what ours does.
                header::VARY => drop(response.append_header(name, value)?),
                _ => response.insert_header(name, value)?,
            }
        }
        Ok(())
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
            request::failed(&self.proxy, session.as_downstream_mut(), error, ctx).await;
        } else if session.response_written().is_some() {
            ctx.outcome = answer.code();
            ctx.error = Some(answer);
        } else if let Err(error) = reply::error(&self.proxy, session.as_downstream_mut(), ctx, answer).await {
            tracing::debug!(%error, "the client left before it could be told");
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&pingora::Error>, ctx: &mut Context) {
        journal::write(&self.proxy, session.as_downstream(), error, ctx);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &pingora::Error) -> bool {
        // The journal's one line per request says it.
        true
    }
}
