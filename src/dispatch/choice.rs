//! [`Choice`]: the node that a request goes to: one that can do it, is fit and not shut off, by the strategy's order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::breakers::{Pair, Passage};
use super::{Claim, Dispatch, Target};
use crate::breaker::Shut;
use crate::dialect::name::is_same;
use crate::node::{Node, Resident};
use crate::routing::{Candidate, Decisions, Digest, Order, Outcome, Pick, Residency, Signals, Strategy};
use crate::telemetry::Metrics;
use crate::upstream::Fault;

/// What a request to a node that does not have the model in memory waits for, where nobody knows.
const LOAD: Duration = Duration::from_secs(10);

/// A node that was chosen, until it has answered or failed.
pub(super) struct Choice {
    pub node: Arc<Node>,
    model: Arc<str>,
    passage: Passage,
    /// By the strategy; `None` where there was no choice.
    decided: Option<Box<Decided>>,
    sent: Instant,
    first: Option<Duration>,
}

/// A decision that was carried out; who made it learns what came of it.
struct Decided {
    strategy: Arc<dyn Strategy>,
    decisions: Arc<Decisions>,
    metrics: Arc<Metrics>,
    digest: Arc<Digest>,
    pick: Pick,
    number: u64,
    is_settled: bool,
}

/// Who could be chosen, and why the others cannot.
pub(super) struct Fit {
    pub nodes: Vec<(Arc<Node>, Pair)>,
    /// When the first one that is shut or full is worth another try; `None`: none is.
    pub retry_in: Option<Duration>,
    /// Those that could have it have all that they may have: soon one will not.
    pub is_full: bool,
}

impl Dispatch {
    /// Those of `nodes` that may be given a request for the model. Nodes whose probes fail get some only where there are no others:
    /// a probe may be wrong.
    pub(super) fn fit(&self, model: &str, nodes: Vec<Arc<Node>>, now: Instant) -> Fit {
        let mut retry: Option<Instant> = None;
        let (mut fit, mut unfit) = (Vec::with_capacity(nodes.len()), Vec::new());
        for node in nodes {
            let pair = self.breakers.of(&node, model);
            let condition = node.condition();
            match pair.shut(now) {
                _ if condition.is_drained() => retry = Some(retry.unwrap_or(now + REST)),
                Some(Shut { retry_at }) => {
                    let at = retry_at.unwrap_or(now + REST);
                    retry = Some(retry.map_or(at, |known| known.min(at)));
                }
                None if condition.is_fit() => fit.push((node, pair)),
                None => unfit.push((node, pair)),
            }
        }
        let mut nodes = if fit.is_empty() { unfit } else { fit };
        let was_empty = nodes.is_empty();
        // A worker queues by itself; a remote node gets no more than its operator wants.
        nodes.retain(|(node, _)| !node.is_remote() || node.in_flight() < node.parallel);
        let is_full = nodes.is_empty() && !was_empty;
        let retry_in = retry.map(|at| at.saturating_duration_since(now));
        Fit { nodes, retry_in: if is_full { Some(FULL_REST) } else { retry_in }, is_full }
    }

    /// The strategy's choice among those not tried; among all if all were. `None`: there is none that lets a request through.
    pub(super) fn choose(
        &self,
        target: &Target,
        fit: Fit,
        tried: &[Arc<Node>],
        digest: impl FnOnce() -> Arc<Digest>,
        now: Instant,
    ) -> Option<Choice> {
        let is_tried = |node: &Arc<Node>| tried.iter().any(|tried| Arc::ptr_eq(tried, node));
        let mut nodes = fit.nodes;
        if !nodes.iter().all(|(node, _)| is_tried(node)) {
            nodes.retain(|(node, _)| !is_tried(node));
        }
        let chosen = |node: Arc<Node>, pair: Pair| {
            let passage = pair.admit(now).ok()?;
            let model = Arc::clone(&target.name);
            Some(Choice { node, model, passage, decided: None, sent: now, first: None })
        };
        if nodes.len() < 2 {
            let (node, pair) = nodes.pop()?;
            return chosen(node, pair);
        }
        let (digest, rules) = (digest(), self.rules());
        let candidates = candidates(&nodes, &target.name, now);
        let mut order = Order::default();
        rules.strategy.rank(&digest, &candidates, now, &mut order);
        // One may have been shut a moment ago, by its last trial: then the next.
        while let Some(index) = order.take() {
            let ((node, pair), Some(pick)) = (nodes.get(index)?.clone(), order.pick(index, &candidates))
            else {
                continue;
            };
            let Some(mut choice) = chosen(node, pair) else { continue };
            rules.strategy.observe(&digest, &pick, &Outcome::Sent, now);
            let number = rules.decisions.record(&digest, &pick);
            choice.decided = Some(Box::new(Decided {
                strategy: Arc::clone(&rules.strategy),
                decisions: Arc::clone(&rules.decisions),
                metrics: Arc::clone(&self.metrics),
                digest,
                pick,
                number,
                is_settled: false,
            }));
            return Some(choice);
        }
        None
    }

    /// The request as strategies see it.
    pub(super) fn digest(target: &Target, claim: &Claim, digest: Digest) -> Arc<Digest> {
        let digest = Digest { model: Arc::clone(&target.name), session: claim.session, ..digest };
        Arc::new(digest.from_site(claim.site))
    }
}

/// When to look again at nodes that a person has shut off.
const REST: Duration = Duration::from_secs(5);
/// And at nodes that have all that they may have.
const FULL_REST: Duration = Duration::from_secs(1);

