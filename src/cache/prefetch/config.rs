//! The `cache.prefetch` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{duration, size};

/// When answers are made before anybody asks for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefetchConfig {
    /// Whether they are.
    pub enabled: bool,
    /// How likely a request must be, 0 to 1.
    pub threshold: f64,
    /// How many are computed at once, all models together.
    pub in_flight: usize,
    /// The longest pause between two requests that belong together, and the time after which an unused answer counts as wasted.
    #[serde(with = "duration")]
    pub window: Duration,
    /// After this time what was seen counts half.
    #[serde(with = "duration")]
    pub half_life: Duration,
    /// What requests and their sequences may take in memory, in bytes.
    #[serde(with = "size")]
    pub memory: u64,
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            threshold: 0.5,
            in_flight: 1,
            window: Duration::from_secs(5 * 60),
            half_life: Duration::from_secs(3600),
            memory: 16 << 20,
        }
    }
}

impl PrefetchConfig {
    /// What is wrong, with the key of `cache` it is wrong with.
    pub(in crate::cache) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            faults.push(("prefetch.threshold", "must be more than 0 and at most 1".to_owned()));
        }
        if self.in_flight == 0 {
            faults.push(("prefetch.in_flight", "must be at least 1".to_owned()));
        }
        for (key, time) in [("prefetch.window", self.window), ("prefetch.half_life", self.half_life)] {
            if time.is_zero() || time > LONGEST {
                faults.push((key, "must be more than 0s and at most a week".to_owned()));
            }
        }
        faults
    }
}

/// What is older says nothing of what comes next.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_named_by_their_keys() {
        assert_eq!(PrefetchConfig::default().faults(), []);
        let config = json!({ "threshold": 0, "in_flight": 0, "window": "0s", "half_life": "1000h" });
        let config: PrefetchConfig = serde_json::from_value(config).unwrap();
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        let expected = ["prefetch.threshold", "prefetch.in_flight", "prefetch.window", "prefetch.half_life"];
        assert_eq!(keys, expected);
    }
}
