//! One attempt on one node: what is sent, what comes back, and where it goes.

use std::sync::Arc;
use std::time::Instant;

use super::drill::Drill;
use super::place::Trip;
use super::work::Work;
use crate::flight::{Route, Writer};
use crate::generation::{Done, Event, Failure, FailureCode, Format, Generation, Input, Resume};
use crate::node::protocol::{Continuation, Request};
use crate::node::{InFlight, Node, Via};
use crate::routing::Digest;
use crate::telemetry::{Counted, Metrics};
use crate::upstream::{self, Fault, Upstream};

/// What is done on a node once there is one.
pub(super) trait Exchange: Send {
    /// What comes of it.
    type Answer: Send;

    /// Why `node` cannot do it; others may.
    fn objection(&self, node: &Node) -> Option<Failure>;

    /// As strategies see it.
    fn digest(&self) -> Digest;

    /// Tokens of an answer.
    fn tokens(answer: &Self::Answer) -> u64;

    /// One attempt; it goes on where the one before it broke off.
    fn run(&mut self, trip: Trip<'_>) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// Runs a generation and appends its events to a flight; its exchange is left to be finished, which needs no place any more.
pub(super) struct Generate<'a> {
    pub upstream: &'a Upstream,
    pub metrics: &'a Metrics,
    pub writer: &'a Writer,
    pub generation: Generation,
    /// The Arrieros that it has come through.
    pub via: Via,
    /// A fault to be played by the node that gets it first.
    pub drill: Option<Drill>,
    /// The model that it runs on in place of the one that was asked for.
    pub fallback: Option<Arc<str>>,
    /// What is in the flight's log already.
    pub sent: Resume,
    /// Whether `sent` has the tokens of all of it: no node has had a part in it that does not report them.
    pub is_exact: bool,
}

impl Generate<'_> {
    fn goes_on(&self) -> bool {
        self.sent != Resume::default()
    }

    /// Whether `node` can go on behind what was sent.
    fn can_go_on(&self, node: &Node) -> bool {
        match node.protocol.continuation() {
            Continuation::Exact => self.is_exact,
            // What constrains the text, and what is no text, cannot be begun for a node.
            Continuation::Text if self.sent.thinking > 0 || self.sent.tool_calls > 0 => false,
            Continuation::Text if self.generation.format != Format::Text => false,
            Continuation::Text => match self.generation.input {
                Input::Raw { .. } => true,
                Input::Chat { .. } => node.access.prefill,
                Input::Prompt { .. } | Input::Infill { .. } => false,
            },
        }
    }

    /// The node's own request, and the tokens of the answer that it gets as text.
    fn request(&mut self, node: &Node) -> (Request, u64) {
        let model = node.name_of(&self.generation.model);
        let is_exact = node.protocol.continuation() == Continuation::Exact;
        self.generation.resume = (self.goes_on() && is_exact).then(|| self.sent.clone());
        if !self.goes_on() || is_exact {
            return (node.protocol.generate(&self.generation, &model, None), 0);
        }
        let (text, pieces) = self.writer.text();
        let begun = self.sent.tokens.len().max(pieces) as u64;
        let mut rest = self.generation.clone();
        if let Some(limit) = rest.options.num_predict.as_mut().filter(|limit| **limit > 0) {
            *limit = limit.saturating_sub_unsigned(begun).max(1);
        }
        (node.protocol.generate(&rest, &model, Some(&text)), begun)
    }
}

impl<'a> Exchange for Generate<'a> {
    type Answer = (Done, upstream::Exchange<'a>);

    fn objection(&self, node: &Node) -> Option<Failure> {
        let cannot_go_on = || Failure {
            code: FailureCode::Unavailable,
            message: "no node can go on with this answer".to_owned(),
        };
        let objection = self.via.objection(node).or_else(|| node.protocol.objection(&self.generation));
        objection.or_else(|| (self.goes_on() && !self.can_go_on(node)).then(cannot_go_on))
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.generation)
    }

    fn tokens((done, _): &Self::Answer) -> u64 {
        done.completion_tokens
    }

