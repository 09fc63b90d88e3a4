//! `least_loaded`: the node with the least to do per place it has.

use std::time::Instant;

use super::{Candidate, Digest, Order, Row, Strategy, StrategyName};

/// By [`Candidate::load`], which counts tokens; a node without a free place comes after those that have one. The first of equals
/// wins, so that replicas fill in order and idle ones can be unloaded.
pub(super) struct LeastLoaded;

/// The row of a candidate that nothing else speaks for.
pub(super) fn by_load(candidate: &Candidate) -> Row {
    Row::new(u8::from(!candidate.has_room()), candidate.load())
}

impl Strategy for LeastLoaded {
    fn rank(&self, _: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::LeastLoaded);
        candidates.iter().for_each(|candidate| order.push(by_load(candidate)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::best;
    use super::*;

    fn candidate(in_flight: usize, parallel: usize, tokens: u64) -> Candidate {
        Candidate { in_flight, tokens_in_flight: tokens, ..Candidate::new("n", parallel) }
    }

    #[test]
    fn load_is_relative_to_places_and_counts_tokens() {
        assert_eq!(best(&LeastLoaded, &[candidate(2, 2, 0), candidate(3, 8, 0)]), Some(1));
        assert_eq!(best(&LeastLoaded, &[candidate(1, 4, 0), candidate(0, 1, 0)]), Some(1));
        assert_eq!(best(&LeastLoaded, &[candidate(1, 4, 8000), candidate(3, 4, 900)]), Some(1));
    }

    #[test]
    fn a_free_place_is_better_than_little_to_do() {
        assert_eq!(best(&LeastLoaded, &[candidate(2, 2, 10), candidate(1, 2, 9000)]), Some(1));
    }

    #[test]
    fn a_node_that_recovers_has_fewer_places() {
        let recovers = Candidate { slow_start: 0.25, ..candidate(1, 4, 0) };
        assert_eq!(best(&LeastLoaded, &[recovers, candidate(3, 4, 0)]), Some(1));
    }

    #[test]
    fn the_first_of_equals_wins_and_nothing_has_no_best() {
        assert_eq!(best(&LeastLoaded, &[candidate(0, 4, 0), candidate(0, 4, 0)]), Some(0));
        assert_eq!(best(&LeastLoaded, &[]), None);
    }
}
