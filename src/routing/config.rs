//! The `routing` section.

use serde::{Deserialize, Serialize};

/// Which node gets a request when several can take it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    /// The algorithm.
    pub strategy: StrategyName,
}

/// The algorithms there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// The node with the smallest part of its places in use.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
}
