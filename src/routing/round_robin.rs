//! `round_robin`: one node after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{Candidate, Digest, Order, Outcome, Pick, Row, Strategy, StrategyName};

/// Counts what was sent and takes the remainder. Pingora's counter cannot be asked without counting, so it is not used. Two requests
/// that ask before either is sent get the same node; on average that is nobody's advantage.
#[derive(Default)]
pub(super) struct RoundRobin(AtomicUsize);

impl Strategy for RoundRobin {
    fn rank(&self, _: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::RoundRobin);
        let count = candidates.len();
        let first = self.0.load(Ordering::Relaxed).checked_rem(count).unwrap_or_default();
        (0..count).for_each(|index| {
            let turns = if index < first { index + count - first } else { index - first };
            order.push(Row::new(0, turns as f32));
        });
    }

    fn observe(&self, _: &Digest, _: &Pick, outcome: &Outcome, _: Instant) {
        if *outcome == Outcome::Sent {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
