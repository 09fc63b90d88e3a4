//! Routing: which of the nodes that could run a generation gets it. A strategy orders candidates and does nothing else: no I/O, no
//! clock, no health; nodes that are down or were tried are left out before it is asked.
//!
//! Asking changes nothing. What was sent, and what became of it, is told with [`Strategy::observe`]; so a decision that nobody
//! carries out can be asked for, and it is the one that would be made.

mod candidate;
mod config;
mod decision;
mod decisions;
mod digest;
mod draw;
mod geographic;
mod learned;
mod least_loaded;
mod lowest_latency;
mod measures;
mod multi_objective;
mod order;
mod outcome;
mod per_node;
mod pools;
mod power_of_two;
mod prefix;
mod prefix_affinity;
mod prefix_index;
mod priority;
mod random;
mod resource_aware;
mod round_robin;
mod session_affinity;
mod site;
mod sites;
mod weighted;

#[cfg(test)]
mod tests;

use std::time::Instant;

pub use candidate::{Candidate, NodeId, Residency, Signals};
pub use config::{RoutingConfig, StrategyName};
pub use decision::{Decision, Scored, explain};
pub use decisions::{Actual, Decisions, Record};
pub use digest::Digest;
pub use order::{Order, Pick, Reason, Row};
pub use outcome::Outcome;
pub use prefix::{Prefix, PrefixWriter};
pub use site::{Location, Site, Zone};
pub use sites::{Cidr, NetworkConfig, Sites, SitesConfig};

use draw::Dice;

/// A routing algorithm. One is for one pool: the nodes that serve one model.
pub trait Strategy: Send + Sync {
    /// Puts `candidates` in order for the request: one row each, in the candidates' order. Changes nothing that another decision
    /// depends on.
    fn rank(&self, digest: &Digest, candidates: &[Candidate], now: Instant, order: &mut Order);

    /// Learns what became of a request that was sent to `pick`.
    fn observe(&self, digest: &Digest, pick: &Pick, outcome: &Outcome, now: Instant) {
        let _ = (digest, pick, outcome, now);
    }
}

/// The configured strategies, one per pool, as one.
pub fn build(config: &RoutingConfig) -> Box<dyn Strategy> {
    build_seeded(config, rand::random())
}

/// The same with everything that is left to chance drawn from `seed`.
pub fn build_seeded(config: &RoutingConfig, seed: u64) -> Box<dyn Strategy> {
    Box::new(pools::Pools::new(config.clone(), seed))
}

/// A strategy for one pool. The only place that knows them all.
fn strategy(name: StrategyName, config: &RoutingConfig, seed: u64) -> Box<dyn Strategy> {
    let dice = Dice::new(seed);
    match name {
        StrategyName::LeastLoaded => Box::new(least_loaded::LeastLoaded),
        StrategyName::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        StrategyName::Weighted => Box::new(weighted::Weighted::default()),
        StrategyName::Random => Box::new(random::Random(dice)),
        StrategyName::PowerOfTwo => Box::new(power_of_two::PowerOfTwo(dice)),
        StrategyName::ResourceAware => Box::new(resource_aware::ResourceAware(config.resource_aware.clone())),
        StrategyName::Geographic => Box::new(geographic::Geographic),
        StrategyName::SessionAffinity => {
            Box::new(session_affinity::SessionAffinity(config.session_affinity.clone()))
        }
        StrategyName::PrefixAffinity => Box::new(prefix_affinity::PrefixAffinity::new(
            config.prefix_affinity.clone(),
            config.prefix_index,
        )),
        StrategyName::LowestLatency => {
            Box::new(lowest_latency::LowestLatency::new(config.lowest_latency.clone()))
        }
        StrategyName::Priority => {
            let within = strategy(config.priority.within, config, seed);
            Box::new(priority::Priority { within, spill: config.priority.spill as f32 })
        }
        StrategyName::MultiObjective => Box::new(multi_objective::MultiObjective::new(config)),
        StrategyName::Learned => {
            Box::new(learned::Learned::new(config.learned.clone(), config.prefix_index, dice))
        }
    }
}
