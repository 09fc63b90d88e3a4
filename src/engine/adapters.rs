//! LoRA adapters of the model: which one a request wants, and which is next. llama.cpp applies an adapter to all of a batch: a
//! batch is of sequences that want the same, those that want another wait for a step of theirs, and cells that were computed with one
//! are of no use to another.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};

use super::check;
use crate::generation::{Adaptation, Failure, FailureCode, seam};
use crate::gguf::Header;

/// An adapter and how strongly it is applied. None at all is the model as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapter {
    /// Its place in [`Adapters`].
    index: usize,
    /// Not 0.
    scale: f32,
}

/// The adapters of a model, in memory.
pub struct Adapters {
    specs: Vec<seam::Adapter>,
    /// Of the same places. llama-cpp-2 wants them mutable to apply them, which llama.cpp does not.
    loaded: Mutex<Vec<LlamaLoraAdapter>>,
}

impl Adapters {
    /// Checks the files against the headers of the model's, and loads them. `why` makes words of what llama.cpp has logged about a
    /// failure.
    pub fn load(
        llama: &mut LlamaModel,
        headers: &[Header],
        specs: &[seam::Adapter],
        why: impl Fn(&str, &dyn std::fmt::Display) -> String,
    ) -> Result<Self, String> {
        let mut loaded = Vec::new();
        for seam::Adapter { name, path, .. } in specs {
            let is_sound = check::adapter::check(path, headers);
            is_sound.map_err(|reason| format!("adapter {name}: {reason}"))?;
            let adapter = llama.lora_adapter_init(path);
            loaded
                .push(adapter.map_err(|error| why(&format!("adapter {name}: {}", path.display()), &error))?);
        }
        Ok(Self { specs: specs.to_vec(), loaded: Mutex::new(loaded) })
    }

    /// What a request wants.
    pub fn wanted(&self, adaptation: &Adaptation) -> Result<Option<Adapter>, Failure> {
        wanted(&self.specs, adaptation)
    }

    /// From now on `context` computes with `adapter`. The error says in words why that failed.
    pub fn apply(&self, context: &mut LlamaContext, adapter: Option<Adapter>) -> Result<(), String> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = match adapter {
            Some(Adapter { index, scale }) => loaded
                .get_mut(index)
                .map(|own| context.lora_adapter_set(own, scale).map_err(|e| e.to_string())),
            // Removes whatever there is, in spite of what it takes.
            None => loaded.first_mut().map(|any| context.lora_adapter_remove(any).map_err(|e| e.to_string())),
        };
        applied.unwrap_or(Ok(())).map_err(|error| format!("cannot apply an adapter: {error}"))
    }
}

fn wanted(specs: &[seam::Adapter], adaptation: &Adaptation) -> Result<Option<Adapter>, Failure> {
    let invalid = |message| Failure { code: FailureCode::InvalidRequest, message };
    let (index, scale) = match adaptation {
        Adaptation::Off => (None, None),
        Adaptation::Default => (specs.iter().position(|spec| spec.default), None),
        Adaptation::Adapter { name, scale } => {
            let index = specs.iter().position(|spec| spec.name == *name);
            (Some(index.ok_or_else(|| invalid(unknown(specs, name)))?), *scale)
        }
    };
    let Some(index) = index else { return Ok(None) };
    let scale = scale.unwrap_or(specs[index].scale);
    if !scale.is_finite() {
        return Err(invalid("the scale of an adapter must be a number".to_owned()));
    }
    Ok((scale != 0.0).then_some(Adapter { index, scale }))
}

fn unknown(specs: &[seam::Adapter], name: &str) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("the model has no adapter {name:?}; it has {known}")
}

/// Which adapter is next: step by step another of all that sequences want. So nobody waits for more steps than others want
/// something else.
#[derive(Default)]
pub struct Rotation {
    /// Those that wait, without duplicates.
    line: VecDeque<Option<Adapter>>,
    /// What the last step computed with.
    last: Option<Option<Adapter>>,
}

