//! (being built)

mod config;

pub use config::{RoutingConfig, StrategyName};
