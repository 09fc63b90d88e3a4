//! [`Line`]: who is next among those that wait: the most urgent, then whoever suits best, then the oldest; and now and then the
//! oldest of all, so that nobody waits for ever.

use std::collections::VecDeque;

/// After so many that were let past the oldest it is the oldest's turn, whatever it is: it bounds every wait, and costs the
/// urgent one place in seventeen.
const MOST_PASSED: usize = 16;

/// A place in a [`Line`]; less is earlier. Whoever comes back keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn<P> {
    /// How urgent, less is earlier.
    pub priority: P,
    /// Counts those that came before.
    age: u64,
}

impl<P> Turn<P> {
    /// How many came before.
    pub fn age(&self) -> u64 {
        self.age
    }
}

/// Those that wait. One that is taken while `n` older ones wait has waited through at most `17 (n + 1)` takings.
#[derive(Debug)]
pub struct Line<P, T> {
    /// The oldest first.
    waiting: VecDeque<(Turn<P>, T)>,
    /// Counts all that ever came.
    came: u64,
    /// How many were taken since the oldest was.
    passed: usize,
}

impl<P, T> Default for Line<P, T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), came: 0, passed: 0 }
    }
}

impl<P: Ord + Copy, T> Line<P, T> {
    /// Joins at the end.
    pub fn push(&mut self, priority: P, item: T) {
        self.waiting.push_back((Turn { priority, age: self.came }, item));
        self.came += 1;
    }

    /// Comes back to where it was.
    pub fn put_back(&mut self, turn: Turn<P>, item: T) {
        let behind = self.waiting.partition_point(|(other, _)| other.age < turn.age);
        self.waiting.insert(behind, (turn, item));
    }

    /// Who is next; among the most urgent the one with the greatest `suits`, among equals the oldest.
    pub fn next<K: Ord>(&self, suits: impl Fn(&T) -> K) -> Option<(Next, &T)> {
        let index = if self.passed >= MOST_PASSED { 0 } else { self.best(suits)? };
        self.waiting.get(index).map(|(_, item)| (Next(index), item))
    }

    fn best<K: Ord>(&self, suits: impl Fn(&T) -> K) -> Option<usize> {
        let most_urgent = self.waiting.iter().map(|(turn, _)| turn.priority).min()?;
        let urgent = self.waiting.iter().enumerate().filter(|(_, (turn, _))| turn.priority == most_urgent);
        // Of equals `max_by_key` gives the last.
        urgent.rev().max_by_key(|(_, (_, item))| suits(item)).map(|(index, _)| index)
    }

    /// Takes who is next out of the line.
    pub fn take(&mut self, Next(index): Next) -> Option<(Turn<P>, T)> {
        self.passed = if index == 0 { 0 } else { self.passed + 1 };
        self.waiting.remove(index)
    }

    /// Keeps those of whom `stays` is true.
    pub fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        self.waiting.retain(|(_, item)| stays(item));
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends everybody away.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Who [`Line::next`] said is next; holds until the line changes.
#[derive(Clone, Copy, Debug)]
pub struct Next(usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take<T>(line: &mut Line<i32, T>) -> Option<T> {
        let next = line.next(|_| ())?.0;
        line.take(next).map(|(_, item)| item)
    }

    #[test]
    fn the_urgent_go_first_and_among_equals_the_oldest() {
        let mut line = Line::default();
        for (priority, name) in [(1, "d"), (0, "b"), (0, "c"), (-1, "a")] {
            line.push(priority, name);
        }
        assert_eq!(std::iter::from_fn(|| take(&mut line)).collect::<String>(), "abcd");
    }

    #[test]
    fn among_the_most_urgent_the_one_that_suits_best_goes_first() {
        let mut line = Line::default();
        [(0, 1), (0, 5), (0, 5), (1, 9)].into_iter().for_each(|(priority, suits)| line.push(priority, suits));
        let (next, _) = line.next(|suits| *suits).unwrap();
        let (turn, suits) = line.take(next).unwrap();
        assert_eq!((turn, suits), (Turn { priority: 0, age: 1 }, 5));
    }

    #[test]
    fn who_comes_back_is_as_old_as_before() {
        let mut line = Line::default();
        ["a", "b", "c"].into_iter().for_each(|name| line.push(0, name));
        let (turn, a) = line.take(Next(0)).unwrap();
        line.push(0, "d");
        line.put_back(turn, a);
        assert_eq!(std::iter::from_fn(|| take(&mut line)).collect::<String>(), "abcd");
    }

    proptest! {
        /// Arrivals (priority, how well it suits) and takings in any order; then all that are left are taken.
        #[test]
        fn nobody_waits_for_ever(steps in prop::collection::vec(prop::option::weighted(0.6, (-2..3i32, 0..4u8)), 1..400)) {
            let mut line = Line::default();
            // When the item came, and how many were there: takings and length.
            let (mut takings, mut waiting) = (0, 0);
            let drained = steps.len();
            for step in steps.into_iter().chain(std::iter::repeat_n(None, drained)) {
                match step {
                    Some((priority, suits)) => {
                        line.push(priority, (suits, takings, waiting));
                        waiting += 1;
                    }
                    None if line.is_empty() => {}
                    None => {
                        let (next, _) = line.next(|(suits, ..)| *suits).unwrap();
                        let (_, (_, came, ahead)) = line.take(next).unwrap();
                        let bound = (MOST_PASSED + 1) * (ahead + 1);
                        prop_assert!(takings - came < bound, "{} takings behind {ahead}", takings - came);
                        takings += 1;
                        waiting -= 1;
                    }
                }
            }
            prop_assert!(line.is_empty());
        }
    }
}
