//! `round_robin`: one node after the other, by Pingora's own algorithm.

use pingora_load_balancing::selection::SelectionAlgorithm;
use pingora_load_balancing::selection::algorithms::RoundRobin as Counter;

use super::{Candidate, Strategy};

/// Counts requests and takes the remainder.
pub(super) struct RoundRobin(Counter);

impl Default for RoundRobin {
    fn default() -> Self {
        Self(Counter::new())
    }
}

impl Strategy for RoundRobin {
    fn choose(&self, candidates: &[Candidate]) -> Option<usize> {
        let turn = usize::try_from(self.0.next(&[])).unwrap_or_default();
        turn.checked_rem(candidates.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_has_its_turn() {
        let candidates: Vec<_> = (0..3)
            .map(|i| Candidate { name: format!("n{i}").into(), in_flight: 9 - i, parallel: 1 })
            .collect();
        let strategy = RoundRobin::default();
        let mut seen: Vec<_> = (0..6).filter_map(|_| strategy.choose(&candidates)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1, 2, 2]);
        assert_eq!(strategy.choose(&[]), None);
    }
}
