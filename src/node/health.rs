//! [`Health`]: whether a node is fit to take requests, by what probes find and what a person has decided, with the reasons in words.
//! Pure state.
//!
//! A breaker says what requests have found, and says it sooner; a probe says it of nodes that get none.

use serde::{Deserialize, Serialize};

use std::time::Duration;

use super::CanaryConfig;
use crate::units::{duration, range};

/// The `health` section: how remote nodes are probed. Workers have a probe of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Between two probes of a node, a tenth more or less.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// What a probe may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Probes in a row that must fail before a node gets nothing.
    pub failures: u32,
    /// Probes in a row that must succeed before it gets requests again.
    pub successes: u32,
    /// Generations of one token, for nodes that nobody asks anything.
    pub canary: CanaryConfig,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            failures: 3,
            successes: 2,
            canary: CanaryConfig::default(),
        }
    }
}

impl HealthConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let times = [
            ("interval", self.interval),
            ("timeout", self.timeout),
            ("canary.interval", self.canary.interval),
            ("canary.timeout", self.canary.timeout),
        ];
        let zero = times.into_iter().filter(|(_, time)| time.is_zero());
        let zero = zero.map(|(key, _)| (key, "must be more than 0".to_owned()));
        let counts = [("failures", self.failures), ("successes", self.successes)];
        let counts =
            counts.into_iter().filter_map(|(key, count)| Some((key, range::fault(count.into(), 1..=1000)?)));
        zero.chain(counts).collect()
    }
}

/// What a node may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Everything.
    #[default]
    Healthy,
    /// Everything, while something is wrong that has not lasted long enough.
    Degraded,
    /// Nothing, until probes succeed again.
    Unhealthy,
    /// Nothing, until a person says otherwise; what runs goes on.
    Draining,
}

impl Condition {
    /// Whether it gets requests.
    pub fn is_fit(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }

    /// Whether a person wants it to get none.
    pub fn is_drained(self) -> bool {
        self == Self::Draining
    }

    /// The word in the admin API and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// One node's.
#[derive(Clone, Debug, Default)]
pub struct Health {
    probes: Tally,
    canaries: Tally,
    /// How it is worse than the others that serve the same.
    odd: Option<String>,
    /// Why a person wants it drained.
    drained: Option<String>,
}

/// Checks of one kind, each of which has come back well or not.
#[derive(Clone, Debug, Default)]
struct Tally {
    is_unfit: bool,
    failures: u32,
    successes: u32,
    /// What the last one that failed has found.
    fault: String,
}

impl Tally {
    fn count(&mut self, found: Result<(), String>, config: &HealthConfig) {
        match found {
            Ok(()) => {
                (self.failures, self.successes) = (0, self.successes.saturating_add(1));
                self.is_unfit &= self.successes < config.successes;
            }
            Err(fault) => {
                (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
                self.is_unfit |= self.failures >= config.failures;
                self.fault = fault;
            }
        }
    }

    /// What is wrong, in words; `what` they are.
    fn reason(&self, what: &str) -> Option<String> {
        match (self.failures, self.is_unfit) {
            (0, false) => None,
            (0, true) => Some(format!("{what} succeed again, after: {}", self.fault)),
            (count, _) => Some(format!("{count} {what} in a row failed, the last one: {}", self.fault)),
        }
    }
}

/// The part of its requests that a node gets which answers much later than the others.
const ODD_SHARE: f64 = 0.25;

impl Health {
    /// A probe has come back; the reason if it failed.
    pub fn probed(&mut self, found: Result<(), String>, config: &HealthConfig) {
        self.probes.count(found, config);
    }

    /// A canary has come back; `None`: there was nothing to ask it for, so what earlier ones have found says nothing any more.
    pub fn sung(&mut self, found: Option<Result<(), String>>, config: &HealthConfig) {
        match found {
            Some(found) => self.canaries.count(found, config),
            None => self.canaries = Tally::default(),
        }
    }

    /// It was compared with the others: how it is worse, if it is.
    pub fn compared(&mut self, odd: Option<String>) {
        self.odd = odd;
    }

    /// The part of its requests that it should get.
    pub fn share(&self) -> f64 {
        if self.odd.is_some() { ODD_SHARE } else { 1.0 }
    }

