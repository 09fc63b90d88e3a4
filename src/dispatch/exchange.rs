//! One attempt on one node: what is sent, what comes back, and where it goes. In two steps, for whose answer it will be is settled when it
//! begins.

use std::sync::Arc;
use std::time::Instant;

use super::choice::Choice;
use super::drill::Drill;
use super::place::Trip;
use super::work::Work;
use crate::flight::{Route, Writer};
use crate::generation::{Done, Event, Failure, FailureCode, Format, Generation, Input, Resume};
use crate::node::protocol::{Continuation, Decode, Request};
use crate::node::{InFlight, Node, Via};
use crate::routing::Digest;
use crate::telemetry::{Counted, Metrics};
use crate::upstream::{self, Fault, Upstream};

/// What is done on a node once there is one.
pub(super) trait Exchange: Send + Sync {
    /// What comes of it.
    type Answer: Send;

    /// An answer that has begun, and that nobody knows of yet.
    type Begun: Send;

    /// Why `node` cannot do it; others may.
    fn objection(&self, node: &Node) -> Option<Failure>;

    /// Whether `node` does it just as it was begun; those that do it in another way get it only where there is no such node.
    fn suits(&self, _node: &Node) -> bool {
        true
    }

    /// As strategies see it.
    fn digest(&self) -> Digest;

    /// Tokens of an answer.
    fn tokens(answer: &Self::Answer) -> u64;

    /// The fault that its first node is to play; once.
    fn drill(&mut self) -> Option<Drill>;

    /// Whether two nodes may be asked for it at the same time.
    fn can_be_hedged(&self) -> bool;

    /// Asks the node, for what is missing where an attempt before broke off, and waits until the answer begins. Nothing is changed by
    /// it, so it may be dropped for another.
    fn begin(
        &self,
        choice: &Choice,
        drill: Option<Drill>,
    ) -> impl Future<Output = Result<Self::Begun, Fault>> + Send;

