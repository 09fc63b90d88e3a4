//! One attempt on one node: what is sent, what comes back, and where it goes.

use std::marker::PhantomData;
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::canonical;
use super::place::Trip;
use crate::flight::{Route, Writer};
use crate::generation::{Done, Event, Generation, Resume};
use crate::node::InFlight;
use crate::telemetry::{Counted, Metrics};
use crate::upstream::{self, Fault, Upstream};

/// What is done on a node once there is one.
pub(super) trait Exchange: Send {
    /// What comes of it.
    type Answer: Send;

    /// One attempt; it goes on where the one before it broke off.
    fn run(&mut self, trip: Trip<'_>) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// Runs a generation and appends its events to a flight; its exchange is left to be finished, which needs no place any more.
pub(super) struct Generate<'a> {
    pub upstream: &'a Upstream,
    pub metrics: &'a Metrics,
    pub writer: &'a Writer,
    pub generation: Generation,
    /// What is in the flight's log already.
    pub sent: Resume,
}

impl<'a> Exchange for Generate<'a> {
    type Answer = (Done, upstream::Exchange<'a>);

    async fn run(&mut self, trip: Trip<'_>) -> Result<Self::Answer, Fault> {
        let _entered = enter(trip, self.metrics);
        let from = Instant::now();
        let goes_on = self.sent != Resume::default();
        self.generation.resume = goes_on.then(|| self.sent.clone());
        let body = canonical(&self.generation).map_err(|error| Fault::Broken(error.to_string()))?;
        let mut exchange = connected(self.upstream.start(trip.node, "/generate", body)).await?;
        if goes_on {
            self.metrics.resumed.inc();
        }
        // A later route is not told: the client has the head of its answer.
        let mut is_first = !goes_on;
        loop {
            let event = match exchange.next().await? {
                Some(Event::Error(failure)) => return Err(Fault::Refused(failure)),
                Some(event) => event,
                None => return Err(Fault::Broken("the answer was cut off".into())),
            };
            self.sent.count(&event);
            if std::mem::take(&mut is_first) {
                self.writer.routed(trip.route(from));
            }
            let done = if let Event::Done(done) = &event { Some(done.clone()) } else { None };
            self.writer.append(event);
            if let Some(done) = done {
                return Ok((done, exchange));
            }
        }
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

    async fn run(&mut self, trip: Trip<'_>) -> Result<(T, Route), Fault> {
        let _entered = enter(trip, self.metrics);
        let from = Instant::now();
        let mut exchange = connected(self.upstream.start(trip.node, self.path, self.body.clone())).await?;
        let answer = exchange.body().await?;
        exchange.release();
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
