//! `power_of_two`: of two nodes drawn at random the one with less to do (Mitzenmacher 2001). Several proxies that do not know of each
//! other do not all choose the same node.

use std::time::Instant;

use super::draw::Dice;
use super::least_loaded::by_load;
use super::{Candidate, Digest, Order, Strategy, StrategyName};

/// Those that were not drawn follow, by load.
pub(super) struct PowerOfTwo(pub Dice);

impl PowerOfTwo {
    /// Two different numbers below `count`, or the only one twice.
    fn two(&self, count: usize) -> (usize, usize) {
        let draw = |below: usize| ((self.0.fraction() * below as f32) as usize).min(below.saturating_sub(1));
        let first = draw(count);
        let second = draw(count.saturating_sub(1));
        (first, if second >= first && count > 1 { second + 1 } else { second })
    }
}

impl Strategy for PowerOfTwo {
    fn rank(&self, _: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::PowerOfTwo);
        let (first, second) = self.two(candidates.len());
        for (index, candidate) in candidates.iter().enumerate() {
            let row = by_load(candidate);
            let is_drawn = index == first || index == second;
            order.push(if is_drawn { row } else { row.behind(2) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::best;
    use super::*;

    #[test]
    fn two_differ_unless_there_is_only_one() {
        let strategy = PowerOfTwo(Dice::new(1));
        for count in 2..5 {
            for _ in 0..500 {
                let (a, b) = strategy.two(count);
                assert!(a != b && a < count && b < count, "{a} {b} of {count}");
            }
        }
        assert_eq!((strategy.two(1), strategy.two(0)), ((0, 0), (0, 0)));
    }

    #[test]
    fn the_worst_node_is_never_chosen_and_the_best_about_as_often_as_it_is_drawn() {
        let nodes: Vec<_> =
            (0..4).map(|i| Candidate { in_flight: i, ..Candidate::new(format!("n{i}"), 8) }).collect();
        let strategy = PowerOfTwo(Dice::new(2));
        let mut chosen = [0; 4];
        (0..4000).for_each(|_| chosen[best(&strategy, &nodes).unwrap()] += 1);
        assert_eq!(chosen[3], 0);
        assert!((1800..2200).contains(&chosen[0]), "{chosen:?}");
    }
}
