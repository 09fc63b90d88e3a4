//! Finding a place to run: admission, residency, routing, and another try elsewhere when a node fails before its first byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::{Dispatch, Target};
use crate::error::Error;
use crate::node::Node;
use crate::routing::Candidate;
use crate::upstream::Fault;

/// Pause before looking again for a node that the supervisor reported ready and that was gone a moment later.
const LOST_AGAIN: Duration = Duration::from_millis(10);

/// What a request has waited for before its node got it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waited {
    /// For a place in front of the model.
    pub queue: Duration,
    /// For the model to be loaded, first and repeated attempts together.
    pub load: Duration,
}

/// One attempt.
#[derive(Clone, Copy)]
pub(super) struct Trip<'a> {
    pub node: &'a Arc<Node>,
    /// 1 for the first.
    pub attempt: u32,
    pub waited: Waited,
}

impl Dispatch {
    /// Runs `exchange` on a node of the target. A retryable fault leads to another attempt, on another node if there is
    /// one.
    pub(super) async fn on_a_node<E: Exchange>(
        &self,
        target: &Target,
        exchange: E,
    ) -> Result<E::Answer, Error> {
        let mut waited = Waited::default();
        let _place = self.admit(target, &mut waited).await?;
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut attempt = 1;
        loop {
            let node = self.ready_node(target, &tried, &mut waited).await?;
            // A breaker will give its permit here.
            let fault = match exchange.run(Trip { node: &node, attempt, waited }).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let reason = match fault {
                Fault::Refused(failure) if !Fault::Refused(failure.clone()).is_retryable() => {
                    return Err(Error::Node(failure));
                }
                Fault::Refused(failure) => failure.message,
                Fault::Broken(reason) => {
                    self.suspect(target, &node);
                    reason
                }
            };
            tracing::warn!(node = %node.name, attempt, reason, "a node failed before its first byte");
            if attempt > self.retry.attempts {
                return Err(Error::NodeLost { reason });
            }
            self.metrics.retries.with_label_values(&["node_failed"]).inc();
            tried.push(node);
            attempt += 1;
        }
    }

    async fn admit(&self, target: &Target, waited: &mut Waited) -> Result<crate::admission::Place, Error> {
        let gate = self.gates.get(&*target.name).ok_or_else(|| Error::internal("a model without a gate"))?;
        let depth = self.metrics.queue_depth.with_label_values(&[&target.name]);
        let from = Instant::now();
        let place = {
            let _counted = crate::telemetry::Counted::new(depth);
            gate.enter().await
        };
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
            if let Some(node) = self.choose(self.pool.of(&target.name), tried) {
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
    fn choose(&self, nodes: Vec<Arc<Node>>, tried: &[Arc<Node>]) -> Option<Arc<Node>> {
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
                name: Arc::clone(&node.name),
                in_flight: node.in_flight(),
                parallel: node.parallel,
            })
            .collect();
        self.strategy.choose(&candidates).and_then(|index| nodes.get(index).cloned())
    }

    fn suspect(&self, target: &Target, node: &Arc<Node>) {
        if target.model.is_some() {
            self.supervisor.suspect(node);
        }
    }
}
