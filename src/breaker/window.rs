//! [`Window`]: how many requests of the last minute failed, in a ring of counts.

use std::time::{Duration, Instant};

/// Counts that the window is cut into: one at a time is forgotten.
const PARTS: usize = 12;

/// Requests of a rolling window. The time is passed in.
#[derive(Debug)]
pub(super) struct Window {
    part: Duration,
    parts: [Counts; PARTS],
    /// When the part that is being counted in began, and which it is.
    since: Instant,
    current: usize,
}

/// Requests, and what was wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub requests: u32,
    pub failures: u32,
    pub slow: u32,
}

impl Window {
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let part = (length / PARTS as u32).max(Duration::from_nanos(1));
        Self { part, parts: [Counts::default(); PARTS], since: now, current: 0 }
    }

    /// Counts one request.
    pub(super) fn count(&mut self, failed: bool, slow: bool, now: Instant) {
        self.advance(now);
        let counts = &mut self.parts[self.current];
        counts.requests += 1;
        counts.failures += u32::from(failed);
        counts.slow += u32::from(slow);
    }

    /// The sums of the window.
    pub(super) fn sum(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.parts.iter().fold(Counts::default(), |sum, part| Counts {
            requests: sum.requests + part.requests,
            failures: sum.failures + part.failures,
            slow: sum.slow + part.slow,
        })
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos() / self.part.as_nanos();
        let whole = u32::try_from(passed).unwrap_or(u32::MAX);
        for _ in 0..whole.min(PARTS as u32) {
            self.current = (self.current + 1) % PARTS;
            self.parts[self.current] = Counts::default();
        }
        self.since = if whole > PARTS as u32 { now } else { self.since + self.part * whole };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_in_the_window_is_counted_and_what_is_out_of_it_is_not(
            gaps in prop::collection::vec(0u64..40, 1..60),
        ) {
            let start = Instant::now();
            let length = Duration::from_millis(120);
            let (mut window, mut now, mut times) = (Window::new(length, start), start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                window.count(true, false, now);
                times.push(now);
            }
            let counted = window.sum(now).failures as usize;
            let part = Duration::from_millis(10);
            let within = |age: Duration| times.iter().filter(|&&time| now - time < age).count();
            prop_assert!((within(length - part)..=within(length + part)).contains(&counted));
        }
    }
}