    /// A person wants nothing to go there.
    pub fn drain(&mut self, reason: &str) {
        self.drained = Some(reason.to_owned());
    }

    /// A person lets requests go there again.
    pub fn enable(&mut self) {
        self.drained = None;
    }

    /// What it may be given.
    pub fn condition(&self) -> Condition {
        let failures = self.probes.failures + self.canaries.failures;
        match (&self.drained, self.probes.is_unfit || self.canaries.is_unfit, failures) {
            (Some(_), ..) => Condition::Draining,
            (None, true, _) => Condition::Unhealthy,
            (None, false, 0) if self.odd.is_none() => Condition::Healthy,
            (None, false, _) => Condition::Degraded,
        }
    }

    /// Why, in words; empty where all is well.
    pub fn reason(&self) -> String {
        let found = || self.probes.reason("probes").or_else(|| self.canaries.reason("canaries"));
        self.drained.clone().or_else(found).or_else(|| self.odd.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(health: &mut Health, outcomes: &str) -> Condition {
        for outcome in outcomes.chars() {
            let found = if outcome == '+' { Ok(()) } else { Err("refused".to_owned()) };
            health.probed(found, &HealthConfig::default());
        }
        health.condition()
    }

    #[test]
    fn three_probes_in_a_row_take_a_node_out_and_two_bring_it_back() {
        let mut health = Health::default();
        assert_eq!(health.condition(), Condition::Healthy);
        assert_eq!(probed(&mut health, "--"), Condition::Degraded);
        assert_eq!(probed(&mut health, "+--"), Condition::Degraded);
        assert_eq!(probed(&mut health, "-"), Condition::Unhealthy);
        assert_eq!(health.reason(), "3 probes in a row failed, the last one: refused");
        assert_eq!(probed(&mut health, "+-+"), Condition::Unhealthy);
        assert_eq!(health.reason(), "probes succeed again, after: refused");
        assert_eq!(probed(&mut health, "+"), Condition::Healthy);
        assert_eq!(health.reason(), "");
    }

    #[test]
    fn canaries_are_counted_for_themselves() {
        let (mut health, config) = (Health::default(), HealthConfig::default());
        for _ in 0..3 {
            health.sung(Some(Err("no token in time".to_owned())), &config);
            probed(&mut health, "+++");
        }
        assert_eq!(health.condition(), Condition::Unhealthy);
        assert_eq!(health.reason(), "3 canaries in a row failed, the last one: no token in time");
        health.sung(Some(Ok(())), &config);
        assert_eq!(health.condition(), Condition::Unhealthy);
        health.sung(Some(Ok(())), &config);
        assert_eq!(health.condition(), Condition::Healthy);
    }

    #[test]
    fn a_node_without_anything_to_ask_for_is_not_taken_out_for_ever() {
        let (mut health, config) = (Health::default(), HealthConfig::default());
        (0..3).for_each(|_| health.sung(Some(Err("oops".to_owned())), &config));
        health.sung(None, &config);
        assert_eq!((health.condition(), health.reason()), (Condition::Healthy, String::new()));
    }

    #[test]
    fn who_is_drained_stays_so_whatever_probes_find() {
        let mut health = Health::default();
        health.drain("new memory");
        assert_eq!(probed(&mut health, "++---"), Condition::Draining);
        assert_eq!(health.reason(), "new memory");
        health.enable();
        assert_eq!(health.condition(), Condition::Unhealthy);
    }

    #[test]
    fn who_is_worse_than_the_others_gets_less_and_is_told_why() {
        let mut health = Health::default();
        health.compared(Some("slow".to_owned()));
        assert_eq!((health.condition(), health.reason().as_str()), (Condition::Degraded, "slow"));
        assert!(health.share() < 1.0);
        health.compared(None);
        assert_eq!((health.condition(), health.share()), (Condition::Healthy, 1.0));
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        assert_eq!(HealthConfig::default().faults(), []);
        let wrong = HealthConfig { interval: Duration::ZERO, failures: 0, ..HealthConfig::default() };
        assert_eq!(
            wrong.faults().into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            ["interval", "failures"]
        );
    }
}
