//! `priority`: nodes of a lower tier first; the next tier gets what the ones before it have no room for.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::number;
use super::{Candidate, Digest, Order, Outcome, Pick, Reason, Strategy, StrategyName};

/// When a tier is full, and who decides within it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriorityConfig {
    /// The strategy within a tier.
    pub within: StrategyName,
    /// Part of a node's places that is used before the next tier is.
    pub spill: f64,
}

impl Default for PriorityConfig {
    fn default() -> Self {
        Self { within: StrategyName::LeastLoaded, spill: 1.0 }
    }
}

impl PriorityConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let itself = self.within == StrategyName::Priority;
        let within = itself.then(|| ("within", "expected another strategy than priority".to_owned()));
        number("spill", self.spill, 0.01..=1000.0).into_iter().chain(within).collect()
    }
}

/// Another strategy's order, by tiers. Its groups and scores decide within a tier, and among all nodes once none has room.
pub(super) struct Priority {
    pub within: Box<dyn Strategy>,
    pub spill: f32,
}

impl Priority {
    fn has_room(&self, candidate: &Candidate) -> bool {
        candidate.usage() < self.spill
    }
}

impl Strategy for Priority {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], now: Instant, order: &mut Order) {
        self.within.rank(digest, candidates, now, order);
        order.adopt(StrategyName::Priority);
        let with_room = candidates.iter().filter(|candidate| self.has_room(candidate));
        let Some(first) = with_room.map(|candidate| candidate.tier).min() else { return };
        order.note(Reason::Tier(first));
        for (row, candidate) in order.rows_mut().iter_mut().zip(candidates) {
            // No strategy has more than eight groups, and what is behind the first tier is all the same until that is tried.
            let tier = (candidate.tier - first.min(candidate.tier)).min(30);
            row.group = row.group.min(7) + 8 * if self.has_room(candidate) { tier } else { 31 };
        }
    }

    fn observe(&self, digest: &Digest, pick: &Pick, outcome: &Outcome, now: Instant) {
        self.within.observe(digest, pick, outcome, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::least_loaded::LeastLoaded;
    use super::super::tests::best;
    use super::*;

    fn node(tier: u8, in_flight: usize) -> Candidate {
        Candidate { tier, in_flight, ..Candidate::new("n", 4) }
    }

    #[test]
    fn a_tier_is_used_until_it_is_full_and_when_all_are_the_other_strategy_decides() {
        let strategy = Priority { within: Box::new(LeastLoaded), spill: 0.75 };
        for (nodes, expected) in [
            ([node(1, 0), node(0, 2), node(0, 1)], 2),
            ([node(1, 0), node(0, 2), node(0, 3)], 1),
            ([node(1, 0), node(0, 3), node(0, 3)], 0),
            ([node(1, 3), node(0, 4), node(0, 4)], 0),
            ([node(9, 1), node(200, 0), node(3, 4)], 0),
            ([node(200, 1), node(200, 0), node(3, 4)], 1),
        ] {
            assert_eq!(best(&strategy, &nodes), Some(expected), "{nodes:?}");
        }
    }
}
