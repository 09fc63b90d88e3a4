//! [`Port`]: the connections of the data port, and who answers what comes on them.
//!
//! A stream waits for most of its life, so what waits with it is kept small: each connection is a task of its own, beside the
//! one that accepted it, and Pingora's proxy, whose state for a request takes 14 KB, sees only what is passed on.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::{Method, Uri};
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::passthrough::Passthrough;
use super::{Proxy, request};
use crate::dialect::Endpoint;
use crate::error::Error;
use crate::upstream::piece;

/// How long a connection may stay open between two requests.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// A request line is at most this long.
const LINE_LIMIT: usize = 16 << 10;

/// Who answers a request.
#[derive(Debug, PartialEq)]
enum Who {
    /// This process, in `request`.
    Arriero,
    /// The server of `passthrough`.
    Another,
}

/// What the data port answers with, until the configuration changes.
pub struct Front {
    proxy: Arc<Proxy>,
    native: Option<Arc<HttpProxy<Passthrough>>>,
}

impl Front {
    /// Answers with `proxy`.
    pub fn new(proxy: Proxy) -> Self {
        let proxy = Arc::new(proxy);
        let conf = Arc::new(ServerConf::default());
        let native = Passthrough::new(&proxy).map(|passthrough| Arc::new(http_proxy(&conf, passthrough)));
        Self { proxy, native }
    }

    /// Who answers a request that begins like this; `None` until that can be told.
    fn who(&self, begun: &[u8]) -> Option<Who> {
        if begun.is_empty() {
            return None;
        }
        if self.native.is_none() {
            return Some(Who::Arriero);
        }
        let mut request = httparse::Request::new(&mut []);
        // It ends in an error where there are headers; those are not needed to tell.
        let parsed = request.parse(begun);
        match (request.method, request.path) {
            (Some(method), Some(path)) => Some(who(method, path)),
            // Whoever sends no request is told so.
            _ if parsed.is_err() || begun.len() > LINE_LIMIT => Some(Who::Arriero),
            _ => None,
        }
    }
}

/// The data port.
pub struct Port {
    front: watch::Receiver<Arc<Front>>,
    connections: TaskTracker,
}

impl Port {
    /// A port that answers each request with what `front` has when it begins.
    pub fn new(front: watch::Receiver<Arc<Front>>) -> Self {
        Self { front, connections: TaskTracker::new() }
    }

    fn front(&self) -> Arc<Front> {
        Arc::clone(&self.front.borrow())
    }

    /// Serves the requests of one connection, one after the other.
    async fn serve(&self, mut stream: Stream, mut stopping: ShutdownWatch) {
        let mut begun = BytesMut::new();
        // One for all requests: to put off a timer costs nothing, to set one wakes the thread that waits for timers.
        let mut too_long = pin!(sleep(KEEPALIVE));
        loop {
            let begins = tokio::select! {
                biased;
                begins = self.begin(&mut stream, &mut begun) => begins,
                _ = stopping.wait_for(|&stopping| stopping) => return,
                () = too_long.as_mut() => return,
            };
            let Some((who, front)) = begins else { return };
            let mut session = ServerSession::new_http1(stream);
            session.set_keepalive((!*stopping.borrow()).then_some(KEEPALIVE.as_secs()));
            session.set_pipelined_prefix(std::mem::take(&mut begun));
            match (who, &front.native) {
                (Who::Arriero, _) | (_, None) => {
                    let Some(rest) = request::serve(&front.proxy, Box::new(session)).await else { return };
                    let (connection, next) = rest.into_parts();
                    (stream, begun) = (connection, next.unwrap_or_default());
                }
                (Who::Another, Some(native)) => {
                    let Some(rest) = native.process_new_http(session, &stopping).await else { return };
                    (stream, _) = rest.consume();
                }
            }
            too_long.as_mut().reset(Instant::now() + KEEPALIVE);
        }
    }

    /// Reads the beginning of a request, and says who answers it. `None`: the client is gone.
    async fn begin(&self, stream: &mut Stream, begun: &mut BytesMut) -> Option<(Who, Arc<Front>)> {
        loop {
            let front = self.front();
            if let Some(who) = front.who(begun) {
                return Some((who, front));
            }
            // A connection may wait for long: it must not keep what was in force before.
            drop(front);
            piece::read(stream, |bytes| begun.extend_from_slice(bytes))
                .await
                .ok()
                .filter(|&count| count > 0)?;
        }
    }
}

#[async_trait]
impl ServerApp for Port {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (port, stopping) = (Arc::clone(self), shutdown.clone());
        self.connections.spawn(async move { port.serve(stream, stopping).await });
        None
    }

    /// Waits for the connections; what ends those that run is the end of their requests.
    async fn cleanup(&self) {
        self.connections.close();
        if let Some(native) = &self.front().native {
            native.http_cleanup().await;
        }
        self.connections.wait().await;
    }
}

/// Who answers where paths that Arriero does not know are passed on.
fn who(method: &str, target: &str) -> Who {
    let Ok(method) = Method::try_from(method) else { return Who::Arriero };
    let endpoint = match target.starts_with('/') {
        true => Endpoint::of(&method, target.split('?').next().unwrap_or_default()),
        false => match Uri::try_from(target) {
            Ok(target) => Endpoint::of(&method, target.path()),
            Err(_) => return Who::Arriero,
        },
    };
    match endpoint {
        Ok(Endpoint::Unbuilt) | Err(Error::NoSuchPath | Error::MethodNotAllowed) => Who::Another,
        _ => Who::Arriero,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arriero_does_not_know_is_passed_on() {
        let cases = [
            ("POST", "/api/chat", Who::Arriero),
            ("POST", "/api/chat?x=1", Who::Arriero),
            ("POST", "http://localhost/api/chat?x=1", Who::Arriero),
            ("GET", "/", Who::Arriero),
            ("POST", "/api/pull", Who::Another),
            ("GET", "/api/chat", Who::Another),
            ("PUT", "/elsewhere", Who::Another),
            ("PUT", "not a target", Who::Arriero),
        ];
        for (method, target, expected) in cases {
            assert_eq!(who(method, target), expected, "{method} {target}");
        }
    }
}
