//! Finding a place to run: admission, residency, routing, and another try elsewhere when a node fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::Choice;
use super::exchange::Exchange;
use super::hedge::Hedging;
use super::{Claim, Dispatch, Target};
use crate::admission::Place;
use crate::error::Error;
use crate::flight::Route;
use crate::generation::{Failure, Priority};
use crate::node::Node;
use crate::telemetry::Counted;
use crate::upstream::Fault;

/// Pause before looking again for a node that the supervisor reported ready and that was gone a moment later.
const LOST_AGAIN: Duration = Duration::from_millis(10);

/// How long a request waits for one of its nodes to have less to do. That all have as much as they may have though it was let in is
/// because one of them has gone.
const FULL: Duration = Duration::from_secs(60);

/// What a request has waited for before its node got it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waited {
    /// For a place in front of the model.
    pub queue: Duration,
    /// For the model to be loaded, first and repeated attempts together.
    pub load: Duration,
    /// For nodes that then failed.
    pub upstream: Duration,
}

/// One attempt.
pub(super) struct Trip<'a> {
    pub choice: &'a mut Choice,
    /// 1 for the first.
    pub attempt: u32,
    pub waited: Waited,
    /// When its first node was asked.
    pub from: Instant,
}

impl Trip<'_> {
    /// What is known of the way once the node has begun to answer.
    pub(super) fn route(&self) -> Route {
        Route {
            node: Arc::clone(&self.choice.node.name),
            fallback: None,
            is_sibling: false,
            cut: self.choice.node.cut,
            attempts: self.attempt,
            queued: self.waited.queue,
            loading: self.waited.load,
            upstream: self.waited.upstream + self.from.elapsed(),
            age: None,
            similarity: None,
        }
    }
}

impl Dispatch {
    /// Runs `exchange` on a node of the target. A retryable fault leads to another attempt, on another node if there is
    /// one.
    pub(super) async fn on_a_node<E: Exchange>(
        &self,
        target: &Target,
        claim: &Claim,
        exchange: &mut E,
    ) -> Result<E::Answer, Error> {
        let mut waited = Waited::default();
        let _place = self.admit(target, claim.priority, &mut waited).await?;
        // Only who is let in decides how long the model stays.
        let _hold = target.model.as_ref().map(|model| self.supervisor.hold(model, claim.keep_alive));
        self.attempts(target, claim, waited, exchange).await
    }

    /// The same without a place in front of the model, for who has one or needs none.
    pub(super) async fn attempts<E: Exchange>(
        &self,
        target: &Target,
        claim: &Claim,
        mut waited: Waited,
        exchange: &mut E,
    ) -> Result<E::Answer, Error> {
        let rules = self.rules();
        rules.budget.deposit();
        let (mut tried, mut attempt): (Vec<Arc<Node>>, u32) = (Vec::new(), 1);
        let mut last: Option<Fault> = None;
        loop {
            let choice = match self.ready_node(target, claim, &tried, exchange, &mut waited).await {
                Ok(choice) => choice,
                // That no other can go on is a consequence; what went wrong is the fault before it.
                Err(error @ (Error::Node(_) | Error::NodesShut { .. })) => {
                    return Err(last.map_or(error, Error::from));
                }
                Err(error) => return Err(error),
            };
            let from = Instant::now();
            let drill = exchange.drill();
            let hedging = Hedging { target, claim, rules: &rules, tried: &tried };
            let (mut choice, begun) = self.begin(hedging, choice, &*exchange, drill).await;
            let trip = Trip { choice: &mut choice, attempt, waited, from };
            let ran = match begun {
                Ok(begun) => exchange.follow(trip, begun).await,
                Err(fault) => Err(fault),
            };
            let fault = match ran {
                Ok(answer) => {
                    choice.succeed(E::tokens(&answer));
                    return Ok(answer);
                }
                Err(fault) => fault,
            };
            waited.upstream += from.elapsed();
            let node = Arc::clone(&choice.node);
            choice.fail(&fault);
            if !fault.is_retryable() || attempt > rules.retry.attempts {
                return Err(fault.into());
            }
            self.suspect(target, &node);
            // A worker that died has a supervisor to keep retries from multiplying.
            if node.is_remote() && !rules.budget.withdraw() {
                tracing::warn!(node = %node.name, attempt, %fault, "a node failed, and too many requests were retried of late");
                return Err(fault.into());
            }
            tracing::warn!(node = %node.name, attempt, %fault, "a node failed; the request goes on elsewhere");
            self.metrics.retries.with_label_values(&[fault.reason()]).inc();
            tried.push(node);
            attempt += 1;
            last = Some(fault);
        }
    }

