//! Connections to nodes: what Pingora's connector has to know of each.

use std::net::SocketAddr;

use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::upstreams::peer::{HttpPeer, Peer as _};

use super::Fault;
use crate::node::{Access, Endpoint, Host, Node};

/// A connection, and what its pool needs to have it back.
pub(super) struct Connection {
    pub stream: Stream,
    /// Where in the connector's pool it belongs.
    pub pool: u64,
    /// Whether it was used before, and may turn out to be closed.
    pub is_reused: bool,
}

/// A connection to `node`, of the pool if there is one. A name with several addresses is tried at each in turn.
pub(super) async fn connect(connector: &TransportConnector, node: &Node) -> Result<Connection, Fault> {
    let host = match &node.endpoint {
        Endpoint::Unix(path) => {
            let peer = HttpPeer::new_uds(&path.to_string_lossy(), false, String::new());
            return one(connector, node, peer.map_err(|error| Fault::Connect(error.to_string()))?).await;
        }
        Endpoint::Tcp(host) => host,
    };
    let mut last = Fault::Connect(format!("{} has no address", host.name));
    for address in addresses(host).await? {
        match one(connector, node, peer(host, address, &node.access)).await {
            Ok(connection) => return Ok(connection),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

async fn one(connector: &TransportConnector, node: &Node, mut peer: HttpPeer) -> Result<Connection, Fault> {
    peer.group_key = node.incarnation;
    peer.options.connection_timeout = Some(node.access.timeouts.connect);
    peer.options.total_connection_timeout = Some(node.access.timeouts.connect);
    let (stream, is_reused) = connector.get_stream(&peer).await.map_err(|error| match error.etype() {
        pingora::ErrorType::ConnectTimedout => Fault::Timeout(error.to_string()),
        _ => Fault::Connect(error.to_string()),
    })?;
    Ok(Connection { stream, pool: peer.reuse_hash(), is_reused })
}

fn peer(host: &Host, address: SocketAddr, access: &Access) -> HttpPeer {
    let tls = access.tls.as_ref();
    let name = tls.and_then(|tls| tls.server_name.clone()).unwrap_or_else(|| host.name.clone());
    let mut peer = HttpPeer::new(address, host.tls, name);
    if let Some(tls) = tls {
        peer.options.ca = tls.ca.clone();
        peer.client_cert_key = tls.identity.clone();
        peer.options.verify_cert = tls.verify;
        peer.options.verify_hostname = tls.verify;
    }
    peer
}

async fn addresses(host: &Host) -> Result<Vec<SocketAddr>, Fault> {
    if let Some(address) = host.address {
        return Ok(vec![address]);
    }
    if let Ok(address) = host.name.parse() {
        return Ok(vec![SocketAddr::new(address, host.port)]);
    }
    let found = tokio::net::lookup_host((host.name.as_str(), host.port)).await;
    found.map(Iterator::collect).map_err(|error| Fault::Connect(format!("{}: {error}", host.name)))
}