    async fn run(&mut self, trip: Trip<'_>) -> Result<Self::Answer, Fault> {
        let (mut entered, _counted) = enter(&trip, self.metrics);
        let from = Instant::now();
        let goes_on = self.goes_on();
        let node = Arc::clone(&trip.choice.node);
        let mut drill = self.drill.take();
        if let Some(drill) = &drill {
            Box::pin(drill.before(&node)).await?;
        }
        let (request, begun) = self.request(&node);
        let request = Request { via: self.via.clone(), ..request };
        let mut exchange = connected(self.upstream.start(&node, request)).await?;
        let mut decoder = node.protocol.decoder(&self.generation);
        if goes_on {
            self.metrics.resumed.inc();
        }
        let mut first = None;
        loop {
            let event = match exchange.next(&mut *decoder).await? {
                Some(Event::Error(failure)) => return Err(Fault::Refused(failure)),
                Some(event) => event,
                None => return Err(Fault::Broken("the answer was cut off".into())),
            };
            if let Some(drill) = &mut drill {
                Box::pin(drill.during(&event, &node, &mut exchange)).await?;
            }
            let first = *first.get_or_insert_with(|| {
                // A later route is not told: the client has the head of its answer.
                if !goes_on {
                    self.writer.routed(Route { fallback: self.fallback.clone(), ..trip.route(from) });
                }
                entered.read();
                trip.choice.answered();
                Instant::now()
            });
            self.is_exact &= node.protocol.continuation() == Continuation::Exact;
            let Event::Done(mut done) = event else {
                self.sent.count(&event);
                self.writer.append(event);
                continue;
            };
            done.prompt_tokens = done.prompt_tokens.saturating_sub(begun);
            done.completion_tokens += begun;
            time(&mut done, from, first);
            self.writer.append(Event::Done(done.clone()));
            return Ok((done, exchange));
        }
    }
}

/// Fills in what a node does not tell: how long it took, as seen from here.
fn time(done: &mut Done, from: Instant, first: Instant) {
    if done.prompt_duration == 0 && done.completion_duration == 0 {
        let nanoseconds =
            |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        done.prompt_duration = nanoseconds(first.duration_since(from));
        done.completion_duration = nanoseconds(first.elapsed());
    }
}

/// Asks something and reads the whole answer.
pub(super) struct Ask<'a, W> {
    pub upstream: &'a Upstream,
    pub metrics: &'a Metrics,
    /// The Arrieros that it has come through.
    pub via: Via,
    /// A fault to be played by the node that gets it first.
    pub drill: Option<Drill>,
    pub work: W,
}

impl<W: Work> Exchange for Ask<'_, W> {
    type Answer = (W::Answer, Route);

    fn objection(&self, node: &Node) -> Option<Failure> {
        self.via.objection(node).or_else(|| self.work.objection(node))
    }

    fn digest(&self) -> Digest {
        self.work.digest()
    }

    fn tokens(_: &Self::Answer) -> u64 {
        0
    }

    async fn run(&mut self, trip: Trip<'_>) -> Result<Self::Answer, Fault> {
        let _entered = enter(&trip, self.metrics);
        let from = Instant::now();
        let node = &trip.choice.node;
        if let Some(drill) = self.drill.take() {
            Box::pin(drill.whole(node)).await?;
        }
        let request = self.work.request(node).map_err(Fault::Refused)?;
        let path = request.path.clone();
        let request = Request { via: self.via.clone(), ..request };
        let answer = connected(self.upstream.ask(node, request)).await?;
        let answer = self.work.answer(node, &answer);
        let answer = answer.map_err(|error| Fault::Broken(format!("the answer of {path}: {error}")))?;
        Ok((answer, trip.route(from)))
    }
}

/// On the heap, and gone once it is done: the state of connecting is 10 KB, which every open stream would keep otherwise.
fn connected<T>(start: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    Box::pin(start)
}

fn enter(trip: &Trip<'_>, metrics: &Metrics) -> (InFlight, Counted) {
    let inflight = metrics.inflight.with_label_values(&[&trip.choice.node.name]);
    (trip.choice.enter(), Counted::new(inflight))
}
