//! [`descend`]: how a model can be made to fit: the configured rungs, and what a worker takes on each. Pure.
//!
//! A rung adds to those before it, and one that saves next to nothing is passed over. Which of them a model comes to stand on is
//! decided with all others in view (`room`).

use std::iter::successors;

use serde::{Deserialize, Serialize};

use super::need::Need;
use crate::generation::seam::{Cut, KvType};

/// A GPU's part of a model shrinks by such parts of it: finer than what estimates are good for.
const PARTS: u32 = 16;
/// What saves less than such a part of a need is not worth what it costs.
const WORTHWHILE: u64 = 64;

/// What may be done so that a model fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Others leave that nobody uses.
    Evict,
    /// Fewer requests are decoded together.
    Sequences,
    /// About 8.5 bits for a number of the KV cache.
    #[serde(rename = "kv_q8_0")]
    KvQ8,
    /// About 4.5 bits.
    #[serde(rename = "kv_q4_0")]
    KvQ4,
    /// A shorter context, down to the model's `context_floor`.
    Context,
    /// Another model answers, the model's `sibling`.
    Sibling,
    /// Fewer layers on GPUs.
    GpuLayers,
    /// No layer on a GPU.
    Cpu,
}

impl Rung {
    /// Those that are used where nobody says. Not among them is what could change an answer and has no consent by a key of the model:
    /// numbers of fewer bits.
    pub const USUAL: [Self; 6] =
        [Self::Evict, Self::Sequences, Self::Context, Self::Sibling, Self::GpuLayers, Self::Cpu];

    /// What it makes of `cut`, the least of it first.
    fn cuts(self, cut: Cut, uncut: &Uncut) -> Vec<Cut> {
        match self {
            Self::Evict | Self::Sibling => Vec::new(),
            Self::Sequences => {
                halves(uncut.parallel, 1).map(|parallel| Cut { parallel: Some(parallel), ..cut }).collect()
            }
            Self::KvQ8 if uncut.quantizes && uncut.kv_type == KvType::F16 => {
                vec![Cut { kv_type: Some(KvType::Q8_0), ..cut }]
            }
            Self::KvQ4 if uncut.quantizes && uncut.kv_type != KvType::Q4_0 => {
                vec![Cut { kv_type: Some(KvType::Q4_0), ..cut }]
            }
            Self::KvQ8 | Self::KvQ4 => Vec::new(),
            Self::Context => uncut.floor.map_or_else(Vec::new, |floor| {
                halves(uncut.context, floor).map(|context| Cut { context: Some(context), ..cut }).collect()
            }),
            Self::GpuLayers => {
                let parts = (1..PARTS).rev().map(|part| uncut.gpu_layers * part / PARTS);
                let mut layers: Vec<_> = parts.filter(|layers| *layers > 0).collect();
                layers.dedup();
                layers.into_iter().map(|layers| Cut { gpu_layers: Some(layers), ..cut }).collect()
            }
            Self::Cpu if uncut.gpu_layers > 0 => vec![Cut { gpu_layers: Some(0), ..cut }],
            Self::Cpu => Vec::new(),
        }
    }
}

/// Half of `from`, half of that and so on; the last one is `least`.
fn halves(from: u32, least: u32) -> impl Iterator<Item = u32> {
    successors(Some(from), move |n| (*n > least).then(|| (n / 2).max(least))).skip(1)
}

/// A model as it is configured, as far as it can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncut {
    /// Sequences.
    pub parallel: u32,
    /// Number format of the KV cache.
    pub kv_type: KvType,
    /// Whether its heads allow for another one.
    pub quantizes: bool,
    /// Context per sequence in tokens.
    pub context: u32,
    /// What is left of it at least; `None`: all.
    pub floor: Option<u32>,
    /// Layers on GPUs.
    pub gpu_layers: u32,
    /// Whether another model answers where the ladder says so.
    pub has_sibling: bool,
}

/// The rungs that a model has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Descent {
    /// What is cut, and what a worker takes then. The first is the model as configured.
    pub steps: Vec<(Cut, Need)>,
    /// So many of them come before anybody has to leave, at least the first.
    pub before_eviction: usize,
}

/// Works out what a worker takes on each rung of `ladder`, by `need`.
pub fn descend(ladder: &[Rung], uncut: &Uncut, need: impl Fn(&Cut) -> Need) -> Descent {
    let whole = Cut::default();
    let (mut cut, mut last) = (whole, need(&whole));
    let mut descent = Descent { steps: vec![(cut, last.clone())], before_eviction: 1 };
    for rung in ladder {
        match rung {
            Rung::Evict => descent.before_eviction = descent.steps.len(),
            // Whoever has one answers by it before anything further is done.
            Rung::Sibling if uncut.has_sibling => break,
            _ => {}
        }
        for next in rung.cuts(cut, uncut) {
            let less = need(&next);
            if saves(less.host(), last.host()) || saves(less.device, last.device) {
                descent.steps.push((next, less.clone()));
                (cut, last) = (next, less);
            }
        }
    }
    descent
}

