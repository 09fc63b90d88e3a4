//! One exchange with a node, over Pingora's transport connector: pooled connections, unix sockets, TCP, TLS, no size limit.
//!
//! Moves the bytes that [`crate::node`]'s protocols make and read, and knows nothing about who asked. An [`Exchange`] that is dropped
//! closes its connection, which is how a node learns that nobody wants the answer.

mod connect;
mod fault;
mod framing;
pub mod piece;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use pingora::connectors::TransportConnector;
use tokio::time::Instant;

pub use fault::Fault;

use connect::{Connection, connect};
use wire::{Answer, Wire};

use crate::generation::{Event, FailureCode};
use crate::node::protocol::{Decode, Garbled, Lines, Request};
use crate::node::{Endpoint, Hop, Node};

/// Pooled connections that idle longer are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line or body a node may send in one piece: embeddings of a large batch, log probabilities of a long answer.
const MESSAGE_LIMIT: usize = 256 << 20;

/// The client side of every protocol.
pub struct Upstream {
    connector: TransportConnector,
    hop: Hop,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { connector: TransportConnector::new(None), hop: Hop::random() }
    }
}

impl Upstream {
    /// What this process is called in the `Via` of its requests.
    pub fn hop(&self) -> Hop {
        self.hop
    }

    /// Sends `request` and reads the head of the answer. A pooled connection that turns out to be closed is replaced without
    /// anybody noticing.
    pub async fn start(&self, node: &Node, request: Request) -> Result<Exchange<'_>, Fault> {
        let patience = Patience::of(node);
        let body = request.body.clone().unwrap_or_default();
        loop {
            let Connection { stream, pool, is_reused } = connect(&self.connector, node).await?;
            let mut lines = Lines::default();
            let sent = Wire::send(stream, self.head(node, &request), body.clone(), &mut lines.buffer);
            let (wire, answer) = match patience.first(sent).await? {
                Ok(sent) => sent,
                // The node may have closed an idle connection at the moment it was taken from the pool.
                Err(_) if is_reused => continue,
                Err(error) => return Err(Fault::broken("request", error)),
            };
            // The first byte that counts is one of the body: some servers send the head before they begin.
            if let Some(hop) = answer.hop {
                node.met(hop);
            }
            let first = patience.first.filter(|_| lines.buffer.is_empty());
            let mut exchange =
                Exchange { upstream: self, wire, pool, lines, patience: Patience { first, ..patience } };
            if (200..300).contains(&answer.status) {
                return Ok(exchange);
            }
            let body = exchange.body().await?;
            exchange.release();
            return Err(refusal(node, &answer, &body));
        }
    }

    /// The whole answer to `request`.
    pub async fn ask(&self, node: &Node, request: Request) -> Result<Bytes, Fault> {
        let mut exchange = self.start(node, request).await?;
        let body = exchange.body().await?;
        exchange.release();
        Ok(body)
    }

    /// The head of a request, up to its blank line.
    fn head(&self, node: &Node, request: &Request) -> String {
        let method = if request.body.is_some() { "POST" } else { "GET" };
        let host = match &node.endpoint {
            Endpoint::Unix(_) => "worker".to_owned(),
            Endpoint::Tcp(host) => host.to_string(),
        };
        let mut head =
            format!("{method} {}{} HTTP/1.1\r\nHost: {host}\r\n", node.endpoint.prefix(), request.path);
        if node.is_remote() {
            head += &format!("Via: {}\r\n", request.via.field(self.hop));
        }
        if let Some(key) = &node.access.api_key {
            head += &format!("Authorization: Bearer {}\r\n", key.reveal());
        }
        if let Some(body) = &request.body {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        head + "\r\n"
    }
}

