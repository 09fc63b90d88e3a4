//! The `routing` section.

use serde::{Deserialize, Serialize};

/// How nodes are chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingConfig {
    /// The algorithm.
    pub strategy: StrategyName,
}

/// The strategies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// Fewest exchanges per place.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
}
