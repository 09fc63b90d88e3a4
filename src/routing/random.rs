//! `random`: drawn by weight.

use std::time::Instant;

use super::draw::{Dice, race};
use super::{Candidate, Digest, Order, Row, Strategy, StrategyName};

/// A race with a new key each time; the whole order is one of draws without returning.
pub(super) struct Random(pub Dice);

impl Strategy for Random {
    fn rank(&self, _: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::Random);
        let key = self.0.roll();
        candidates.iter().for_each(|candidate| order.push(Row::new(0, race(key, candidate))));
    }
}
