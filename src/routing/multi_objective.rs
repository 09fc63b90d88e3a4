//! `multi_objective`: a weighted sum of what a node costs, in several senses.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::number;
use super::lowest_latency::{CONFIDENCE, Latencies};
use super::measures::{Measures, Summary, known, weigh};
use super::prefix_index::PrefixIndex;
use super::{Candidate, Digest, Order, Outcome, Pick, RoutingConfig, Row, Site, Strategy, StrategyName};

/// What counts how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiObjectiveConfig {
    /// Weights for a purpose.
    pub preset: Preset,
    /// Those that differ from the preset's; they are set in relation to their sum.
    pub weights: BTreeMap<Objective, f64>,
}

/// What a node can be better at, in the order of [`Measures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Its time to first token of late.
    Latency,
    /// Tokens in flight per place.
    Load,
    /// Memory or KV cells in use, whichever is more.
    Memory,
    /// Its price.
    Cost,
    /// How far it is from the client.
    Distance,
    /// How much of the prompt it has not read.
    Reuse,
}

const OBJECTIVES: [Objective; 6] = [
    Objective::Latency,
    Objective::Load,
    Objective::Memory,
    Objective::Cost,
    Objective::Distance,
    Objective::Reuse,
];

/// What is too small to make a difference: measures are compared in relation to the largest of them, but to no less than this. Seconds,
/// tokens per place, parts, prices, kilometres, parts.
const SMALLEST: Measures = [0.05, 256.0, 0.5, f32::MIN_POSITIVE, 100.0, 1.0, 1.0, 1.0];

/// Weights for a purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// All alike.
    #[default]
    Balanced,
    /// The first token soon.
    MinimizeLatency,
    /// As much as possible computed by all together: little is read twice, and nobody idles.
    MaximizeThroughput,
    /// Cheap nodes, unless they are hardly able to.
    MinimizeCost,
}

impl Preset {
    fn weights(self) -> [f32; 6] {
        match self {
            Self::Balanced => [1.0; 6],
            Self::MinimizeLatency => [4.0, 3.0, 0.5, 0.0, 1.0, 3.0],
            Self::MaximizeThroughput => [0.0, 3.0, 1.0, 0.0, 0.0, 4.0],
            Self::MinimizeCost => [0.5, 1.0, 0.0, 6.0, 0.0, 1.0],
        }
    }
}

impl MultiObjectiveConfig {
    /// What is wrong, with the key it is wrong with.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut weights = self.weights.values();
        let fault = weights.find_map(|weight| number("weights", *weight, 0.0..=1000.0));
        let nothing = self.weights().iter().sum::<f32>() <= 0.0;
        let nothing = nothing.then(|| ("weights", "one of them must be more than 0".to_owned()));
        fault.or(nothing).into_iter().collect()
    }

    fn weights(&self) -> [f32; 6] {
        let mut weights = self.preset.weights();
        for (weight, objective) in weights.iter_mut().zip(OBJECTIVES) {
            *weight = self.weights.get(&objective).map_or(*weight, |own| *own as f32);
        }
        weights
    }
}

/// Each measure is set in relation to the largest one among the candidates, so every score is from 0 to 1; what is not known of a node
/// is taken to be the mean of what is known of the others. A node without a free place comes after those that have one.
pub(super) struct MultiObjective {
    weights: Measures,
    state: Mutex<State>,
}

struct State {
    latencies: Latencies,
    index: PrefixIndex,
}

