//! [`Traffic`]: how a node has answered lately, and [`outliers`], which says who does much worse than the others that serve the same.
//!
//! A probe asks little, so a node can pass all probes and be slow at everything else; and what is slow depends on the model and the
//! prompts, so a node is compared with those that get the same requests. Pure state; the time is passed in.

use std::time::{Duration, Instant};

/// What is older counts for half as much.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Requests, older ones counted less, before a node can be told from chance.
const ENOUGH: f64 = 5.0;
/// So much slower than the others is an outlier.
const FACTOR: f64 = 4.0;
/// And so many seconds: among fast nodes a small difference is a large factor.
const AT_LEAST: f64 = 0.25;

/// A node's answers of late: their number and the mean time to their first event, newer ones counted more.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    count: f64,
    seconds: f64,
    at: Instant,
}

impl Traffic {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self { count: 0.0, seconds: 0.0, at: now }
    }

    /// An answer began after `took`.
    pub fn answered(&mut self, took: Duration, now: Instant) {
        self.fade(now);
        self.count += 1.0;
        self.seconds += took.as_secs_f64();
    }

    /// The mean in seconds; `None` if there were too few of late.
    pub fn mean(&self, now: Instant) -> Option<f64> {
        let mut traffic = self.clone();
        traffic.fade(now);
        (traffic.count >= ENOUGH).then(|| traffic.seconds / traffic.count)
    }

    /// When an answer began last.
    pub fn last(&self) -> Instant {
        self.at
    }

    fn fade(&mut self, now: Instant) {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let left = 0.5_f64.powf(halves);
        (self.count, self.seconds, self.at) = (self.count * left, self.seconds * left, now);
    }
}

/// Who of the nodes that serve a model answers much later than the others, given the means of all; and how much, in words.
pub(super) fn outliers(means: &[Option<f64>]) -> Vec<Option<String>> {
    let judge = |index: usize| {
        let own = means[index]?;
        let mut others: Vec<f64> = means
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != index)
            .filter_map(|(_, mean)| *mean)
            .collect();
        others.sort_unstable_by(f64::total_cmp);
        // With one other it cannot be told who of the two is odd, but it can be told who is slow.
        let usual = *others.get(others.len() / 2)?;
        (own > FACTOR * usual && own > usual + AT_LEAST)
            .then(|| format!("answers begin after {own:.2} s, those of others after {usual:.2} s"))
    };
    (0..means.len()).map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(times: u32, seconds: f64, now: Instant) -> Traffic {
        let mut traffic = Traffic::new(now);
        (0..times).for_each(|_| traffic.answered(Duration::from_secs_f64(seconds), now));
        traffic
    }

    #[test]
    fn a_mean_takes_a_few_answers_and_fades() {
        let now = Instant::now();
        assert_eq!(traffic(4, 1.0, now).mean(now), None);
        let mut known = traffic(8, 1.0, now);
        assert_eq!(known.mean(now), Some(1.0));
        let later = now + HALF_LIFE;
        assert_eq!(known.mean(later), None, "eight answers have become four");
        (0..4).for_each(|_| known.answered(Duration::from_secs(2), later));
        assert_eq!(known.mean(later), Some(1.5));
    }

    #[test]
    fn who_is_many_times_slower_than_the_others_is_told() {
        let found = outliers(&[Some(0.1), Some(0.12), Some(2.0), None]);
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, false]);
        assert_eq!(found[2].as_deref(), Some("answers begin after 2.00 s, those of others after 0.12 s"));
        assert_eq!(outliers(&[Some(0.001), Some(0.1)]), [None, None], "a tenth of a second is nothing");
        assert_eq!(outliers(&[Some(9.0)]), [None]);
        assert_eq!(outliers(&[Some(9.0), Some(9.5), Some(8.0)]), [None, None, None], "all are slow");
    }
}
