//! [`Scenario`]: what is simulated.

use std::path::PathBuf;

use arriero::routing::StrategyName;

use crate::Outcome;

/// What is simulated; all of it is drawn from the seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub nodes: usize,
    /// Sequences that a node runs at once.
    pub places: usize,
    /// Requests in relation to what the nodes can do if every shared beginning is read once.
    pub load: f64,
    /// Part of the prompts that begin like others.
    pub shared: f64,
    /// Every second node is this many times slower.
    pub slow: f64,
    /// Part of the nodes that die, at any time, and come back.
    pub failing: f64,
    /// Part of the nodes that do not have the model in memory.
    pub cold: f64,
    /// How long, the first fifth of which is not counted.
    pub seconds: f64,
    /// What a time to first token may be.
    pub objective: f64,
    pub seed: u64,
    /// Requests from a file instead.
    pub trace: Option<PathBuf>,
    /// Where to write the requests.
    pub record: Option<PathBuf>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes: 32,
            places: 8,
            load: 0.9,
            shared: 0.6,
            slow: 1.0,
            failing: 0.0,
            cold: 0.0,
            seconds: 600.0,
            objective: 3.0,
            seed: 7,
            trace: None,
            record: None,
        }
    }
}

impl Scenario {
    /// One argument of the command line.
    pub fn set(&mut self, key: &str, value: &str) -> Outcome<()> {
        match key {
            "--nodes" => self.nodes = value.parse()?,
            "--places" => self.places = value.parse()?,
            "--load" => self.load = value.parse()?,
            "--shared" => self.shared = value.parse()?,
            "--slow" => self.slow = value.parse()?,
            "--failing" => self.failing = value.parse()?,
            "--cold" => self.cold = value.parse()?,
            "--seconds" => self.seconds = value.parse()?,
            "--objective" => self.objective = value.parse()?,
            "--seed" => self.seed = value.parse()?,
            "--trace" => self.trace = Some(value.into()),
            "--record" => self.record = Some(value.into()),
            _ => return Err(format!("{key} is not known; see benches/simulate/main.rs").into()),
        }
        Ok(())
    }

    /// How many times slower the node with this number is.
    pub fn slowness(&self, node: usize) -> f64 {
        if node % 2 == 1 { self.slow } else { 1.0 }
    }
}

/// Who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser {
    Strategy(StrategyName),
    /// Somebody who knows what no proxy can; see `oracle.rs`.
    Oracle,
}

impl Chooser {
    pub fn named(name: &str) -> Outcome<Self> {
        if name == "oracle" {
            return Ok(Self::Oracle);
        }
        let found = StrategyName::ALL.into_iter().find(|strategy| strategy.as_str() == name);
        found.map(Self::Strategy).ok_or_else(|| format!("{name} is no strategy").into())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Strategy(name) => name.as_str(),
            Self::Oracle => "oracle",
        }
    }
}
