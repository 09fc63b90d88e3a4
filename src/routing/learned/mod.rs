//! `learned`: the node that is predicted to answer first, by an online regression per node.
//!
//! Until predictions have been right for long enough, and whenever they stop being so, it goes by load.

mod node;
mod rls;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::{PrefixIndexConfig, number};
use super::draw::Dice;
use super::least_loaded::by_load;
use super::per_node::PerNode;
use super::prefix_index::PrefixIndex;
use super::{Candidate, Digest, Order, Outcome, Pick, Reason, Row, Strategy, StrategyName};
use crate::units::range;
use node::{Node, Terms, features};

/// What is minimized, and when predictions are trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearnedConfig {
    /// What is to be short.
    pub minimize: Minimize,
    /// Part of the requests that go to the node that was not heard of for the longest time.
    pub explore: f64,
    /// Answers of a node after which its predictions may be trusted.
    pub samples: u32,
    /// They are while they are off by no more than this part of what they predict, on average.
    pub max_error: f64,
    /// What an answer counts beside the one after it.
    pub forget: f64,
}

impl Default for LearnedConfig {
    fn default() -> Self {
        Self { minimize: Minimize::Ttft, explore: 0.01, samples: 20, max_error: 0.5, forget: 0.995 }
    }
}

/// What is to be short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Minimize {
    /// The time to the first token.
    #[default]
    Ttft,
    /// The time to the last one.
    Total,
}

impl LearnedConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let samples = range::fault(self.samples.into(), 1..=1_000_000).map(|message| ("samples", message));
        let explore = number("explore", self.explore, 0.0..=1.0);
        let error = number("max_error", self.max_error, 0.01..=10.0);
        let forget = number("forget", self.forget, 0.5..=1.0);
        [explore, samples, error, forget].into_iter().flatten().collect()
    }
}

/// A node with so many requests per place comes last, whatever is predicted. A prediction that is wrong for the better draws requests until
/// the first of them is answered, which is not soon then.
const MOST_USAGE: f32 = 2.0;
/// However many wait, how long is not known.
const MOST_PRESSURE: f32 = 8.0;

/// See the module.
pub(super) struct Learned {
    config: LearnedConfig,
    terms: Terms,
    dice: Dice,
    state: Mutex<State>,
}

struct State {
    index: PrefixIndex,
    nodes: PerNode<Node>,
    /// All nodes as one: what is predicted of those that too little is known of.
    pool: Node,
}

