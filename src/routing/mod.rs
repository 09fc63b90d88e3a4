//! Routing: which of the nodes that could run a generation gets it. A strategy orders candidates and does nothing else:
//! no I/O, no clock, no health; nodes that are down or were tried are left out before it is asked.

mod config;
mod least_loaded;
mod round_robin;

pub use config::{RoutingConfig, StrategyName};

/// What a strategy sees of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The node's name.
    pub name: std::sync::Arc<str>,
    /// Exchanges running on it.
    pub in_flight: usize,
    /// Sequences it can run at once, at least 1.
    pub parallel: usize,
}

/// A routing algorithm.
pub trait Strategy: Send + Sync {
    /// The index of the best candidate; `None` only if there are none.
    fn choose(&self, candidates: &[Candidate]) -> Option<usize>;
}

/// The configured strategy. The only place that knows them all.
pub fn build(config: &RoutingConfig) -> Box<dyn Strategy> {
    match config.strategy {
        StrategyName::LeastLoaded => Box::new(least_loaded::LeastLoaded),
        StrategyName::RoundRobin => Box::new(round_robin::RoundRobin::default()),
    }
}
