//! Pingora's native streaming path, for paths that another server answers (`passthrough` in the config).

use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, Session};

use super::{Context, Proxy, reply};
use crate::config::PassthroughConfig;
use crate::error::Error;

/// What [`Context::endpoint`] says of such a request.
pub(super) const ENDPOINT: &str = "passthrough";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Makes the request this process' own: the server has a `Host` and CORS check of its own, and the client has passed ours.
pub(super) fn request(proxy: &Proxy, head: &mut RequestHeader, ctx: &Context) -> pingora::Result<()> {
    if let Some((host, port)) = proxy.passthrough.as_ref().and_then(PassthroughConfig::authority) {
        head.insert_header("Host", format!("{host}:{port}"))?;
    }
    head.remove_header("Origin");
    head.insert_header("X-Request-Id", &ctx.id)
}

/// Pingora could not finish a request. Tells the client in its dialect, if there is one and nothing was sent yet.
pub(super) async fn failed(
    proxy: &Proxy,
    session: &mut Session,
    error: &pingora::Error,
    ctx: &mut Context,
) -> FailToProxy {
    let is_servers = ctx.endpoint == ENDPOINT && error.esource() != &ErrorSource::Downstream;
    let is_gone =
        matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed);
    let answer = if is_servers {
        Error::Unreachable { reason: error.to_string() }
    } else {
        Error::invalid("the request body cannot be read")
    };
    let error_code = answer.status().as_u16();
    if !is_servers && (is_gone || session.response_written().is_some()) {
        ctx.outcome = "cancelled";
    } else if session.response_written().is_some() {
        ctx.outcome = answer.code();
        ctx.error = Some(answer);
    } else if let Err(error) = reply::error(proxy, session, ctx, answer).await {
        tracing::debug!(%error, "the client left before it could be told");
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}
