//! [`Late`]: when an answer is late, by the config or by how long others took to begin.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::duration;

/// Beginnings that are remembered per model.
const REMEMBERED: usize = 128;
/// Fewer say nothing about the slowest of them.
const ENOUGH: usize = 20;

/// When an answer that has not begun is late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// Never.
    #[default]
    Never,
    /// After so long.
    After(Duration),
    /// Once so many percent of the model's latest answers had begun.
    Percentile(u8),
}

/// What is none of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected off, a time such as \"500ms\", or a percentile from \"p50\" to \"p99\"")]
pub struct NotLate;

impl FromStr for Late {
    type Err = NotLate;

    fn from_str(text: &str) -> Result<Self, NotLate> {
        if text == "off" {
            return Ok(Self::Never);
        }
        if let Some(percent) = text.strip_prefix('p') {
            let percent = percent.parse().ok().filter(|percent| (50..=99).contains(percent));
            return percent.map(Self::Percentile).ok_or(NotLate);
        }
        duration::parse(text).filter(|time| !time.is_zero()).map(Self::After).ok_or(NotLate)
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("off"),
            Self::After(time) => f.write_str(&duration::format(*time)),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

impl<'de> Deserialize<'de> for Late {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Late {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long the latest answers of each model took to begin.
#[derive(Debug, Default)]
pub(super) struct Beginnings(Mutex<HashMap<Arc<str>, VecDeque<Duration>>>);

impl Beginnings {
    /// After how long an answer of the model is late; `None`: never, or there were too few to tell.
    pub(super) fn late(&self, model: &str, late: Late) -> Option<Duration> {
        let percent = match late {
            Late::Never => return None,
            Late::After(time) => return Some(time),
            Late::Percentile(percent) => usize::from(percent),
        };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times: Vec<_> = known.get(model)?.iter().copied().collect();
        let at = times.len() * percent / 100;
        (times.len() >= ENOUGH).then(|| *times.select_nth_unstable(at).1)
    }

    /// An answer of the model has begun after `took`.
    pub(super) fn note(&self, model: &Arc<str>, late: Late, took: Duration) {
        if !matches!(late, Late::Percentile(_)) {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = known.entry(Arc::clone(model)).or_default();
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_a_time_or_a_percentile_or_never() {
        let known = [
            ("off", Late::Never),
            ("1m30s", Late::After(Duration::from_secs(90))),
            ("p95", Late::Percentile(95)),
        ];
        for (text, late) in known {
            assert_eq!((text.parse(), late.to_string().as_str()), (Ok(late), text));
        }
        for text in ["", "0s", "p49", "p100", "p", "95", "on"] {
            assert_eq!(text.parse::<Late>(), Err(NotLate), "{text}");
        }
    }

    #[test]
    fn a_percentile_is_of_the_latest_beginnings_of_a_model_once_there_are_enough() {
        let (beginnings, model, late) = (Beginnings::default(), Arc::from("m"), Late::Percentile(90));
        for millis in 1..ENOUGH as u64 {
            beginnings.note(&model, late, Duration::from_millis(millis));
        }
        assert_eq!(beginnings.late("m", late), None);
        beginnings.note(&model, late, Duration::from_millis(20));
        assert_eq!(beginnings.late("m", late), Some(Duration::from_millis(19)));
        assert_eq!(beginnings.late("other", late), None);
        (0..REMEMBERED).for_each(|_| beginnings.note(&model, late, Duration::from_secs(1)));
        assert_eq!(beginnings.late("m", late), Some(Duration::from_secs(1)));
        assert_eq!(beginnings.late("m", Late::After(Duration::MAX)), Some(Duration::MAX));
    }
}
