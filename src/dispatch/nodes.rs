//! Nodes as people see them, what people can have done to them, and why a request would go to which.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::choice::candidates;
use super::{Claim, Dispatch, Target};
use crate::breaker::{Forced, Report};
use crate::error::Error;
use crate::generation::Generation;
use crate::generation::seam::Binding;
use crate::node::{Condition, Node};
use crate::routing::{self, Decision, Digest, Record};

/// A node, and how it is.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: Arc<str>,
    /// Whether this process owns it: `worker`, else `remote`.
    pub kind: &'static str,
    /// Where it listens.
    pub endpoint: String,
    /// What it is bound to: `cpus` and `gpus`, where it is.
    #[serde(flatten)]
    pub binding: Binding,
    /// What it may be given.
    pub condition: Condition,
    /// Why, in words; empty where all is well.
    pub reason: String,
    /// The part of its requests that it gets, 0 to 1.
    pub share: f64,
    /// Exchanges running.
    pub in_flight: usize,
    /// Most of them.
    pub parallel: usize,
    /// Its breaker.
    pub breaker: Report,
    /// The models it serves, each with its breaker.
    pub models: Vec<Serving>,
}

/// A model on a node.
#[derive(Clone, Debug, Serialize)]
pub struct Serving {
    /// As clients call it.
    pub model: String,
    /// Its breaker there.
    pub breaker: Report,
}

/// What can be done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It gets no more requests, and finishes those that it has.
    Drain,
    /// It gets requests again.
    Enable,
    /// Its breaker opens, and stays so.
    Open,
    /// Its breaker closes, and stays so whatever happens.
    Close,
    /// Its breakers forget everything.
    Reset,
}

/// Where a request would go, and who cannot have it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The strategy's decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// Nodes that serve the model and get nothing now, with why.
    pub excluded: Vec<Excluded>,
}

/// A node that gets nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Excluded {
    /// Its name.
    pub node: Arc<str>,
    /// In words.
    pub reason: String,
}

impl Dispatch {
    /// Every node that takes requests, or would if it were well.
    pub fn node_reports(&self) -> Vec<NodeReport> {
        let now = Instant::now();
        self.pool.nodes().into_iter().map(|(node, models)| self.node_report(&node, models, now)).collect()
    }

    /// Puts the part of its requests that each node gets into the metrics; nodes that are gone are gone there too.
    pub fn show_shares(&self) {
        let now = Instant::now();
        self.metrics.node_share.reset();
        for (node, models) in self.pool.nodes() {
            let own = node.health(|health| if health.condition().is_fit() { health.share() } else { 0.0 });
            for model in models {
                let pair = self.breakers.of(&node, &model);
                let share = if pair.shut(now).is_some() { 0.0 } else { own * pair.share(now) };
                self.metrics.node_share.with_label_values(&[&*node.name, &model]).set(share);
            }
        }
    }

    fn node_report(&self, node: &Arc<Node>, models: Vec<String>, now: Instant) -> NodeReport {
        let (condition, reason, share) =
            node.health(|health| (health.condition(), health.reason(), health.share()));
        let models = models.into_iter().map(|model| {
            let breaker = self.breakers.of(node, &model).model.report(now);
            Serving { model, breaker }
        });
        let models: Vec<_> = models.collect();
        let first = models.first().map_or("", |serving| serving.model.as_str());
        let breaker = self.breakers.of(node, first).node.report(now);
        NodeReport {
            name: Arc::clone(&node.name),
            kind: if node.is_remote() { "remote" } else { "worker" },
            endpoint: node.endpoint.to_string(),
            binding: node.binding.clone(),
            condition,
            reason,
            share: share * breaker.share,
            in_flight: node.in_flight(),
            parallel: node.parallel,
            breaker,
            models,
        }
    }

    /// Does something to all nodes of a name: the addresses behind a name have it in front of theirs.
    pub fn act(&self, name: &str, deed: Deed, reason: &str) -> Result<(), Error> {
        let is_meant = |node: &Node| {
            *node.name == *name || node.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut meant = self.pool.nodes();
        meant.retain(|(node, _)| is_meant(node));
        if meant.is_empty() {
            return Err(Error::NodeNotFound { name: name.to_owned() });
        }
        let now = Instant::now();
        for (node, models) in meant {
            tracing::warn!(node = %node.name, ?deed, reason, "by the admin port");
            let pairs = models.iter().map(|model| self.breakers.of(&node, model));
            match deed {
                Deed::Drain => node.health(|health| health.drain(reason)),
                Deed::Enable => node.health(|health| health.enable()),
                Deed::Open => pairs.take(1).for_each(|pair| pair.node.force(Forced::Open, reason, now)),
                Deed::Close => pairs.for_each(|pair| {
                    pair.node.force(Forced::Closed, reason, now);
                    pair.model.force(Forced::Closed, reason, now);
                }),
                Deed::Reset => pairs.for_each(|pair| {
                    pair.node.reset(now);
                    pair.model.reset(now);
                }),
            }
        }
        Ok(())
    }

    /// Where a generation would go now. Nothing is sent, and nobody learns from it.
    pub fn explain(&self, target: &Target, claim: &Claim, generation: &Generation) -> Explanation {
        let now = Instant::now();
        let all = self.nodes_of(target);
        let fit = self.fit(&target.name, all.clone(), now);
        let candidates = candidates(&fit.nodes, &target.name, now);
        let digest = Self::digest(target, claim, Digest::of(generation));
        let decision = routing::explain(&*self.rules().strategy, &digest, &candidates, now);
        let is_fit = |node: &Arc<Node>| fit.nodes.iter().any(|(fit, _)| Arc::ptr_eq(fit, node));
        let excluded = all.iter().filter(|node| !is_fit(node)).map(|node| {
            let (pair, condition) = (self.breakers.of(node, &target.name), node.condition());
            let reason = match condition {
                Condition::Draining | Condition::Unhealthy => {
                    format!("{}: {}", condition.as_str(), node.health(|health| health.reason()))
                }
                _ => {
                    let of_node = pair.node.shut(now).is_some();
                    let report = if of_node { pair.node.report(now) } else { pair.model.report(now) };
                    match report.retry_in {
                        Some(seconds) => format!("shut for {seconds:.1} s: {}", report.reason),
                        None => format!("shut: {}", report.reason),
                    }
                }
            };
            Excluded { node: Arc::clone(&node.name), reason }
        });
        Explanation { decision, excluded: excluded.collect() }
    }

    /// The last decisions, the latest first, with what came of them.
    pub fn decisions(&self, count: usize) -> Vec<Record> {
        self.rules().decisions.last(count)
    }
}