impl MultiObjective {
    pub(super) fn new(config: &RoutingConfig) -> Self {
        let weights = config.multi_objective.weights();
        let sum = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        let weights = std::array::from_fn(|i| weights.get(i).map_or(0.0, |weight| weight / sum));
        let latencies = Latencies::new(&config.lowest_latency);
        let state = State { latencies, index: PrefixIndex::new(config.prefix_index.memory) };
        Self { weights, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The measures of a candidate with this time to first token, which has to read this part of the prompt.
fn measure(digest: &Digest, candidate: &Candidate, latency: f32, unread: f32) -> Measures {
    [
        latency,
        candidate.load(),
        // The one that is known, if only one is.
        known(candidate.signals.memory).max(known(candidate.signals.kv)),
        known(candidate.cost),
        known(distance(&digest.client, &candidate.site)),
        unread,
        0.0,
        0.0,
    ]
}

/// Kilometres; none within a zone.
fn distance(client: &Site, node: &Site) -> Option<f32> {
    if client.zone.is_some() && client.zone == node.zone {
        return Some(0.0);
    }
    Some(client.location?.chord(&node.location?))
}

impl Strategy for MultiObjective {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], now: Instant, order: &mut Order) {
        order.begin(StrategyName::MultiObjective);
        let mut measures = std::mem::take(&mut order.measures);
        measures.reserve(candidates.len());
        let mut state = self.lock();
        state.index.look(&digest.prefix);
        let left = state.latencies.left(now);
        let prompt_tokens = digest.prompt_tokens as f32;
        order.extend(candidates.iter().enumerate().map(|(place, candidate)| {
            let share = state.index.share(place, candidate);
            let latency = known(state.latencies.of(place, candidate, left)) + candidate.load_seconds();
            measures.push(measure(digest, candidate, latency, 1.0 - share));
            let row = Row::new(u8::from(!candidate.has_room()), 0.0).expecting(latency, CONFIDENCE);
            if share > 0.0 { row.reusing((share * prompt_tokens) as u32) } else { row }
        }));
        drop(state);
        let summary = Summary::of(&measures, SMALLEST);
        let (means, largest) = (summary.means(), summary.largest());
        let factors: Measures = std::array::from_fn(|i| self.weights[i] / largest[i]);
        for (row, measured) in order.rows_mut().iter_mut().zip(&measures) {
            row.score = weigh(measured, &means, &factors);
        }
        order.measures = measures;
    }

    fn observe(&self, digest: &Digest, pick: &Pick, outcome: &Outcome, now: Instant) {
        let mut state = self.lock();
        state.latencies.observe(&pick.candidate, outcome, now);
        if *outcome == Outcome::Sent {
            state.index.learn(&digest.prefix, &pick.candidate, pick.unread(digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, proptest};
    use serde_json::json;

    use super::super::Signals;
    use super::super::tests::{best, send};
    use super::*;

    fn strategy(config: serde_json::Value) -> MultiObjective {
        MultiObjective::new(&serde_json::from_value(json!({ "multi_objective": config })).unwrap())
    }

    #[test]
    fn a_preset_says_what_counts_and_a_weight_overrides_it() {
        let cheap = Candidate { cost: Some(1.0), in_flight: 2, ..Candidate::new("cheap", 4) };
        let idle = Candidate { cost: Some(3.0), ..Candidate::new("idle", 4) };
        let nodes = [cheap, idle];
        assert_eq!(best(&strategy(json!({ "preset": "minimize_cost" })), &nodes), Some(0));
        assert_eq!(best(&strategy(json!({ "preset": "maximize_throughput" })), &nodes), Some(1));
        assert_eq!(
            best(&strategy(json!({ "preset": "minimize_cost", "weights": { "cost": 0 } })), &nodes),
            Some(1)
        );
    }

    #[test]
    fn weights_that_say_nothing_are_refused() {
        let faults = |config| serde_json::from_value::<MultiObjectiveConfig>(config).unwrap().faults();
        assert!(faults(json!({})).is_empty());
        assert_eq!(faults(json!({ "weights": { "cost": -1 } }))[0].0, "weights");
        let all = json!({ "latency": 0, "load": 0, "memory": 0, "cost": 0, "distance": 0, "reuse": 0 });
        assert_eq!(faults(json!({ "weights": all }))[0].1, "one of them must be more than 0");
    }

    #[test]
    fn who_has_read_the_prompt_is_better() {
        let strategy = strategy(json!({ "preset": "maximize_throughput" }));
        let nodes = [Candidate::new("a", 4), Candidate::new("b", 4)];
        let digest = Digest::of_bytes("m", &[1; 4096]);
        send(&strategy, &digest, &nodes, 1);
        assert_eq!(super::super::tests::best_for(&strategy, &digest, &nodes), Some(1));
    }

    proptest! {
        #[test]
        fn scores_are_from_zero_to_one(nodes in prop::collection::vec((0..20_usize, 0..100_000_u64, any::<Option<u8>>(), prop::option::of(0.0..1.0_f32)), 1..20)) {
            let nodes: Vec<_> = nodes.into_iter().enumerate().map(|(i, (in_flight, tokens_in_flight, cost, memory))| Candidate {
                in_flight, tokens_in_flight, cost: cost.map(f32::from), signals: Signals { memory, ..Signals::default() },
                ..Candidate::new(format!("n{i}"), 4)
            }).collect();
            let mut order = Order::default();
            strategy(json!({})).rank(&Digest::default(), &nodes, Instant::now(), &mut order);
            prop_assert!(order.rows().iter().all(|row| (0.0..=1.001).contains(&row.score)), "{:?}", order.rows());
        }
    }
}
