//! `prefix_affinity`: the node that has read most of the prompt before, unless that has much more to do than others.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::{PrefixIndexConfig, number};
use super::least_loaded::by_load;
use super::prefix_index::PrefixIndex;
use super::{Candidate, Digest, Order, Outcome, Pick, Reason, Row, Strategy, StrategyName};

/// When memory counts and when load does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixAffinityConfig {
    /// A node that has less than this part of a prompt is as good as one that has nothing of it.
    pub threshold: f64,
    /// A node with more in use than the least busy one has, by this part of its places...
    pub balance_abs: f64,
    /// ...and by this factor comes after all others.
    pub balance_rel: f64,
}

impl Default for PrefixAffinityConfig {
    fn default() -> Self {
        Self { threshold: 0.3, balance_abs: 0.5, balance_rel: 1.5 }
    }
}

impl PrefixAffinityConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let threshold = number("threshold", self.threshold, 0.0..=1.0);
        let absolute = number("balance_abs", self.balance_abs, 0.0..=1000.0);
        let relative = number("balance_rel", self.balance_rel, 1.0..=1000.0);
        [threshold, absolute, relative].into_iter().flatten().collect()
    }
}

/// The rules of SGLang's cache-aware policy, with two differences that its users ask for: a node that is too busy is left behind alone,
/// so the others keep their prompts; and what nobody has goes by load, not to the node that remembers least.
pub(super) struct PrefixAffinity {
    config: PrefixAffinityConfig,
    index: Mutex<PrefixIndex>,
}

impl PrefixAffinity {
    pub(super) fn new(config: PrefixAffinityConfig, index: PrefixIndexConfig) -> Self {
        Self { config, index: Mutex::new(PrefixIndex::new(index.memory)) }
    }

    fn index(&self) -> std::sync::MutexGuard<'_, PrefixIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strategy for PrefixAffinity {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::PrefixAffinity);
        let least = candidates.iter().map(Candidate::usage).fold(f32::INFINITY, f32::min);
        let (rel, abs) = (self.config.balance_rel as f32, self.config.balance_abs as f32);
        let mut index = self.index();
        index.look(&digest.prefix);
        let (mut overloaded, mut is_matched) = (0, false);
        for (place, candidate) in candidates.iter().enumerate() {
            let share = index.share(place, candidate);
            let usage = candidate.usage();
            let is_over = usage > least + abs && usage > least * rel;
            let is_match = share > 0.0 && share >= self.config.threshold as f32;
            overloaded += usize::from(is_over);
            is_matched |= is_match && !is_over;
            order.push(
                row(candidate, share, is_match, is_over)
                    .reusing((share * digest.prompt_tokens as f32) as u32),
            );
        }
        if !is_matched {
            order.note(Reason::NoMatch);
        }
        if overloaded > 0 {
            order.note(Reason::Overloaded(overloaded));
        }
    }

    fn observe(&self, digest: &Digest, pick: &Pick, outcome: &Outcome, _: Instant) {
        if *outcome == Outcome::Sent {
            self.index().learn(&digest.prefix, &pick.candidate, pick.unread(digest));
        }
    }
}

/// Groups: matches (the more the better, then by load), the rest by load, then those that are too busy.
fn row(candidate: &Candidate, share: f32, is_match: bool, is_over: bool) -> Row {
    let by_load = by_load(candidate);
    if is_over {
        return by_load.behind(3);
    }
    if !is_match {
        return by_load.behind(1);
    }
    // Below 1, so that it decides only between equal shares: of a hundredth.
    let load = by_load.score / (1.0 + by_load.score);
    Row::new(0, load - (share * 100.0).round())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{best_for, send};
    use super::*;

    fn strategy() -> PrefixAffinity {
        PrefixAffinity::new(PrefixAffinityConfig::default(), PrefixIndexConfig { memory: 1 << 20 })
    }

    fn digest(text: &str, end: &str) -> Digest {
        Digest::of_bytes("m", (text.repeat(2000) + end).as_bytes())
    }

    fn nodes(in_flight: [usize; 3]) -> Vec<Candidate> {
        let node = |(i, in_flight)| Candidate { in_flight, ..Candidate::new(format!("n{i}"), 4) };
        in_flight.into_iter().enumerate().map(node).collect()
    }

    #[test]
    fn who_has_read_it_gets_it_and_others_get_the_rest() {
        let strategy = strategy();
        send(&strategy, &digest("a", "1"), &nodes([0, 0, 0]), 1);
        assert_eq!(best_for(&strategy, &digest("a", "2"), &nodes([0, 2, 0])), Some(1));
        assert_eq!(best_for(&strategy, &digest("b", "2"), &nodes([1, 0, 1])), Some(1));
        assert_eq!(best_for(&strategy, &digest("b", "2"), &nodes([0, 1, 1])), Some(0));
    }

    #[test]
    fn a_node_that_is_too_busy_is_left_behind_and_the_others_keep_theirs() {
        let strategy = strategy();
        send(&strategy, &digest("a", "1"), &nodes([0, 0, 0]), 0);
        send(&strategy, &digest("a", "1"), &nodes([0, 0, 0]), 1);
        assert_eq!(best_for(&strategy, &digest("a", "2"), &nodes([4, 1, 0])), Some(1));
        assert_eq!(best_for(&strategy, &digest("a", "2"), &nodes([4, 4, 0])), Some(2));
        let mut order = Order::default();
        strategy.rank(&digest("a", "2"), &nodes([4, 1, 0]), Instant::now(), &mut order);
        assert_eq!(order.reasons(), [Reason::Overloaded(1)]);
        assert!(order.rows()[0].reuse > 400 && order.rows()[2].reuse == 0);
    }

    #[test]
    fn a_little_in_common_is_nothing() {
        let strategy = strategy();
        let long = |end: &str| Digest::of_bytes("m", ("a".repeat(512) + &end.repeat(2000)).as_bytes());
        send(&strategy, &long("b"), &nodes([0, 0, 0]), 2);
        assert_eq!(best_for(&strategy, &long("c"), &nodes([0, 0, 0])), Some(0));
    }
}