    /// Follows an answer that has begun to its end.
    fn follow(
        &mut self,
        trip: Trip<'_>,
        begun: Self::Begun,
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
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
    /// Whether that is its sibling.
    pub is_sibling: bool,
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
    fn request(&self, node: &Node) -> (Request, u64) {
        let model = node.name_of(&self.generation.model);
        if !self.goes_on() {
            return (node.protocol.generate(&self.generation, &model, None), 0);
        }
        if node.protocol.continuation() == Continuation::Exact {
            let rest = Generation { resume: Some(self.sent.clone()), ..self.generation.clone() };
            return (node.protocol.generate(&rest, &model, None), 0);
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

/// A generation whose first event is there.
pub(super) struct Begun<'a> {
    counted: (InFlight, Counted),
    from: Instant,
    /// Tokens of the answer that the node got as text.
    told: u64,
    exchange: upstream::Exchange<'a>,
    decoder: Box<dyn Decode>,
    drill: Option<Drill>,
    event: Event,
}

impl<'a> Exchange for Generate<'a> {
    type Answer = (Done, upstream::Exchange<'a>);
    // On the heap, for it is handed on.
    type Begun = Box<Begun<'a>>;

    fn objection(&self, node: &Node) -> Option<Failure> {
        let cannot_go_on = || Failure {
            code: FailureCode::Unavailable,
            message: "no node can go on with this answer".to_owned(),
        };
        let objection = self.via.objection(node).or_else(|| node.protocol.objection(&self.generation));
        objection.or_else(|| (self.goes_on() && !self.can_go_on(node)).then(cannot_go_on))
    }

    fn suits(&self, node: &Node) -> bool {
        !self.goes_on() || node.protocol.continuation() == Continuation::Exact
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.generation)
    }

    fn tokens((done, _): &Self::Answer) -> u64 {
        done.completion_tokens
    }

    fn drill(&mut self) -> Option<Drill> {
        self.drill.take()
    }

    fn can_be_hedged(&self) -> bool {
        !self.goes_on()
    }

    async fn begin(&self, choice: &Choice, mut drill: Option<Drill>) -> Result<Self::Begun, Fault> {
        let counted = enter(choice, self.metrics);
        let (node, from) = (&choice.node, Instant::now());
        if let Some(drill) = &drill {
            Box::pin(drill.before(node)).await?;
        }
        let (request, told) = self.request(node);
        let request = Request { via: self.via.clone(), ..request };
        let mut exchange = connected(self.upstream.start(node, request)).await?;
        let mut decoder = node.protocol.decoder(&self.generation);
        if self.goes_on() {
            self.metrics.resumed.inc();
        }
        let event = next(&mut exchange, &mut *decoder, &mut drill, node).await?;
        Ok(Box::new(Begun { counted, from, told, exchange, decoder, drill, event }))
    }

    async fn follow(&mut self, trip: Trip<'_>, begun: Self::Begun) -> Result<Self::Answer, Fault> {
        let Begun { mut counted, from, told, mut exchange, mut decoder, mut drill, mut event } = *begun;
        let node = Arc::clone(&trip.choice.node);
        // A later route is not told: the client has the head of its answer.
        if !self.goes_on() {
            let (fallback, is_sibling) = (self.fallback.clone(), self.is_sibling);
            self.writer.routed(Route { fallback, is_sibling, ..trip.route() });
        }
        counted.0.read();
        trip.choice.answered();
        let first = Instant::now();
        loop {
            self.is_exact &= node.protocol.continuation() == Continuation::Exact;
            if let Event::Done(mut done) = event {
                done.prompt_tokens = done.prompt_tokens.saturating_sub(told);
                done.completion_tokens += told;
                time(&mut done, from, first);
                self.writer.append(Event::Done(done.clone()));
                return Ok((done, exchange));
            }
            self.sent.count(&event);
            self.writer.append(event);
            event = next(&mut exchange, &mut *decoder, &mut drill, &node).await?;
        }
    }
}

/// The next event of an answer, or the fault that it is or that is played in its place.
async fn next(
    exchange: &mut upstream::Exchange<'_>,
    decoder: &mut dyn Decode,
    drill: &mut Option<Drill>,
    node: &Node,
) -> Result<Event, Fault> {
    let event = match exchange.next(decoder).await? {
        Some(Event::Error(failure)) => return Err(Fault::Refused(failure)),
        Some(event) => event,
        None => return Err(Fault::Broken("the answer was cut off".into())),
    };
    if let Some(drill) = drill {
        Box::pin(drill.during(&event, node, exchange)).await?;
    }
    Ok(event)
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
    type Begun = W::Answer;

    fn objection(&self, node: &Node) -> Option<Failure> {
        self.via.objection(node).or_else(|| self.work.objection(node))
    }

    fn digest(&self) -> Digest {
        self.work.digest()
    }

    fn tokens(_: &Self::Answer) -> u64 {
        0
    }

    fn drill(&mut self) -> Option<Drill> {
        self.drill.take()
    }

    fn can_be_hedged(&self) -> bool {
        W::CAN_BE_HEDGED
    }

    /// Begins with its whole answer.
    async fn begin(&self, choice: &Choice, drill: Option<Drill>) -> Result<W::Answer, Fault> {
        let _counted = enter(choice, self.metrics);
        let node = &choice.node;
        if let Some(drill) = drill {
            Box::pin(drill.whole(node)).await?;
        }
        let request = self.work.request(node).map_err(Fault::Refused)?;
        let path = request.path.clone();
        let request = Request { via: self.via.clone(), ..request };
        let answer = connected(self.upstream.ask(node, request)).await?;
        let answer = self.work.answer(node, &answer);
        answer.map_err(|error| Fault::Broken(format!("the answer of {path}: {error}")))
    }

    async fn follow(&mut self, trip: Trip<'_>, begun: W::Answer) -> Result<Self::Answer, Fault> {
        Ok((begun, trip.route()))
    }
}

/// On the heap, and gone once it is done: the state of connecting is 10 KB, which every open stream would keep otherwise.
fn connected<T>(start: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    Box::pin(start)
}

fn enter(choice: &Choice, metrics: &Metrics) -> (InFlight, Counted) {
    let inflight = metrics.inflight.with_label_values(&[&choice.node.name]);
    (choice.enter(), Counted::new(inflight))
}
