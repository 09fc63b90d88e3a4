//! `session_affinity`: the requests of a session go to the same node, unless that has too much to do.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::number;
use super::draw::race;
use super::least_loaded::by_load;
use super::{Candidate, Digest, Order, Reason, Row, Strategy, StrategyName};

/// How even the load has to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionAffinityConfig {
    /// Requests that a node gets at most, as a multiple of its share of all of them.
    pub bound: f64,
}

impl Default for SessionAffinityConfig {
    fn default() -> Self {
        Self { bound: 1.25 }
    }
}

impl SessionAffinityConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        number("bound", self.bound, 1.0..=1000.0).into_iter().collect()
    }
}

/// Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018): a session's nodes have an order, and the first that
/// is below its bound gets the request. The order is that of rendezvous hashing rather than of Pingora's ring: as few sessions
/// move when nodes come and go, weights are exact, and there is no ring to be built anew each time a breaker opens.
///
/// A request without a session is one with those that begin alike, and without a prompt it goes by load.
pub(super) struct SessionAffinity(pub SessionAffinityConfig);

impl Strategy for SessionAffinity {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::SessionAffinity);
        let Some(session) = digest.session.or_else(|| digest.prefix.hashes().first().copied()) else {
            order.note(Reason::NoSession);
            candidates.iter().for_each(|candidate| order.push(by_load(candidate)));
            return;
        };
        // With this request, so that there is always one below its bound.
        let requests = 1 + candidates.iter().map(|candidate| candidate.in_flight).sum::<usize>();
        let capacity = candidates.iter().map(capacity).sum::<f32>();
        let mut overloaded = 0;
        for candidate in candidates {
            let share = requests as f32 * capacity_share(candidate, capacity);
            let is_over = candidate.in_flight as f32 >= (share * self.0.bound as f32).ceil();
            overloaded += usize::from(is_over);
            order.push(Row::new(u8::from(is_over), race(session, candidate)));
        }
        if overloaded > 0 {
            order.note(Reason::Overloaded(overloaded));
        }
    }
}

/// What a node's share of all requests is in proportion to.
fn capacity(candidate: &Candidate) -> f32 {
    candidate.places() * candidate.weight
}

fn capacity_share(candidate: &Candidate, all: f32) -> f32 {
    capacity(candidate) / all.max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::super::tests::{best, best_for};
    use super::*;

    fn strategy() -> SessionAffinity {
        SessionAffinity(SessionAffinityConfig::default())
    }

    fn session(key: u32) -> Digest {
        Digest::default().in_session(&key.to_le_bytes())
    }

    #[test]
    fn without_a_session_the_beginning_of_the_prompt_is_one() {
        let nodes: Vec<_> = (0..8).map(|i| Candidate::new(format!("n{i}"), 4)).collect();
        let text = |end: &str| Digest::of_bytes("m", ("a".repeat(256) + end).as_bytes());
        assert_eq!(best_for(&strategy(), &text("b"), &nodes), best_for(&strategy(), &text("c"), &nodes));
        let busy = Candidate { in_flight: 1, ..Candidate::new("busy", 4) };
        assert_eq!(best(&strategy(), &[busy, Candidate::new("idle", 4)]), Some(1));
    }

    proptest! {
        #[test]
        fn no_node_gets_more_than_its_bound(keys in prop::collection::vec(0..5_u32, 1..200), parallel in prop::collection::vec(1..9_usize, 2..8)) {
            let mut nodes: Vec<_> = parallel.iter().enumerate().map(|(i, parallel)| Candidate::new(format!("n{i}"), *parallel)).collect();
            let all: usize = parallel.iter().sum();
            for (sent, key) in keys.into_iter().enumerate() {
                let index = best_for(&strategy(), &session(key), &nodes).unwrap();
                nodes[index].in_flight += 1;
                let share = (sent + 1) as f32 * parallel[index] as f32 / all as f32;
                prop_assert!(nodes[index].in_flight as f32 <= (share * 1.25 + 0.001).ceil());
            }
        }

        #[test]
        fn only_sessions_of_the_node_that_leaves_move(gone in 0..9_usize) {
            let mut nodes: Vec<_> = (0..9).map(|i| Candidate::new(format!("n{i}"), 4)).collect();
            let places = |nodes: &[Candidate]| (0..300).map(|key| nodes[best_for(&strategy(), &session(key), nodes).unwrap()].id).collect::<Vec<_>>();
            let before = places(&nodes);
            let left = nodes.remove(gone).id;
            let after = places(&nodes);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == left));
            let moved = before.iter().filter(|node| **node == left).count();
            prop_assert!((10..60).contains(&moved), "{} of 300 sessions were on one of nine nodes", moved);
        }
    }
}
