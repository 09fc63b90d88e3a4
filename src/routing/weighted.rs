//! `weighted`: one node after the other, the heavier ones more often, and evenly spread (stride scheduling, Waldspurger and Weihl
//! 1995: what nginx calls smooth, without counting at every decision).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::per_node::PerNode;
use super::{Candidate, Digest, Order, Outcome, Pick, Row, Strategy, StrategyName};

/// Each node has a time at which its last request ends, if one takes it 1 / weight; the next one goes where it ends first.
#[derive(Default)]
pub(super) struct Weighted(Mutex<Times>);

#[derive(Default)]
struct Times {
    ends: PerNode<f64>,
    /// When the last request began.
    now: f64,
}

impl Weighted {
    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    /// When a further request would begin and end there.
    fn next(&self, candidate: &Candidate) -> (f64, f64) {
        let takes = 1.0 / f64::from((candidate.weight * candidate.slow_start).max(f32::MIN_POSITIVE));
        // Nobody who is there is later than by one request; who comes, or comes back, has no more turns than that to make up for.
        let earliest = self.now - takes;
        let begin = self.ends.get(candidate.id).map_or(earliest, |end| end.max(earliest));
        (begin, begin + takes)
    }
}

impl Strategy for Weighted {
    fn rank(&self, _: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::Weighted);
        let times = self.lock();
        for candidate in candidates {
            // A difference, for times grow beyond what a single has digits for.
            order.push(Row::new(0, (times.next(candidate).1 - times.now) as f32));
        }
    }

    fn observe(&self, _: &Digest, pick: &Pick, outcome: &Outcome, _: Instant) {
        if *outcome == Outcome::Sent {
            let mut times = self.lock();
            let (begin, end) = times.next(&pick.candidate);
            times.now = times.now.max(begin);
            *times.ends.touch(pick.candidate.id) = end;
        }
    }
}
