//! `lowest_latency`: the node that has been the fastest lately, by Finagle's and Linkerd's peak-sensitive moving average.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::per_node::PerNode;
use super::{Candidate, Digest, Order, Outcome, Pick, Row, Strategy, StrategyName};
use crate::units::duration;

/// How fast the past is forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LowestLatencyConfig {
    /// After this long a peak counts a third.
    #[serde(with = "duration")]
    pub decay: Duration,
}

impl Default for LowestLatencyConfig {
    fn default() -> Self {
        Self { decay: Duration::from_secs(10) }
    }
}

impl LowestLatencyConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let is_zero = self.decay.is_zero();
        is_zero.then(|| ("decay", "must be more than 0".to_owned())).into_iter().collect()
    }
}

/// What a failure counts as, at least: longer than anybody likes to wait.
const FAILURE: Duration = Duration::from_secs(10);
/// How far an average that is sensitive to peaks is to be believed as a forecast.
pub(super) const CONFIDENCE: f32 = 0.25;

/// Times to first token by node: a peak counts at once, and fades; what is better than the average comes in slowly.
pub(super) struct Latencies {
    nodes: PerNode<Latency>,
    /// Seconds.
    decay: f64,
    /// See [`Latency::then`].
    epoch: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Latency {
    /// What it would have been at the epoch, in seconds, to be now what it is. So all fade by one factor.
    then: f64,
    heard: Option<Instant>,
}

/// In so many decays what is left is too small to go on with, and the epoch begins anew.
const EPOCH: f64 = 64.0;

impl Latencies {
    pub(super) fn new(config: &LowestLatencyConfig) -> Self {
        Self { nodes: PerNode::default(), decay: config.decay.as_secs_f64(), epoch: None }
    }

    /// What part of an average is left that was heard at `then`.
    fn left_since(&self, then: Option<Instant>, now: Instant) -> f64 {
        then.map_or(0.0, |then| (-now.saturating_duration_since(then).as_secs_f64() / self.decay).exp())
    }

    /// What is left of all, as [`Self::of`] takes it.
    pub(super) fn left(&self, now: Instant) -> f64 {
        self.left_since(self.epoch, now)
    }

    /// Seconds, of the candidate at `place`; they fade while nothing is heard, so that a node that was slow is tried again.
    pub(super) fn of(&mut self, place: usize, candidate: &Candidate, left: f64) -> Option<f32> {
        self.nodes.at(place, candidate.id).map(|latency| (latency.then * left) as f32)
    }

    pub(super) fn observe(&mut self, candidate: &Candidate, outcome: &Outcome, now: Instant) {
        let seconds = match outcome {
            Outcome::FirstToken { after } => after.as_secs_f64(),
            // A node that fails fast is not fast.
            Outcome::Failed { after } => (*after).max(FAILURE).as_secs_f64(),
            Outcome::Sent | Outcome::Done { .. } | Outcome::Cancelled => return,
        };
        let left = self.renewed(now);
        let heard = self.nodes.get(candidate.id).and_then(|latency| latency.heard);
        let kept = self.left_since(heard, now);
        let latency = self.nodes.touch(candidate.id);
        let faded = latency.then * left;
        let is_peak = seconds > faded;
        let seconds = if is_peak { seconds } else { faded + seconds * (1.0 - kept) };
        *latency = Latency { then: seconds / left, heard: Some(now) };
    }

    /// What is left of all, once the epoch is one that can be gone on with.
    fn renewed(&mut self, now: Instant) -> f64 {
        let left = self.left(now);
        if left > (-EPOCH).exp() {
            return left;
        }
        self.nodes.all().for_each(|latency| latency.then *= left);
        self.epoch = Some(now);
        1.0
    }
}

/// The cost of a node is its latency times the requests it would have; one that nothing is known of goes first while it is idle, and
/// last while it is not.
pub(super) struct LowestLatency(Mutex<Latencies>);

impl LowestLatency {
    pub(super) fn new(config: LowestLatencyConfig) -> Self {
        Self(Mutex::new(Latencies::new(&config)))
    }