impl Learned {
    pub(super) fn new(config: LearnedConfig, index: PrefixIndexConfig, dice: Dice) -> Self {
        let terms =
            Terms { samples: config.samples, max_error: config.max_error as f32, forget: config.forget };
        let state =
            State { index: PrefixIndex::new(index.memory), nodes: PerNode::default(), pool: Node::default() };
        Self { config, terms, dice, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of a candidate by prediction, and whether that is trusted.
    fn predicted(
        &self,
        state: &mut State,
        digest: &Digest,
        (place, candidate): (usize, &Candidate),
    ) -> (Row, bool) {
        let share = state.index.share(place, candidate);
        let reuse = (share * digest.prompt_tokens as f32) as u32;
        // What too little is known of is taken for a node like the others.
        let own = state.nodes.at(place, candidate.id).filter(|node| node.is_mature());
        let node = own.unwrap_or(&state.pool);
        let features = features(digest, candidate, reuse);
        let ttft = node.ttft(&features) + candidate.load_seconds();
        let rest = match self.config.minimize {
            Minimize::Ttft => 0.0,
            Minimize::Total => node.pace(candidate) * digest.expected_tokens as f32,
        };
        // Whoever recovers is not to get more than it may, however fast it is, and nobody more than was ever observed.
        let most = if candidate.slow_start < 1.0 { 1.0 } else { MOST_USAGE };
        let group = u8::from(candidate.usage() >= most);
        let others = node.own(digest, candidate, reuse) * pressure(candidate);
        let row =
            Row::new(group, ttft + rest + others).reusing(reuse).expecting(ttft, 1.0 - node.relative_error());
        (row, node.is_trusted())
    }

    /// Puts the candidate first that was sent nothing for the longest time, of those that have room and the model.
    fn explore(state: &State, candidates: &[Candidate], order: &mut Order) {
        let may = |candidate: &Candidate| candidate.has_room() && candidate.load_time().is_zero();
        let with_room = candidates.iter().enumerate().filter(|(_, candidate)| may(candidate));
        let last = |candidate: &Candidate| state.nodes.get(candidate.id).and_then(|node| node.last);
        let Some((oldest, _)) = with_room.min_by_key(|(_, candidate)| last(candidate)) else { return };
        for (index, row) in order.rows_mut().iter_mut().enumerate() {
            row.group += u8::from(index != oldest);
        }
        order.note(Reason::Explored);
    }
}

/// What a second of reading on a node costs others: next to nothing while it has room, and the more the less room it has, for then it
/// delays all who come until it has (as the wait in a queue does, by use over idleness).
fn pressure(candidate: &Candidate) -> f32 {
    let used = candidate.usage();
    used / (1.0 - used).max(1.0 / MOST_PRESSURE)
}

impl Strategy for Learned {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::Learned);
        let mut state = self.lock();
        state.index.look(&digest.prefix);
        let mut known = 0;
        for candidate in candidates.iter().enumerate() {
            let (row, is_known) = self.predicted(&mut state, digest, candidate);
            known += usize::from(is_known);
            order.push(row);
        }
        if known * 2 < candidates.len() {
            order.note(Reason::Untrusted(known, candidates.len()));
            for (row, candidate) in order.rows_mut().iter_mut().zip(candidates) {
                let Row { group, score, .. } = by_load(candidate);
                (row.group, row.score) = (group, score);
            }
        } else if self.dice.fraction() < self.config.explore as f32 {
            Self::explore(&state, candidates, order);
        }
    }

