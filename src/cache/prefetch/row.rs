//! [`Row`]: what came after a request, with counts that fade.

use std::time::{Duration, Instant};

use crate::generation::Key;

/// Successors that are counted apart; what comes more rarely than all of these is no prediction.
const MOST: usize = 8;
/// The least faded count of a prediction: once is no habit.
const LEAST: f64 = 1.5;

/// What came after a request.
#[derive(Clone, Debug)]
pub(super) struct Row {
    next: Vec<(Key, f64)>,
    /// All of them together, those that are not counted apart too.
    total: f64,
    /// When the counts were what they are.
    at: Instant,
}

impl Row {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: Vec::new(), total: 0.0, at: now }
    }

    /// Bytes, as many as it can take.
    pub(super) const SIZE: usize = size_of::<Self>() + MOST * size_of::<(Key, f64)>();

    /// `key` has come.
    pub(super) fn count(&mut self, key: Key, half_life: Duration, now: Instant) {
        let left = self.left(half_life, now);
        (self.total, self.at) = (self.total * left + 1.0, now);
        self.next.iter_mut().for_each(|(_, count)| *count *= left);
        match self.next.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1.0,
            None => {
                self.next.sort_by(|(_, one), (_, other)| other.total_cmp(one));
                self.next.truncate(MOST - 1);
                self.next.push((key, 1.0));
            }
        }
    }

    /// What comes with at least this probability, the likeliest first.
    pub(super) fn likely(&self, threshold: f64, half_life: Duration, now: Instant) -> Vec<Key> {
        let left = self.left(half_life, now);
        let is_likely = |count: f64| count >= threshold * self.total && count * left >= LEAST;
        let mut likely: Vec<_> = self.next.iter().filter(|(_, count)| is_likely(*count)).copied().collect();
        likely.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        likely.into_iter().map(|(key, _)| key).collect()
    }

    /// The part of the counts that is left by now.
    fn left(&self, half_life: Duration, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        (-age / half_life.as_secs_f64()).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(number: u8) -> Key {
        Key::from_bytes([number; 32])
    }

    #[test]
    fn what_comes_often_enough_is_likely() {
        let now = Instant::now();
        let mut row = Row::new(now);
        row.count(key(1), HOUR, now);
        assert_eq!(row.likely(0.5, HOUR, now), [], "once is no habit");
        row.count(key(1), HOUR, now);
        assert_eq!(row.likely(0.5, HOUR, now), [key(1)]);
        (0..3).for_each(|_| row.count(key(2), HOUR, now));
        assert_eq!(row.likely(0.5, HOUR, now), [key(2)]);
        assert_eq!(row.likely(0.4, HOUR, now), [key(2), key(1)]);
    }

    #[test]
    fn habits_fade() {
        let now = Instant::now();
        let mut row = Row::new(now);
        (0..4).for_each(|_| row.count(key(1), HOUR, now));
        assert_eq!(row.likely(0.5, HOUR, now + HOUR), [key(1)]);
        assert_eq!(row.likely(0.5, HOUR, now + 2 * HOUR), []);
        (0..3).for_each(|_| row.count(key(2), HOUR, now + 2 * HOUR));
        assert_eq!(row.likely(0.5, HOUR, now + 2 * HOUR), [key(2)], "four of two hours ago are one of now");
    }

    #[test]
    fn many_successors_are_no_habit() {
        let now = Instant::now();
        let mut row = Row::new(now);
        for number in 0..100 {
            row.count(key(number), HOUR, now);
        }
        assert!(row.next.len() <= MOST && row.likely(0.01, HOUR, now).is_empty());
        (0..2).for_each(|_| row.count(key(200), HOUR, now));
        assert_eq!(row.likely(0.5, HOUR, now), [], "two of a hundred");
    }
}