    /// A place to run. The model is loaded first: whoever waits for that has a place in the line, but the patience of the
    /// line is not for loads, which have a limit of their own.
    async fn admit(&self, target: &Target, priority: Priority, waited: &mut Waited) -> Result<Place, Error> {
        let gate =
            self.catalog.gate(&target.name).ok_or_else(|| Error::internal("a model without a gate"))?;
        let ticket = gate.line_up(priority)?;
        let _counted = Counted::new(self.metrics.queue_depth.with_label_values(&[&target.name]));
        let from = Instant::now();
        if let (Some(model), true) = (&target.model, self.nodes_of(target).is_empty()) {
            self.supervisor.ready(model).await?;
        }
        waited.load = from.elapsed();
        let from = Instant::now();
        let place = ticket.enter().await;
        waited.queue = from.elapsed();
        self.metrics.queue_wait.with_label_values(&[&target.name]).observe(waited.queue.as_secs_f64());
        place
    }

    /// A node that is ready, by the strategy's choice; loads the model if none is.
    async fn ready_node<E: Exchange>(
        &self,
        target: &Target,
        claim: &Claim,
        tried: &[Arc<Node>],
        exchange: &E,
        waited: &mut Waited,
    ) -> Result<Choice, Error> {
        let from = Instant::now();
        loop {
            let now = Instant::now();
            let (nodes, objection) = able(self.nodes_of(target), exchange);
            let has_worker = nodes.iter().any(|node| !node.is_remote());
            let mut fit = self.fit(&target.name, nodes, now);
            if fit.nodes.iter().any(|(node, _)| exchange.suits(node)) {
                fit.nodes.retain(|(node, _)| exchange.suits(node));
            }
            let (retry_in, is_full) = (fit.retry_in, fit.is_full);
            if is_full && from.elapsed() < FULL {
                tokio::time::sleep(LOST_AGAIN).await;
                continue;
            }
            let digest = || Self::digest(target, claim, exchange.digest());
            if let Some(choice) = self.choose(target, fit, tried, digest, now) {
                waited.load += from.elapsed();
                return Ok(choice);
            }
            match (&target.model, objection, retry_in) {
                // A worker would not do better, or there is none to be had.
                (Some(_), Some((failure, true)), _) | (None, Some((failure, _)), None) => {
                    return Err(Error::Node(failure));
                }
                (Some(model), ..) if !has_worker => self.supervisor.ready(model).await?,
                (_, _, Some(retry_after)) => {
                    return Err(Error::NodesShut { model: target.name.to_string(), retry_after });
                }
                (Some(model), ..) => self.supervisor.ready(model).await?,
                (None, None, None) => return Err(Error::NoNode { model: target.name.to_string() }),
            }
            if self.nodes_of(target).is_empty() {
                tokio::time::sleep(LOST_AGAIN).await;
            }
        }
    }

    /// Has the supervisor look at a worker.
    pub(super) fn suspect(&self, target: &Target, node: &Arc<Node>) {
        if target.model.is_some() && !node.is_remote() {
            self.supervisor.suspect(node);
        }
    }
}

/// Those of `nodes` that can do it, and an objection of one that cannot, with whether it is a worker of this process.
pub(super) fn able(
    nodes: Vec<Arc<Node>>,
    exchange: &impl Exchange,
) -> (Vec<Arc<Node>>, Option<(Failure, bool)>) {
    let mut objection: Option<(Failure, bool)> = None;
    let mut able = nodes;
    able.retain(|node| match exchange.objection(node) {
        None => true,
        Some(failure) => {
            let is_worker = !node.is_remote();
            if objection.as_ref().is_none_or(|(_, was_worker)| is_worker && !was_worker) {
                objection = Some((failure, is_worker));
            }
            false
        }
    });
    (able, objection)
}