/// What strategies see of nodes.
pub(super) fn candidates(nodes: &[(Arc<Node>, Pair)], model: &str, now: Instant) -> Vec<Candidate> {
    let share = |node: &Node, pair: &Pair| pair.share(now) * node.health(|health| health.share());
    nodes.iter().map(|(node, pair)| candidate(node, model, share(node, pair), now)).collect()
}

/// There may be a thousand of them for every request, so nothing is allocated here.
fn candidate(node: &Node, model: &str, share: f64, now: Instant) -> Candidate {
    let (load, standing) = (node.load(), &node.standing);
    let mut candidate = Candidate {
        incarnation: node.incarnation,
        in_flight: load.exchanges,
        tokens_in_flight: load.tokens,
        tokens_unread: load.unread,
        weight: standing.weight,
        slow_start: share as f32,
        tier: standing.tier,
        site: standing.site,
        cost: standing.cost,
        ..Candidate::new(Arc::clone(&node.name), node.parallel)
    };
    node.signal(now, |signal| {
        candidate.keeps = signal.keeps;
        candidate.signals = Signals {
            cpu: signal.cpu.map(|part| part as f32),
            // Told in bytes, of which nobody knows how many there are.
            memory: None,
            kv: signal.kv.map(|part| part as f32),
            queue: signal.queue.map(|count| count as f32),
        };
        if is_absent(node, model, signal.resident.as_deref()) {
            candidate.residency = Residency::Loads(LOAD);
        }
    });
    candidate
}

/// Whether a node that says what it has in memory does not have this model there.
pub(super) fn is_absent(node: &Node, model: &str, resident: Option<&[Resident]>) -> bool {
    let is_there = |theirs: &str, it: &Resident| it.name == theirs || is_same(theirs, &it.name);
    resident
        .is_some_and(|resident| !node.named(model, |theirs| resident.iter().any(|it| is_there(theirs, it))))
}

impl Choice {
    /// Counts the exchange on its node, until it is dropped.
    pub(super) fn enter(&self) -> crate::node::InFlight {
        let (tokens, unread) = self.decided.as_ref().map_or((0, 0), |decided| {
            let digest = &decided.digest;
            let tokens = u64::from(digest.prompt_tokens) + u64::from(digest.expected_tokens);
            (tokens, decided.pick.unread(digest))
        });
        self.node.enter(tokens, unread)
    }

    /// The first event has come.
    pub(super) fn answered(&mut self) {
        if self.first.is_some() {
            return;
        }
        let (after, now) = (self.sent.elapsed(), Instant::now());
        self.first = Some(after);
        self.passage.answered(after, now);
        self.node.answered(&self.model, after, now);
        if let Some(decided) = &mut self.decided {
            if let Some(expected) = decided.pick.expected {
                let errors = &decided.metrics.prediction_error;
                let errors = errors.with_label_values(&[decided.pick.strategy.as_str()]);
                errors.observe(expected.abs_diff(after).as_secs_f64());
            }
            decided.tell(&Outcome::FirstToken { after }, now);
        }
    }

    /// The node has answered, with so many tokens.
    pub(super) fn succeed(mut self, tokens: u64) {
        self.answered();
        let (after, now) = (self.sent.elapsed(), Instant::now());
        let ttft = self.first.unwrap_or(after);
        if let Some(mut decided) = self.decided.take() {
            decided.settle(&Outcome::Done { after, ttft, tokens }, now);
        }
        self.passage.succeed(now);
    }

    /// The node has failed, or refused.
    pub(super) fn fail(mut self, fault: &Fault) {
        let (after, now) = (self.sent.elapsed(), Instant::now());
        if let Some(mut decided) = self.decided.take() {
            decided.settle(&Outcome::Failed { after }, now);
        }
        self.passage.fail(fault, &self.node, now);
    }
}

impl Decided {
    fn tell(&mut self, outcome: &Outcome, now: Instant) {
        self.strategy.observe(&self.digest, &self.pick, outcome, now);
        self.decisions.settle(self.number, outcome);
    }

    fn settle(&mut self, outcome: &Outcome, now: Instant) {
        self.is_settled = true;
        self.tell(outcome, now);
    }
}

impl Drop for Decided {
    fn drop(&mut self) {
        if !self.is_settled {
            self.settle(&Outcome::Cancelled, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::node::Signal;
    use crate::node::protocol::Offer;

    #[test]
    fn a_candidate_is_what_is_known_of_its_node() {
        let config = json!({
            "name": "box", "url": "http://box", "protocol": "ollama", "zone": "z", "tier": 2, "weight": 3, "cost": 1.5
        });
        let node = Node::remote(&serde_json::from_value(config).unwrap()).unwrap();
        let now = Instant::now();
        let seen = || candidate(&node, "m", 0.5, now);
        let standing = Candidate { slow_start: 0.5, tier: 2, weight: 3.0, cost: Some(1.5), ..seen() };
        assert_eq!(seen(), standing);
        assert_eq!((standing.keeps, standing.signals), (None, Signals::default()));

        node.set_models(HashMap::from([("m".into(), Offer { name: "theirs".into(), ..Offer::default() })]));
        let tells = |name: &str| {
            let resident = Some(vec![Resident { name: name.into(), ..Resident::default() }]);
            let (kv, queue, keeps) = (Some(0.5), Some(3), Some(4096));
            node.set_signal(Signal { kv, queue, keeps, resident, at: Some(now), ..Signal::default() });
        };
        tells("another");
        assert_eq!(seen().residency, Residency::Loads(LOAD));
        tells("Theirs:latest");
        let signals = Signals { kv: Some(0.5), queue: Some(3.0), ..Signals::default() };
        let expected = Candidate { keeps: Some(4096), signals, ..standing };
        assert_eq!(seen(), expected);
    }
}
