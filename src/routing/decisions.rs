//! [`Decisions`]: the last decisions, and what came of them beside what was expected.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::{Digest, Outcome, Pick, StrategyName};

/// A decision that was carried out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Counts decisions; later ones have higher numbers.
    pub number: u64,
    /// The model.
    pub model: Arc<str>,
    /// Where the request went.
    pub node: Arc<str>,
    /// By which strategy.
    pub strategy: StrategyName,
    /// Expected time to first token, if the strategy predicts any.
    pub expected_ttft_seconds: Option<f64>,
    /// How far that was to be believed, 0 to 1.
    pub confidence: f32,
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u32,
    /// Those that the node was believed to have in memory.
    pub reused_tokens: u32,
    /// What came of it.
    #[serde(flatten)]
    pub actual: Actual,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Actual {
    /// Nothing yet.
    #[default]
    Running,
    /// Its first token.
    FirstToken {
        /// When it came.
        ttft_seconds: f64,
    },
    /// An answer.
    Done {
        /// When its first token came.
        ttft_seconds: f64,
        /// And its last.
        total_seconds: f64,
    },
    /// The node failed.
    Failed,
    /// The client left.
    Cancelled,
}

/// The last decisions, as many as it has room for.
pub struct Decisions {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Their numbers have no gaps.
    records: VecDeque<Record>,
    next: u64,
}

impl Decisions {
    /// Keeps the last `most`.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// The request was sent to `pick`; the number of this decision.
    pub fn record(&self, digest: &Digest, pick: &Pick) -> u64 {
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        if self.most > 0 {
            if kept.records.len() >= self.most {
                kept.records.pop_front();
            }
            kept.records.push_back(Record {
                number,
                model: Arc::clone(&digest.model),
                node: Arc::clone(&pick.candidate.name),
                strategy: pick.strategy,
                expected_ttft_seconds: pick.expected.map(|expected| expected.as_secs_f64()),
                confidence: pick.confidence,
                prompt_tokens: digest.prompt_tokens,
                reused_tokens: pick.reuse,
                actual: Actual::Running,
            });
        }
        number
    }

    /// What became of the decision with this number, if it is still kept.
    pub fn settle(&self, number: u64, outcome: &Outcome) {
        let actual = match outcome {
            Outcome::Sent => return,
            Outcome::FirstToken { after } => Actual::FirstToken { ttft_seconds: after.as_secs_f64() },
            Outcome::Done { after, ttft, .. } => {
                Actual::Done { ttft_seconds: ttft.as_secs_f64(), total_seconds: after.as_secs_f64() }
            }
            Outcome::Failed { .. } => Actual::Failed,
            Outcome::Cancelled => Actual::Cancelled,
        };
        let mut kept = self.lock();
        let first = kept.records.front().map_or(number, |record| record.number);
        let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if let Some(record) = place.and_then(|place| kept.records.get_mut(place)) {
            record.actual = actual;
        }
    }

    /// The last `count`, the latest first.
    pub fn last(&self, count: usize) -> Vec<Record> {
        self.lock().records.iter().rev().take(count).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// How far the expected time to first token was off, once both are known.
    pub fn error(&self) -> Option<Duration> {
        let (Actual::FirstToken { ttft_seconds } | Actual::Done { ttft_seconds, .. }) = self.actual else {
            return None;
        };
        Duration::try_from_secs_f64((self.expected_ttft_seconds? - ttft_seconds).abs()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Candidate;
    use super::super::tests::pick;
    use super::*;

    #[test]
    fn the_last_ones_are_kept_with_what_came_of_them() {
        let decisions = Decisions::new(2);
        let expected = Some(Duration::from_millis(500));
        let pick = Pick { expected, ..pick(&Candidate::new("n", 1)) };
        let numbers: Vec<_> = (0..3).map(|_| decisions.record(&Digest::default(), &pick)).collect();
        let (after, ttft) = (Duration::from_secs(2), Duration::from_secs(1));
        decisions.settle(numbers[0], &Outcome::Cancelled);
        decisions.settle(numbers[1], &Outcome::Failed { after });
        decisions.settle(numbers[2], &Outcome::Done { after, ttft, tokens: 9 });
        let last = decisions.last(9);
        assert_eq!(last.iter().map(|record| record.number).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(last[0].actual, Actual::Done { ttft_seconds: 1.0, total_seconds: 2.0 });
        assert_eq!((last[0].error(), last[1].error()), (expected, None));
        assert_eq!(decisions.last(1).len(), 1);
        let json = serde_json::to_value(&last[1]).unwrap();
        assert_eq!((&json["outcome"], &json["strategy"]), (&"failed".into(), &"least_loaded".into()));
    }

    #[test]
    fn none_is_kept_where_none_may_be() {
        let decisions = Decisions::new(0);
        let number = decisions.record(&Digest::default(), &pick(&Candidate::new("n", 1)));
        decisions.settle(number, &Outcome::Cancelled);
        assert!(decisions.last(9).is_empty());
    }
}
