//! One attempt on one node: what is sent, what comes back, and where it goes.

use std::marker::PhantomData;
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::place::Trip;
use crate::error::Error;
use crate::flight::{Route, Writer};
use crate::generation::{Done, Event};
use crate::node::InFlight;
use crate::telemetry::{Counted, Metrics};
use crate::upstream::{self, Fault, Upstream};

/// What is done on a node once there is one. Reports a fault only while nothing has reached the client.
pub(super) trait Exchange: Sync {
    /// What comes of it.
    type Answer: Send;

    /// One attempt.
    fn run(&self, trip: Trip<'_>) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// Runs a generation and appends its events to a flight; its exchange is left to be finished, which needs no place any more.
/// `None`: it broke after the first event, and the flight has failed, for the client has seen a part of the answer.
pub(super) struct Generate<'a> {
    pub upstream: &'a Upstream,
    pub metrics: &'a Metrics,
    pub body: Bytes,
    pub writer: &'a Writer,
}

impl<'a> Exchange for Generate<'a> {
    type Answer = Option<(Done, upstream::Exchange<'a>)>;

    async fn run(&self, trip: Trip<'_>) -> Result<Self::Answer, Fault> {
        let _entered = enter(trip, self.metrics);
        let from = Instant::now();
        let mut exchange = connected(self.upstream.start(trip.node, "/generate", self.body.clone())).await?;
        let first = match exchange.next().await? {
            Some(Event::Error(failure)) => return Err(Fault::Refused(failure)),
            Some(event) => event,
            None => return Err(Fault::Broken("the answer ended before its first event".into())),
        };
        self.writer.routed(trip.route(from));
        Ok(follow(&mut exchange, first, self.writer).await.map(|done| (done, exchange)))
    }
}

/// Sends `body` to `path` and reads one JSON body, a `T`.
pub(super) struct Ask<'a, T> {
    pub upstream: &'a Upstream,
    pub metrics: &'a Metrics,
    pub path: &'static str,
    pub body: Bytes,
    pub answer: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send> Exchange for Ask<'_, T> {
    type Answer = (T, Route);

    async fn run(&self, trip: Trip<'_>) -> Result<(T, Route), Fault> {
        let _entered = enter(trip, self.metrics);
        let from = Instant::now();
        let mut exchange = connected(self.upstream.start(trip.node, self.path, self.body.clone())).await?;
        let answer = exchange.body().await?;
        exchange.release().await;
        let answer = serde_json::from_slice(&answer)
            .map_err(|error| Fault::Broken(format!("the answer of {}: {error}", self.path)))?;
        Ok((answer, trip.route(from)))
    }
}

/// On the heap, and gone once it is done: the state of connecting is 10 KB, which every open stream would keep otherwise.
fn connected<T>(start: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    Box::pin(start)
}

fn enter(trip: Trip<'_>, metrics: &Metrics) -> (InFlight, Counted) {
    (trip.node.enter(), Counted::new(metrics.inflight.with_label_values(&[&trip.node.name])))
}

/// Appends events until the answer is complete or broken.
async fn follow(exchange: &mut upstream::Exchange<'_>, first: Event, writer: &Writer) -> Option<Done> {
    let mut event = first;
    loop {
        if let Event::Done(done) = &event {
            let done = done.clone();
            writer.append(event);
            return Some(done);
        }
        writer.append(event);
        let lost = match exchange.next().await {
            Ok(Some(Event::Error(failure))) => Error::Node(failure),
            Ok(Some(next)) => {
                event = next;
                continue;
            }
            Ok(None) => Error::NodeLost { reason: "the answer was cut off".into() },
            Err(fault) => fault.into(),
        };
        writer.fail(lost);
        return None;
    }
}