    fn observe(&self, digest: &Digest, pick: &Pick, outcome: &Outcome, now: Instant) {
        let candidate = &pick.candidate;
        let features = features(digest, candidate, pick.reuse);
        let State { index, nodes, pool } = &mut *self.lock();
        match outcome {
            Outcome::Sent => {
                index.learn(&digest.prefix, candidate, pick.unread(digest));
                nodes.touch(candidate.id).last = Some(now);
            }
            Outcome::FirstToken { after } => {
                let seconds = after.saturating_sub(candidate.load_time()).as_secs_f32();
                nodes.touch(candidate.id).observe_ttft(&features, seconds, self.terms);
                pool.observe_ttft(&features, seconds, self.terms);
            }
            Outcome::Done { after, ttft, tokens } if *tokens > 1 => {
                let seconds = after.saturating_sub(*ttft).as_secs_f32() / (*tokens - 1) as f32;
                nodes.touch(candidate.id).observe_pace(candidate, seconds, self.terms.forget);
                pool.observe_pace(candidate, seconds, self.terms.forget);
            }
            Outcome::Done { .. } | Outcome::Failed { .. } | Outcome::Cancelled => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{best_for, pick, send};
    use super::*;

    /// Requests of all sizes to each node, busy and not, which answers at its own rate in tokens per second.
    fn teach(strategy: &Learned, nodes: &[(Candidate, f32)], answers: u32) {
        let now = Instant::now();
        for round in 0..answers {
            for (node, rate) in nodes {
                let digest = Digest { prompt_tokens: 100 + round * 37 % 1900, ..Digest::default() };
                let tokens_unread = super::super::draw::mix(round.into()) % 3000;
                let node = Candidate { tokens_unread, in_flight: round as usize % 4, ..node.clone() };
                let tokens = u64::from(digest.prompt_tokens) + tokens_unread;
                let after = Duration::from_secs_f32(0.05 + tokens as f32 / rate);
                strategy.observe(&digest, &pick(&node), &Outcome::FirstToken { after }, now);
            }
        }
    }

    fn learned(config: LearnedConfig) -> Learned {
        Learned::new(config, PrefixIndexConfig { memory: 1 << 20 }, Dice::new(1))
    }

    fn never_exploring() -> Learned {
        learned(LearnedConfig { explore: 0.0, ..LearnedConfig::default() })
    }

    fn prompt(tokens: u32) -> Digest {
        Digest { prompt_tokens: tokens, ..Digest::default() }
    }

    fn order(strategy: &Learned, digest: &Digest, nodes: &[Candidate]) -> Order {
        let mut order = Order::default();
        strategy.rank(digest, nodes, Instant::now(), &mut order);
        order
    }

    #[test]
    fn load_decides_until_the_predictions_are_right_and_then_the_prediction() {
        let strategy = never_exploring();
        let slow = Candidate::new("slow", 4);
        let fast = Candidate { in_flight: 1, ..Candidate::new("fast", 4) };
        let nodes = [slow.clone(), fast.clone()];
        let mut before = order(&strategy, &prompt(1000), &nodes);
        assert_eq!((before.take(), before.reasons()), (Some(0), &[Reason::Untrusted(0, 2)][..]));
        teach(&strategy, &[(slow, 500.0), (fast, 2000.0)], 40);
        let mut after = order(&strategy, &prompt(1000), &nodes);
        assert_eq!((after.take(), after.reasons()), (Some(1), &[][..]));
        let expected = after.rows()[1].expected().unwrap().as_secs_f32();
        assert!((0.45..0.65).contains(&expected), "{expected}");
        assert!(after.rows()[1].confidence > 0.8);
    }

    #[test]
    fn predictions_that_go_wrong_are_trusted_no_more() {
        let strategy = never_exploring();
        let nodes = [Candidate::new("a", 4), Candidate::new("b", 4)];
        let at = |rate: f32| nodes.clone().map(|node| (node, rate));
        teach(&strategy, &at(2000.0), 40);
        assert_eq!(order(&strategy, &prompt(9), &nodes).reasons(), []);
        let now = Instant::now();
        for round in 0..100_u64 {
            // As long as chance wants.
            let is_slow = super::super::draw::mix(round).is_multiple_of(4);
            let after = Duration::from_millis(if is_slow { 16_000 } else { 100 });
            for node in &nodes {
                strategy.observe(&prompt(1000), &pick(node), &Outcome::FirstToken { after }, now);
            }
        }
        assert_eq!(order(&strategy, &prompt(9), &nodes).reasons(), [Reason::Untrusted(0, 2)]);
    }

    #[test]
    fn what_has_to_be_loaded_first_takes_that_much_longer() {
        let strategy = never_exploring();
        let here = Candidate { in_flight: 3, ..Candidate::new("here", 4) };
        let cold = Candidate {
            residency: super::super::Residency::Loads(Duration::from_secs(5)),
            ..Candidate::new("cold", 4)
        };
        teach(&strategy, &[(here.clone(), 1000.0), (Candidate::new("cold", 4), 4000.0)], 40);
        assert_eq!(best_for(&strategy, &prompt(1000), &[here, cold]), Some(0));
    }

    #[test]
    fn a_newcomer_is_taken_for_one_like_the_others_and_looked_at_now_and_then() {
        let strategy = learned(LearnedConfig { explore: 0.1, ..LearnedConfig::default() });
        let known = [Candidate::new("a", 4), Candidate::new("b", 4)];
        teach(&strategy, &known.clone().map(|node| (node, 1000.0)), 40);
        // It has more to do, so nothing but curiosity leads there.
        let new = Candidate { in_flight: 2, tokens_unread: 9000, ..Candidate::new("new", 4) };
        let nodes = [known[0].clone(), known[1].clone(), new];
        (0..2).for_each(|index| send(&strategy, &prompt(500), &nodes, index));
        let chosen = (0..1000).filter(|_| best_for(&strategy, &prompt(500), &nodes) == Some(2)).count();
        assert!((50..200).contains(&chosen), "{chosen}");
    }
}