impl Rotation {
    /// What the next step computes with. `wanted` is what the sequences that could be computed want, of the oldest first.
    pub fn next(&mut self, wanted: &[Option<Adapter>]) -> Option<Adapter> {
        self.line.retain(|adapter| wanted.contains(adapter));
        for &adapter in wanted {
            if !self.line.contains(&adapter) && self.last != Some(adapter) {
                self.line.push_back(adapter);
            }
        }
        self.line.extend(self.last.filter(|last| wanted.contains(last)));
        self.last = self.line.pop_front();
        self.last.flatten()
    }
}

#[cfg(test)]
impl Adapter {
    /// The adapter at a place, in full.
    pub fn at(index: usize) -> Self {
        Self { index, scale: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn specs() -> Vec<seam::Adapter> {
        let spec =
            |name: &str, scale, default| seam::Adapter { name: name.into(), path: "".into(), scale, default };
        vec![spec("a", 1.0, false), spec("b", 0.5, true)]
    }

    fn of(adaptation: Adaptation) -> Result<Option<Adapter>, String> {
        wanted(&specs(), &adaptation).map_err(|failure| failure.message)
    }

    fn named(name: &str, scale: Option<f32>) -> Adaptation {
        Adaptation::Adapter { name: name.to_owned(), scale }
    }

    #[test]
    fn a_request_gets_the_adapter_it_names_the_default_or_none() {
        assert_eq!(of(Adaptation::Default), Ok(Some(Adapter { index: 1, scale: 0.5 })));
        assert_eq!(of(Adaptation::Off), Ok(None));
        assert_eq!(of(named("a", None)), Ok(Some(Adapter { index: 0, scale: 1.0 })));
        assert_eq!(of(named("a", Some(-2.0))), Ok(Some(Adapter { index: 0, scale: -2.0 })));
        assert_eq!(of(named("b", Some(0.0))), Ok(None), "with no weight it is none");
        assert_eq!(wanted(&[], &Adaptation::Default), Ok(None));
    }

    #[test]
    fn an_unknown_adapter_and_a_scale_that_is_no_number_are_refused() {
        assert_eq!(of(named("c", None)), Err("the model has no adapter \"c\"; it has a, b".to_owned()));
        assert!(wanted(&[], &named("c", None)).unwrap_err().message.ends_with("it has none"));
        assert!(of(named("a", Some(f32::INFINITY))).is_err());
    }

    #[test]
    fn adapters_go_round_and_one_that_comes_new_is_next_after_those_that_wait() {
        let [plain, a, b] = [None, Some(Adapter::at(0)), Some(Adapter::at(1))];
        let mut rotation = Rotation::default();
        let mut next = |wanted: &[Option<Adapter>]| rotation.next(wanted);
        assert_eq!(next(&[plain]), plain);
        assert_eq!(next(&[plain, plain]), plain);
        assert_eq!(next(&[plain, a]), a, "it waits for one step only");
        assert_eq!(next(&[plain, a, b]), plain);
        assert_eq!(next(&[plain, a, b, a]), b);
        assert_eq!(next(&[plain, a, b]), a);
        assert_eq!(next(&[a, b]), b);
        assert_eq!(next(&[b]), b);
        assert_eq!(next(&[]), None);
    }

    proptest! {
        #[test]
        fn nobody_waits_for_more_steps_than_others_want_something_else(
            steps in prop::collection::vec(prop::collection::btree_set(0usize..5, 1..5), 1..60),
        ) {
            let mut rotation = Rotation::default();
            let mut waits = [0usize; 5];
            for wanted in steps {
                let adapters: Vec<_> = wanted.iter().map(|&index| Some(Adapter::at(index))).collect();
                let next = rotation.next(&adapters);
                let next = next.expect("somebody's").index;
                prop_assert!(wanted.contains(&next));
                for (index, waited) in waits.iter_mut().enumerate() {
                    *waited = if index == next || !wanted.contains(&index) { 0 } else { *waited + 1 };
                    prop_assert!(*waited < 5, "{index} waited {waited} steps");
                }
            }
        }
    }
}
