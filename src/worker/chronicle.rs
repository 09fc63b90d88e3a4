//! [`Chronicle`]: the last things that have happened to models in memory, for people who ask why.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::action::Action;

/// How many are kept.
const MOST: usize = 200;

/// Something that has happened to a model. What it has none of is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Counts events; later ones have higher numbers.
    pub number: u64,
    /// When it was, in seconds since 1970.
    pub unix_seconds: u64,
    /// The model.
    pub model: String,
    /// `load_begun`, `loading`, `ready`, `load_failed`, `refused`, `lost`, `evicted`, `expected` or `preload`.
    pub event: &'static str,
    /// Why: in words, or as the metric of the same event has it.
    pub reason: Option<String>,
    /// How much of it is loaded, 0 to 1.
    pub progress: Option<f32>,
    /// What it took.
    pub seconds: Option<f64>,
}

/// What has happened, as much as there is room for.
#[derive(Default)]
pub(super) struct Chronicle {
    events: VecDeque<Event>,
    next: u64,
}

impl Chronicle {
    /// Takes note of what is done, if people want to know of it.
    pub(super) fn note(&mut self, action: &Action, at: SystemTime) {
        let Some(event) = event(action) else { return };
        let unix_seconds = at.duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
        if self.events.len() >= MOST {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.next, unix_seconds, ..event });
        self.next += 1;
    }

    /// The last ones, the latest first.
    pub(super) fn last(&self, count: usize) -> Vec<Event> {
        self.events.iter().rev().take(count).cloned().collect()
    }
}

/// What an action is to people, without number and time.
fn event(action: &Action) -> Option<Event> {
    let new = |model: &str, event| Event {
        number: 0,
        unix_seconds: 0,
        model: model.to_owned(),
        event,
        reason: None,
        progress: None,
        seconds: None,
    };
    Some(match action {
        Action::Spawn(start) => new(&start.model.name, "load_begun"),
        Action::Progressed(model, progress) => {
            Event { progress: Some(*progress), ..new(&model.name, "loading") }
        }
        Action::Loaded(start, took) => {
            Event { seconds: Some(took.as_secs_f64()), ..new(&start.model.name, "ready") }
        }
        Action::LoadFailed(start, error) => {
            Event { reason: Some(error.to_string()), ..new(&start.model.name, "load_failed") }
        }
        Action::Refused(model, error) => {
            Event { reason: Some(error.to_string()), ..new(&model.name, "refused") }
        }
        Action::Lost(start, _, reason) => {
            Event { reason: Some(reason.clone()), ..new(&start.model.name, "lost") }
        }
        Action::Evicted(model, eviction) => {
            Event { reason: Some(eviction.as_str().to_owned()), ..new(&model.name, "evicted") }
        }
        Action::Expect(prediction) => {
            Event { reason: Some(prediction.reason()), ..new(&prediction.model, "expected") }
        }
        Action::Preloaded(model, what) => {
            Event { reason: Some(what.as_str().to_owned()), ..new(&model.name, "preload") }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{Library, ModelConfig};
    use crate::worker::action::Eviction;
    use crate::worker::memory::Scale;

    #[test]
    fn the_last_ones_are_kept_and_told_the_latest_first() {
        let library = Library::open([("m".to_owned(), ModelConfig::at("/m.gguf"))], "/".as_ref());
        let model = library.resolve("m").unwrap().unwrap().model;
        let mut chronicle = Chronicle::default();
        let at = UNIX_EPOCH + Duration::from_millis(7500);
        for _ in 0..MOST {
            chronicle.note(&Action::Progressed(model.clone(), 0.5), at);
        }
        let scale = Scale { ladder: Vec::new(), has_gpu: false };
        chronicle.note(&Action::Weigh(model.clone(), scale), at);
        chronicle.note(&Action::Evicted(model, Eviction::Memory), at);
        let told = chronicle.last(2);
        assert_eq!(
            told.iter().map(|event| (event.number, event.event)).collect::<Vec<_>>(),
            [(200, "evicted"), (199, "loading")]
        );
        assert_eq!(
            (told[0].unix_seconds, told[0].reason.as_deref(), told[1].progress),
            (7, Some("memory"), Some(0.5))
        );
        assert_eq!(chronicle.last(usize::MAX).len(), MOST);
    }
}