fn refusal(node: &Node, answer: &Answer, body: &[u8]) -> Fault {
    let failure = node.protocol.refusal(answer.status, body);
    let is_limit = answer.status == 429 || answer.status == 503 && answer.retry_after.is_some();
    if is_limit && failure.code == FailureCode::Unavailable {
        return Fault::RateLimited { failure, retry_after: answer.retry_after };
    }
    if (400..500).contains(&answer.status) && failure.code == FailureCode::Unavailable {
        return Fault::Declined(failure);
    }
    Fault::Refused(failure)
}

/// How long a node may be silent. Workers, whose silence the supervisor watches, may be so for ever.
#[derive(Clone, Copy)]
struct Patience {
    /// Until the first byte of an answer; taken off once that is there.
    first: Option<Instant>,
    /// Between two.
    idle: Option<Duration>,
}

impl Patience {
    fn of(node: &Node) -> Self {
        let timeouts = &node.access.timeouts;
        Self { first: timeouts.first_byte.map(|limit| Instant::now() + limit), idle: timeouts.idle }
    }

    /// Waits for the first byte.
    async fn first<T>(&self, answer: impl Future<Output = T>) -> Result<T, Fault> {
        let Some(deadline) = self.first else { return Ok(answer.await) };
        let waited = tokio::time::timeout_at(deadline, answer).await;
        waited.map_err(|_| Fault::Timeout("no byte of an answer in time".to_owned()))
    }

    /// When to give up what is waited for now.
    fn deadline(&self) -> Option<Instant> {
        self.first.or_else(|| Some(Instant::now() + self.idle?))
    }
}

/// An answer being read.
pub struct Exchange<'a> {
    upstream: &'a Upstream,
    wire: Wire,
    /// Where in the connector's pool its connection belongs.
    pool: u64,
    lines: Lines,
    patience: Patience,
}

impl Exchange<'_> {
    /// The next event of a stream; `None` where the body ended without the last one.
    pub async fn next(&mut self, decoder: &mut dyn Decode) -> Result<Option<Event>, Fault> {
        let garbled = |error: Garbled| Fault::broken("event", error);
        // For the event as a whole: a byte now and then is no answer.
        let mut deadline = self.patience.deadline();
        loop {
            if let Some(event) = decoder.next(&mut self.lines).map_err(garbled)? {
                return Ok(Some(event));
            }
            let is_first = self.patience.first.is_some();
            if !self.read(deadline).await? {
                let last = decoder.end(&mut self.lines).map_err(garbled)?;
                return match last {
                    None if !self.lines.buffer.is_empty() => {
                        Err(Fault::broken("event", "cut off in the middle of a line"))
                    }
                    last => Ok(last),
                };
            }
            if is_first {
                deadline = self.patience.deadline();
            }
        }
    }

    /// The whole body.
    pub async fn body(&mut self) -> Result<Bytes, Fault> {
        while self.read(self.patience.deadline()).await? {}
        Ok(self.lines.rest())
    }

    /// Reads on in the body, no longer than to `deadline`; false where there is nothing more.
    async fn read(&mut self, deadline: Option<Instant>) -> Result<bool, Fault> {
        if self.lines.buffer.len() > MESSAGE_LIMIT {
            return Err(Fault::broken("answer", "one message is longer than 256 MiB"));
        }
        let read = match deadline {
            None => self.wire.read(&mut self.lines.buffer).await,
            Some(deadline) => {
                // On the heap, for a timer is larger than all else that a worker's stream waits with.
                let read =
                    Box::pin(tokio::time::timeout_at(deadline, self.wire.read(&mut self.lines.buffer)));
                read.await.map_err(|_| Fault::Timeout("the answer stopped coming".to_owned()))?
            }
        };
        self.patience.first = None;
        read.map_err(|error| Fault::broken("answer", error))
    }

    /// From now on it is as if the node never ended the body.
    pub fn never_end(&mut self) {
        self.wire.never_end();
    }

    /// Reads to the end of the body, where nothing but blank lines may follow, and gives the connection back to the pool.
    pub async fn finish(mut self) {
        if matches!(self.body().await, Ok(rest) if rest.trim_ascii().is_empty()) {
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