fn saves(less: u64, before: u64) -> bool {
    less < before - before / WORTHWHILE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncut() -> Uncut {
        Uncut {
            parallel: 4,
            kv_type: KvType::F16,
            quantizes: true,
            context: 4096,
            floor: None,
            gpu_layers: 0,
            has_sibling: false,
        }
    }

    /// A thousand bytes of weights; a byte of KV cells for each token and sequence, by format. Layers on a GPU are there.
    fn need(uncut: &Uncut, cut: &Cut) -> Need {
        let cells = u64::from(cut.parallel.unwrap_or(uncut.parallel) * cut.context.unwrap_or(uncut.context));
        let bytes = match cut.kv_type.unwrap_or(uncut.kv_type) {
            KvType::F16 => cells,
            KvType::Q8_0 => cells / 2,
            KvType::Q4_0 => cells / 4,
        };
        let layers = u64::from(cut.gpu_layers.unwrap_or(uncut.gpu_layers));
        Need { private: 1000 + bytes - layers, device: layers, ..Need::default() }
    }

    fn steps(ladder: &[Rung], uncut: &Uncut) -> Vec<String> {
        let descent = descend(ladder, uncut, |cut| need(uncut, cut));
        descent.steps.iter().map(|(cut, _)| cut.to_string()).collect()
    }

    #[test]
    fn each_rung_adds_to_those_before_it() {
        let ladder = [Rung::Evict, Rung::Sequences, Rung::KvQ8, Rung::KvQ4, Rung::Context];
        assert_eq!(
            steps(&ladder, &Uncut { floor: Some(1500), ..uncut() }),
            [
                "",
                "sequences=2",
                "sequences=1",
                "sequences=1, kv=q8_0",
                "sequences=1, kv=q4_0",
                "sequences=1, kv=q4_0, context=2048",
                "sequences=1, kv=q4_0, context=1500",
            ]
        );
    }

    #[test]
    fn what_a_model_does_not_have_or_allow_is_no_rung() {
        let all = [Rung::Evict, Rung::KvQ8, Rung::KvQ4, Rung::Context, Rung::GpuLayers, Rung::Cpu];
        let fixed = Uncut { quantizes: false, ..uncut() };
        assert_eq!(steps(&all, &fixed), [""]);
        let small = Uncut { kv_type: KvType::Q8_0, floor: Some(4096), ..uncut() };
        assert_eq!(steps(&all, &small), ["", "kv=q4_0"]);
    }

    #[test]
    fn layers_leave_the_gpu_by_parts_and_then_all_of_them() {
        let found = steps(&[Rung::GpuLayers, Rung::Cpu], &Uncut { gpu_layers: 32, ..uncut() });
        assert_eq!(found.len(), 17);
        assert_eq!((found[1].as_str(), found[15].as_str()), ("gpu_layers=30", "gpu_layers=2"));
        assert_eq!(found[16], "cpu");
        let few = steps(&[Rung::GpuLayers, Rung::Cpu], &Uncut { gpu_layers: 2, ..uncut() });
        assert_eq!(few, ["", "gpu_layers=1", "cpu"]);
    }

    #[test]
    fn a_sibling_answers_before_anything_behind_it_is_done() {
        let ladder = [Rung::Evict, Rung::Sibling, Rung::Sequences];
        assert_eq!(steps(&ladder, &Uncut { has_sibling: true, ..uncut() }), [""]);
        assert_eq!(steps(&ladder, &uncut()).len(), 3);
    }

    #[test]
    fn what_is_before_eviction_is_done_before_anybody_leaves() {
        let before = |ladder: &[Rung]| descend(ladder, &uncut(), |cut| need(&uncut(), cut)).before_eviction;
        assert_eq!(before(&Rung::USUAL), 1);
        assert_eq!(before(&[Rung::Sequences, Rung::Evict, Rung::Context]), 3);
    }

    #[test]
    fn what_saves_next_to_nothing_is_passed_over_and_leaves_no_trace() {
        let heavy = |cut: &Cut| {
            let cells = u64::from(cut.parallel.unwrap_or(4)) + u64::from(cut.context.unwrap_or(4096));
            Need { private: 1000 + cells, ..Need::default() }
        };
        let uncut = Uncut { floor: Some(2048), ..uncut() };
        let found = descend(&[Rung::Sequences, Rung::Context], &uncut, heavy);
        assert_eq!(found.steps[1].0.to_string(), "context=2048");
    }
}