    fn lock(&self) -> MutexGuard<'_, Latencies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strategy for LowestLatency {
    fn rank(&self, _: &Digest, candidates: &[Candidate], now: Instant, order: &mut Order) {
        order.begin(StrategyName::LowestLatency);
        let mut latencies = self.lock();
        let left = latencies.left(now);
        for (place, candidate) in candidates.iter().enumerate() {
            let per_weight = candidate.places() * candidate.weight.max(f32::MIN_POSITIVE);
            let requests = (candidate.in_flight + 1) as f32 / per_weight;
            order.push(match latencies.of(place, candidate, left) {
                // Load alone decides between latencies that have faded to nothing.
                Some(seconds) => Row::new(1, seconds.max(1e-6) * requests).expecting(seconds, CONFIDENCE),
                None => Row::new(if candidate.in_flight == 0 { 0 } else { 2 }, requests),
            });
        }
    }

    fn observe(&self, _: &Digest, pick: &Pick, outcome: &Outcome, now: Instant) {
        self.lock().observe(&pick.candidate, outcome, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{best_at, pick};
    use super::*;

    fn answered(strategy: &LowestLatency, node: &Candidate, millis: u64, now: Instant) {
        let outcome = Outcome::FirstToken { after: Duration::from_millis(millis) };
        strategy.observe(&Digest::default(), &pick(node), &outcome, now);
    }

    #[test]
    fn each_is_tried_and_then_the_fastest_is_chosen_until_it_has_more_to_do() {
        let strategy = LowestLatency::new(LowestLatencyConfig::default());
        let now = Instant::now();
        let mut nodes = [Candidate::new("slow", 4), Candidate::new("fast", 4), Candidate::new("new", 4)];
        answered(&strategy, &nodes[0], 300, now);
        answered(&strategy, &nodes[1], 100, now);
        assert_eq!(best_at(&strategy, &nodes, now), Some(2));
        nodes[2].in_flight = 1;
        assert_eq!(best_at(&strategy, &nodes, now), Some(1));
        nodes[1].in_flight = 3;
        assert_eq!(best_at(&strategy, &nodes, now), Some(0));
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_with_time() {
        let strategy = LowestLatency::new(LowestLatencyConfig::default());
        let nodes = [Candidate::new("a", 4), Candidate::new("b", 4)];
        let start = Instant::now();
        (0..20).for_each(|_| answered(&strategy, &nodes[0], 100, start));
        answered(&strategy, &nodes[1], 200, start);
        assert_eq!(best_at(&strategy, &nodes, start), Some(0));
        answered(&strategy, &nodes[0], 5000, start);
        assert_eq!(best_at(&strategy, &nodes, start), Some(1));
        let later = start + Duration::from_secs(60);
        answered(&strategy, &nodes[1], 200, later);
        assert_eq!(best_at(&strategy, &nodes, later), Some(0), "5 s after a minute are less than 200 ms now");
    }

    #[test]
    fn what_was_heard_long_ago_has_faded_and_the_new_counts() {
        let strategy = LowestLatency::new(LowestLatencyConfig { decay: Duration::from_millis(1) });
        let nodes = [Candidate::new("a", 4), Candidate::new("b", 4)];
        let mut now = Instant::now();
        for _ in 0..100 {
            answered(&strategy, &nodes[0], 1000, now);
            answered(&strategy, &nodes[1], 10, now);
            assert_eq!(best_at(&strategy, &nodes, now), Some(1));
            now += Duration::from_secs(3600);
        }
    }

    #[test]
    fn failing_fast_is_not_being_fast() {
        let strategy = LowestLatency::new(LowestLatencyConfig::default());
        let nodes = [Candidate::new("fails", 4), Candidate::new("works", 4)];
        let now = Instant::now();
        answered(&strategy, &nodes[0], 100, now);
        answered(&strategy, &nodes[1], 150, now);
        strategy.observe(
            &Digest::default(),
            &pick(&nodes[0]),
            &Outcome::Failed { after: Duration::ZERO },
            now,
        );
        assert_eq!(best_at(&strategy, &nodes, now), Some(1));
    }
}
