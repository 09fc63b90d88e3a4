//! Finding a place to run: admission, residency, routing, and another try elsewhere when a node fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::{Claim, Dispatch, Target};
use crate::admission::Place;
use crate::error::Error;
use crate::flight::Route;
use crate::generation::Priority;
use crate::node::Node;
use crate::routing::{Candidate, Digest, Order, Outcome};
use crate::telemetry::Counted;

/// Pause before looking again for a node that the supervisor reported ready and that was gone a moment later.
const LOST_AGAIN: Duration = Duration::from_millis(10);

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
#[derive(Clone, Copy)]
pub(super) struct Trip<'a> {
    pub node: &'a Arc<Node>,
    /// 1 for the first.
    pub attempt: u32,
    pub waited: Waited,
}

impl Trip<'_> {
    /// What is known of the way once the node has begun to answer; it was asked at `from`.
    pub(super) fn route(&self, from: Instant) -> Route {
        Route {
            node: Arc::clone(&self.node.name),
            attempts: self.attempt,
            queued: self.waited.queue,
            loading: self.waited.load,
            upstream: self.waited.upstream + from.elapsed(),
        }
    }
}

impl Dispatch {
    /// Runs `exchange` on a node of the target. A retryable fault leads to another attempt, on another node if there is
    /// one.
    pub(super) async fn on_a_node<E: Exchange>(
        &self,
        target: &Target,
        claim: Claim,
        exchange: E,
    ) -> Result<E::Answer, Error> {
        let mut waited = Waited::default();
        let _place = self.admit(target, claim.priority, &mut waited).await?;
        // Only who is let in decides how long the model stays.
        let _hold = target.model.as_ref().map(|model| self.supervisor.hold(model, claim.keep_alive));
        self.attempts(target, waited, exchange).await
    }

    /// The same without a place in front of the model, for who has one or needs none.
    pub(super) async fn attempts<E: Exchange>(
        &self,
        target: &Target,
        mut waited: Waited,
        mut exchange: E,
    ) -> Result<E::Answer, Error> {
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut attempt = 1;
        loop {
            let node = self.ready_node(target, &tried, &mut waited).await?;
            let from = Instant::now();
            // A breaker will give its permit here.
            let fault = match exchange.run(Trip { node: &node, attempt, waited }).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            waited.upstream += from.elapsed();
            if !fault.is_retryable() || attempt > self.retry.attempts {
                return Err(fault.into());
            }
            tracing::warn!(node = %node.name, attempt, %fault, "a node failed; the request goes on elsewhere");
            self.suspect(target, &node);
            self.metrics.retries.with_label_values(&[fault.reason()]).inc();
            tried.push(node);
            attempt += 1;
        }
    }

    /// A place to run. The model is loaded first: whoever waits for that has a place in the line, but the patience of the
    /// line is not for loads, which have a limit of their own.
    async fn admit(&self, target: &Target, priority: Priority, waited: &mut Waited) -> Result<Place, Error> {
        let gate = self.gates.get(&*target.name).ok_or_else(|| Error::internal("a model without a gate"))?;
        let ticket = gate.line_up(priority)?;
        let _counted = Counted::new(self.metrics.queue_depth.with_label_values(&[&target.name]));
        let from = Instant::now();
        if let (Some(model), true) = (&target.model, self.pool.of(&target.name).is_empty()) {
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
    async fn ready_node(
        &self,
        target: &Target,
        tried: &[Arc<Node>],
        waited: &mut Waited,
    ) -> Result<Arc<Node>, Error> {
        let from = Instant::now();
        loop {
            if let Some(node) = self.choose(target, self.pool.of(&target.name), tried) {
                waited.load += from.elapsed();
                return Ok(node);
            }
            match &target.model {
                Some(model) => self.supervisor.ready(model).await?,
                None => return Err(Error::NodeLost { reason: "no node serves this model".into() }),
            }
            if self.pool.of(&target.name).is_empty() {
                tokio::time::sleep(LOST_AGAIN).await;
            }
        }
    }

    /// The strategy's choice among those not tried; among all if all were.
    fn choose(&self, target: &Target, nodes: Vec<Arc<Node>>, tried: &[Arc<Node>]) -> Option<Arc<Node>> {
        let fresh: Vec<_> = nodes
            .iter()
            .filter(|node| !tried.iter().any(|tried| Arc::ptr_eq(tried, node)))
            .cloned()
            .collect();
        let nodes = if fresh.is_empty() { nodes } else { fresh };
        if let [only] = nodes.as_slice() {
            return Some(Arc::clone(only));
        }
        let candidates: Vec<_> = nodes
            .iter()
            .map(|node| Candidate {
                incarnation: node.incarnation,
                in_flight: node.in_flight(),
                ..Candidate::new(Arc::clone(&node.name), node.parallel)
            })
            .collect();
        let digest = Digest { model: Arc::clone(&target.name), ..Digest::default() };
        let (now, mut order) = (Instant::now(), Order::default());
        self.strategy.rank(&digest, &candidates, now, &mut order);
        let index = order.take()?;
        let pick = order.pick(index, &candidates)?;
        self.strategy.observe(&digest, &pick, &Outcome::Sent, now);
        nodes.get(index).cloned()
    }

    fn suspect(&self, target: &Target, node: &Arc<Node>) {
        if target.model.is_some() {
            self.supervisor.suspect(node);
        }
    }
}
