//! The `breaker` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{duration, range};

/// When a node is left alone because it fails, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub consecutive_failures: u32,
    /// Share of requests in the window that fail; 0 to 1, 0: not looked at.
    pub error_rate: f64,
    /// Requests in the window before a rate says anything.
    pub min_requests: u32,
    /// What the rates are of.
    #[serde(with = "duration")]
    pub window: Duration,
    /// A call whose first event takes longer is slow; zero: none is.
    #[serde(with = "duration")]
    pub slow_call: Duration,
    /// Share of requests in the window that are slow; 0 to 1.
    pub slow_rate: f64,
    /// How long it is open the first time; doubles with each further time.
    #[serde(with = "duration")]
    pub open: Duration,
    /// The longest.
    #[serde(with = "duration")]
    pub open_max: Duration,
    /// Requests that try at once whether the node is back, and how many of them must succeed.
    pub half_open: u32,
    /// Over what time a node that is back gets back to its full part of the requests.
    #[serde(with = "duration")]
    pub slow_start: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            error_rate: 0.5,
            min_requests: 10,
            window: Duration::from_secs(60),
            slow_call: Duration::ZERO,
            slow_rate: 0.5,
            open: Duration::from_secs(30),
            open_max: Duration::from_secs(5 * 60),
            half_open: 1,
            slow_start: Duration::from_secs(30),
        }
    }
}

impl BreakerConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let counts = [
            ("consecutive_failures", self.consecutive_failures),
            ("min_requests", self.min_requests),
            ("half_open", self.half_open),
        ];
        let mut faults: Vec<_> = counts
            .into_iter()
            .filter_map(|(key, count)| Some((key, range::fault(count.into(), 1..=1_000_000)?)))
            .collect();
        for (key, rate) in [("error_rate", self.error_rate), ("slow_rate", self.slow_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                faults.push((key, "must be from 0 to 1".to_owned()));
            }
        }
        for (key, time) in [("window", self.window), ("open", self.open)] {
            if time.is_zero() {
                faults.push((key, "must be more than 0".to_owned()));
            }
        }
        if self.open_max < self.open {
            let open = duration::format(self.open);
            faults.push(("open_max", format!("must not be less than open, which is {open}")));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_names_its_key() {
        assert_eq!(BreakerConfig::default().faults(), []);
        let wrong = BreakerConfig {
            consecutive_failures: 0,
            error_rate: 1.5,
            window: Duration::ZERO,
            open_max: Duration::from_secs(1),
            ..BreakerConfig::default()
        };
        let keys: Vec<_> = wrong.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["consecutive_failures", "error_rate", "window", "open_max"]);
    }
}
