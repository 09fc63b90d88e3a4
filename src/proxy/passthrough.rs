//! Pingora's native streaming path, for paths that another server answers (`passthrough` in the config).

use std::net::ToSocketAddrs;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{FailToProxy, Session};

use super::{Context, Proxy, reply};
use crate::config::PassthroughConfig;
use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The configured server.
pub(super) fn peer(proxy: &Proxy) -> pingora::Result<Box<HttpPeer>> {
    let Some((host, port)) = proxy.passthrough.as_ref().and_then(PassthroughConfig::authority) else {
        return Err(pingora::Error::explain(
            pingora::ErrorType::InternalError,
            "no passthrough is configured",
        ));
    };
    // Resolved here and not by `HttpPeer::new`, which panics on a name that does not resolve.
    let address = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut found| found.next());
    let Some(address) = address else {
        let reason = format!("cannot resolve {host}");
        return Err(pingora::Error::explain(pingora::ErrorType::ConnectNoRoute, reason));
    };
    let mut peer = HttpPeer::new(address, false, host);
    peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
    Ok(Box::new(peer))
}

/// Says in the caller's dialect that the server could not be reached, if nothing was sent yet.
pub(super) async fn failed(
    proxy: &Proxy,
    session: &mut Session,
    error: &pingora::Error,
    ctx: &mut Context,
) -> FailToProxy {
    let unreachable = Error::NodeLost { reason: error.to_string() };
    let error_code = unreachable.status().as_u16();
    if session.response_written().is_some() {
        ctx.outcome = unreachable.code();
        ctx.error = Some(unreachable);
    } else if let Err(error) = reply::error(proxy, session, ctx, unreachable).await {
        tracing::debug!(%error, "the client left before it could be told");
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}
