//! One exchange with a node, over Pingora's transport connector: pooled connections, unix sockets, no size limit.
//!
//! Knows the worker protocol ([`crate::generation::seam`]) and nothing about who asked. An [`Exchange`] that is dropped
//! closes its connection, which is how a worker learns that nobody wants the answer.

mod framing;
pub mod piece;
mod wire;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pingora::connectors::TransportConnector;
use pingora::upstreams::peer::{HttpPeer, Peer as _};

use wire::Wire;

use crate::error::Error;
use crate::generation::seam::ErrorBody;
use crate::generation::{Event, Failure, FailureCode};
use crate::node::Node;

/// A worker's socket is on this machine: connecting takes microseconds or does not work.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pooled connections that idle longer are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line or body a node may send in one piece: embeddings of a large batch, log probabilities of a long answer.
const MESSAGE_LIMIT: usize = 256 << 20;

/// How an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The node answered, with a reason. Another node would say the same, unless the code says otherwise.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The node is gone or broke the protocol. What was seen, for the log.
    #[error("{0}")]
    Broken(String),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(failure) => Self::Node(failure),
            Fault::Broken(reason) => Self::NodeLost { reason },
        }
    }
}

impl Fault {
    fn broken(stage: &str, error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{stage}: {error}"))
    }

    /// The label in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether another node may do better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(failure) => {
                matches!(failure.code, FailureCode::Unavailable | FailureCode::Internal)
            }
        }
    }
}

/// The client side of the worker protocol.
pub struct Upstream {
    connector: TransportConnector,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { connector: TransportConnector::new(None) }
    }
}

impl Upstream {
    /// Sends `body` to `path` and reads the head of the answer. A pooled connection that turns out to be closed is
    /// replaced without anybody noticing.
    pub async fn start(&self, node: &Node, path: &'static str, body: Bytes) -> Result<Exchange<'_>, Fault> {
        let mut peer = HttpPeer::new_uds(&node.socket.to_string_lossy(), false, String::new())
            .map_err(|e| Fault::broken("address", e))?;
        peer.group_key = node.incarnation;
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        loop {
            let (stream, is_reused) =
                self.connector.get_stream(&peer).await.map_err(|e| Fault::broken("connect", e))?;
            let mut buffer = BytesMut::new();
            match Wire::post(stream, path, body.clone(), &mut buffer).await {
                Ok((wire, status)) => {
                    let pool = peer.reuse_hash();
                    let mut exchange = Exchange { upstream: self, wire, pool, buffer, scanned: 0 };
                    if status == 200 {
                        return Ok(exchange);
                    }
                    let answer = exchange.body().await?;
                    return Err(Fault::Refused(refusal(status, &answer)));
                }
                // The worker may have closed an idle connection at the moment it was taken from the pool.
                Err(_) if is_reused => {}
                Err(error) => return Err(Fault::broken("request", error)),
            }
        }
    }
}

fn refusal(status: u16, body: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => Failure {
            code: if status == 503 { FailureCode::Unavailable } else { FailureCode::Internal },
            message: format!("the node answered {status} without a reason"),
        },
    }
}

/// An answer being read.
pub struct Exchange<'a> {
    upstream: &'a Upstream,
    wire: Wire,
    /// Where in the connector's pool its connection belongs.
    pool: u64,
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no line end.
    scanned: usize,
}

impl Exchange<'_> {
    /// The next event of an NDJSON answer; `None` at the end of the body, wherever that came.
    pub async fn next(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            if let Some(length) = line_length(&self.buffer, &mut self.scanned) {
                let event = serde_json::from_slice(&self.buffer[..length]);
                self.buffer.advance(length + 1);
                return event.map(Some).map_err(|e| Fault::broken("event", e));
            }
            match self.read().await? {
                true => {}
                false if self.buffer.is_empty() => return Ok(None),
                false => return Err(Fault::broken("event", "cut off in the middle of a line")),
            }
        }
    }

    /// The whole body.
    pub async fn body(&mut self) -> Result<Bytes, Fault> {
        while self.read().await? {}
        Ok(self.buffer.split().freeze())
    }

    /// Reads on in the body, to the end of `buffer`; false where there is nothing more.
    async fn read(&mut self) -> Result<bool, Fault> {
        if self.buffer.len() > MESSAGE_LIMIT {
            return Err(Fault::broken("answer", "one message is longer than 256 MiB"));
        }
        self.wire.read(&mut self.buffer).await.map_err(|e| Fault::broken("answer", e))
    }

    /// Reads to the end of the body, where nothing may follow, and gives the connection back to the pool.
    pub async fn finish(mut self) {
        if matches!(self.body().await, Ok(rest) if rest.is_empty()) {
            self.release();
        }
    }

    /// Gives the connection back to the pool; only after the end of the body.
    pub fn release(self) {
        if let Some(stream) = self.wire.into_reusable() {
            self.upstream.connector.release_stream(stream, self.pool, Some(IDLE_TIMEOUT));
        }
    }
}

/// Bytes of the first line in `buffer`, without its end, once it is complete. `scanned` remembers how far it looked in vain, so
/// that a long line that comes in many pieces is looked at once.
fn line_length(buffer: &[u8], scanned: &mut usize) -> Option<usize> {
    match buffer[*scanned..].iter().position(|&byte| byte == b'\n') {
        Some(at) => Some(std::mem::take(scanned) + at),
        None => {
            *scanned = buffer.len();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_arrive(
            lines in prop::collection::vec("[a-z]{0,12}", 0..20),
            cuts in prop::collection::vec(1usize..9, 1..60),
        ) {
            let wire: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut buffer, mut scanned, mut found) = (BytesMut::new(), 0, Vec::new());
            let mut rest = wire.as_bytes();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                buffer.extend_from_slice(piece);
                rest = tail;
                while let Some(length) = line_length(&buffer, &mut scanned) {
                    found.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
                    buffer.advance(length + 1);
                }
            }
            prop_assert_eq!(found, lines);
            prop_assert!(buffer.is_empty());
        }
    }
}
