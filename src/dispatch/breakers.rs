//! [`Breakers`]: a breaker for each node, and one for each model on it, that live as long as the node.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use crate::breaker::{Breaker, BreakerConfig, Listener, Permit, Shut, Transition};
use crate::generation::FailureCode;
use crate::node::Node;
use crate::telemetry::Metrics;
use crate::upstream::Fault;

/// How long a node is left alone that wants that and does not say for how long.
const REST: Duration = Duration::from_secs(1);
/// And one that says that it does not have the model: it may be told soon that it should.
const LACK: Duration = Duration::from_secs(10);

/// Every breaker.
pub(super) struct Breakers {
    metrics: Arc<Metrics>,
    known: RwLock<Known>,
}

struct Known {
    config: BreakerConfig,
    /// By the node's incarnation.
    nodes: HashMap<u64, Breaking>,
}

/// The breakers of one node.
struct Breaking {
    node: Weak<Node>,
    name: Arc<str>,
    whole: Arc<Breaker>,
    models: HashMap<String, Arc<Breaker>>,
}

/// What stands between a request and a node: the node's breaker, and that of the model on it.
#[derive(Clone)]
pub(super) struct Pair {
    pub node: Arc<Breaker>,
    pub model: Arc<Breaker>,
}

/// The right to ask a node. Dropped without a word it counts for nothing.
pub(super) struct Passage {
    pair: Pair,
    node: Permit,
    model: Permit,
}

impl Breakers {
    pub(super) fn new(config: BreakerConfig, metrics: Arc<Metrics>) -> Self {
        Self { metrics, known: RwLock::new(Known { config, nodes: HashMap::new() }) }
    }

    /// Goes on under other settings.
    pub(super) fn configure(&self, config: BreakerConfig) {
        let (mut known, now) = (self.write(), Instant::now());
        for breaking in known.nodes.values() {
            breaking
                .models
                .values()
                .chain([&breaking.whole])
                .for_each(|breaker| breaker.configure(&config, now));
        }
        known.config = config;
    }

    /// Those of a model on a node; made when they are asked for first.
    pub(super) fn of(&self, node: &Arc<Node>, model: &str) -> Pair {
        if let Some(pair) = self.read().pair(node, model) {
            return pair;
        }
        let mut known = self.write();
        self.forget(&mut known);
        let now = Instant::now();
        let config = known.config.clone();
        let make =
            |model: &str| Arc::new(Breaker::new(config.clone(), self.listener(&node.name, model), now));
        let breaking = known.nodes.entry(node.incarnation).or_insert_with(|| Breaking {
            node: Arc::downgrade(node),
            name: Arc::clone(&node.name),
            whole: make(""),
            models: HashMap::new(),
        });
        let of_model = breaking.models.entry(model.to_owned()).or_insert_with(|| make(model));
        Pair { node: Arc::clone(&breaking.whole), model: Arc::clone(of_model) }
    }

    /// Lets go of those whose nodes are gone, and of what metrics say of them.
    fn forget(&self, known: &mut Known) {
        let is_gone = |_: &u64, breaking: &mut Breaking| breaking.node.strong_count() == 0;
        let gone: Vec<_> = known.nodes.extract_if(is_gone).collect();
        for (_, breaking) in gone {
            if known.nodes.values().any(|other| other.name == breaking.name) {
                // A worker has the name of the one it replaced.
                continue;
            }
            for model in breaking.models.keys().map(String::as_str).chain([""]) {
                self.metrics.breaker_state.remove_label_values(&[&breaking.name, model]).ok();
            }
        }
    }

    fn listener(&self, node: &Arc<str>, model: &str) -> Listener {
        let (metrics, node, model) = (Arc::clone(&self.metrics), Arc::clone(node), model.to_owned());
        metrics.breaker_state.with_label_values(&[&*node, &model]).set(0);
        Arc::new(move |Transition { from, to, reason }| {
            metrics.breaker_state.with_label_values(&[&*node, &model]).set(to.value());
            let labels = [&*node, from.as_str(), to.as_str()];
            metrics.breaker_transitions.with_label_values(&labels).inc();
            tracing::warn!(%node, model, from = from.as_str(), to = to.as_str(), reason, "breaker");
        })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn pair(&self, node: &Node, model: &str) -> Option<Pair> {
        let breaking = self.nodes.get(&node.incarnation)?;
        Some(Pair { node: Arc::clone(&breaking.whole), model: Arc::clone(breaking.models.get(model)?) })
    }
}

impl Pair {
    /// Why nothing would be let through now.
    pub(super) fn shut(&self, now: Instant) -> Option<Shut> {
        self.node.shut(now).or_else(|| self.model.shut(now))
    }

    /// The part of its requests that the model should get there.
    pub(super) fn share(&self, now: Instant) -> f64 {
        self.node.share(now).min(self.model.share(now))
    }

    /// Lets one request through.
    pub(super) fn admit(self, now: Instant) -> Result<Passage, Shut> {
        let (node, model) = (self.node.admit(now)?, self.model.admit(now)?);
        Ok(Passage { pair: self, node, model })
    }
}

impl Passage {
    /// The node has begun to answer, after `took`.
    pub(super) fn answered(&mut self, took: Duration, now: Instant) {
        self.node.answered(took, now);
        self.model.answered(took, now);
    }

    /// The node has answered.
    pub(super) fn succeed(self, now: Instant) {
        self.node.succeed(now);
        self.model.succeed(now);
    }

    /// It went wrong: what is the connection's or the process' fault is the node's, what it refuses though it should not is the
    /// model's, and the rest is nobody's. What a worker of Arriero refuses says nothing about the next request: it has a supervisor.
    pub(super) fn fail(self, fault: &Fault, node: &Node, now: Instant) {
        let what = fault.to_string();
        match fault {
            Fault::Connect(_) | Fault::Timeout(_) | Fault::Broken(_) => self.node.fail(&what, now),
            Fault::RateLimited { retry_after, .. } => {
                self.pair.node.rest(retry_after.unwrap_or(REST), now);
            }
            Fault::Declined(_) => self.pair.model.rest(LACK, now),
            Fault::Refused(failure) => match failure.code {
                FailureCode::Internal | FailureCode::Unavailable if !node.protocol.is_seam() => {
                    self.model.fail(&what, now);
                    self.node.succeed(now);
                }
                FailureCode::Internal | FailureCode::Unavailable => {}
                // That says nothing of the model.
                FailureCode::Loop => self.node.succeed(now),
                // It was right to.
                _ => self.succeed(now),
            },
        }
    }
}
