//! `resource_aware`: the node whose processors, memory, KV cells and queue are used least.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::number;
use super::measures::{Measures, Summary, known, weigh};
use super::{Candidate, Digest, Order, Row, Strategy, StrategyName};

/// How much each counts; they are set in relation to their sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceAwareConfig {
    /// Processors in use.
    pub cpu: f64,
    /// Memory in use.
    pub memory: f64,
    /// KV cells in use.
    pub kv: f64,
    /// Requests that wait, per place.
    pub queue: f64,
    /// Places that this proxy uses; always known.
    pub in_flight: f64,
}

impl Default for ResourceAwareConfig {
    fn default() -> Self {
        Self { cpu: 1.0, memory: 1.0, kv: 2.0, queue: 2.0, in_flight: 2.0 }
    }
}

impl ResourceAwareConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let weights = [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("kv", self.kv),
            ("queue", self.queue),
            ("in_flight", self.in_flight),
        ];
        weights.into_iter().filter_map(|(key, weight)| number(key, weight, 0.0..=1000.0)).collect()
    }
}

/// The weighted mean of what is used. A signal that a node does not give is taken to be the mean of those that do: unknown is neither
/// idle nor full.
pub(super) struct ResourceAware(pub ResourceAwareConfig);

/// Processors, memory, KV cells, queue per place, places in use.
fn measure(candidate: &Candidate) -> Measures {
    let signals = candidate.signals;
    let per_place = 1.0 / candidate.places();
    let queue = known(signals.queue) * per_place;
    let in_flight = candidate.in_flight as f32 * per_place;
    [known(signals.cpu), known(signals.memory), known(signals.kv), queue, in_flight, 0.0, 0.0, 0.0]
}

impl Strategy for ResourceAware {
    fn rank(&self, _: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::ResourceAware);
        let mut measures = std::mem::take(&mut order.measures);
        measures.extend(candidates.iter().map(measure));
        let summary = Summary::of(&measures, [0.0; 8]);
        let ResourceAwareConfig { cpu, memory, kv, queue, in_flight } = self.0;
        let weights = [cpu, memory, kv, queue, in_flight, 0.0, 0.0, 0.0].map(|weight| weight as f32);
        let total = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        let (means, factors) = (summary.means(), weights.map(|weight| weight / total));
        for (candidate, measured) in candidates.iter().zip(&measures) {
            let used = weigh(measured, &means, &factors);
            order.push(Row::new(0, used / candidate.weight.max(f32::MIN_POSITIVE)));
        }
        order.measures = measures;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Signals;
    use super::super::tests::best;
    use super::*;

    fn candidate(cpu: Option<f32>, kv: Option<f32>) -> Candidate {
        Candidate { signals: Signals { cpu, kv, ..Signals::default() }, ..Candidate::new("n", 4) }
    }

    #[test]
    fn what_is_unknown_is_neither_idle_nor_full() {
        let strategy = ResourceAware(ResourceAwareConfig::default());
        let nodes = [candidate(Some(0.9), None), candidate(None, None), candidate(Some(0.1), None)];
        let mut order = Order::default();
        strategy.rank(&Digest::default(), &nodes, Instant::now(), &mut order);
        assert_eq!(std::iter::from_fn(|| order.take()).collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn weights_decide_what_counts_and_own_requests_always_do() {
        let only_cpu = ResourceAwareConfig { kv: 0.0, ..ResourceAwareConfig::default() };
        let nodes = [candidate(Some(0.5), Some(0.0)), candidate(Some(0.4), Some(1.0))];
        assert_eq!(best(&ResourceAware(only_cpu), &nodes), Some(1));
        assert_eq!(best(&ResourceAware(ResourceAwareConfig::default()), &nodes), Some(0));
        let busy = Candidate { in_flight: 1, ..Candidate::new("n", 4) };
        assert_eq!(
            best(&ResourceAware(ResourceAwareConfig::default()), &[busy, Candidate::new("n", 4)]),
            Some(1)
        );
    }
}
