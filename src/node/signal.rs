//! [`Signal`]: how loaded a node says it is.

use std::time::{Duration, Instant, SystemTime};

use crate::generation::seam::Vitals;

/// How long a signal is believed. What is older says nothing, which is not the same as saying that nothing runs.
const BELIEVED: Duration = Duration::from_secs(15);

/// What a node said about its load, each part as far as its protocol tells it. `None` is not known, never zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signal {
    /// Part of its processors in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Bytes of memory in use.
    pub memory: Option<u64>,
    /// Part of its KV cells in use, 0 to 1.
    pub kv: Option<f64>,
    /// Requests that wait.
    pub queue: Option<u64>,
    /// Tokens of prompts that it can keep in memory.
    pub keeps: Option<u64>,
    /// Requests that run.
    pub active: Option<u64>,
    /// The models in its memory, by the names it has for them.
    pub resident: Option<Vec<Resident>>,
    /// When it said so; `None`: it has said nothing yet.
    pub at: Option<Instant>,
}

/// A model in a node's memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resident {
    /// The node's name for it.
    pub name: String,
    /// Bytes in use.
    pub memory: u64,
    /// The part on GPUs.
    pub device_memory: u64,
    /// When it will be unloaded if nothing comes; `None`: never, or not told.
    pub expires: Option<SystemTime>,
    /// Context in tokens; 0: not told.
    pub context: u64,
}

impl From<&Vitals> for Signal {
    /// What idle prefixes take of the cells is there for whoever needs it, so it is not in use.
    fn from(vitals: &Vitals) -> Self {
        let cells = Some(vitals.kv_total).filter(|cells| *cells > 0);
        Self {
            memory: Some(vitals.resident_bytes),
            kv: cells.map(|cells| (vitals.kv_busy as f64 / cells as f64).min(1.0)),
            keeps: cells,
            queue: Some(vitals.waiting as u64),
            active: Some(vitals.busy as u64),
            ..Self::default()
        }
    }
}

impl Signal {
    /// The signal as far as it can be believed at `now`: an old one is unknown.
    pub fn fresh(&self, now: Instant) -> Option<&Self> {
        self.at.filter(|at| now.saturating_duration_since(*at) <= BELIEVED).map(|_| self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_signal_is_unknown() {
        let now = Instant::now();
        let signal = Signal { active: Some(3), at: Some(now), ..Signal::default() };
        assert_eq!(signal.fresh(now).and_then(|signal| signal.active), Some(3));
        assert_eq!(signal.fresh(now + BELIEVED + Duration::from_millis(1)), None);
        assert_eq!(Signal::default().fresh(now), None, "nothing was said yet");
    }
}
