//! The `routing` section. Each strategy has its own settings in its own file; here they become one section.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::learned::LearnedConfig;
use super::lowest_latency::LowestLatencyConfig;
use super::multi_objective::MultiObjectiveConfig;
use super::prefix_affinity::PrefixAffinityConfig;
use super::priority::PriorityConfig;
use super::resource_aware::ResourceAwareConfig;
use super::session_affinity::SessionAffinityConfig;
use super::sites::SitesConfig;
use crate::dialect::name;
use crate::units::{range, size};

/// Which node gets a request when several can take it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    /// The algorithm.
    pub strategy: StrategyName,
    /// The algorithms of models that have another one, by the model's name.
    pub pools: BTreeMap<String, StrategyName>,
    /// Decisions that are remembered.
    pub decisions: usize,
    /// Where clients are.
    pub sites: SitesConfig,
    /// What nodes have read.
    pub prefix_index: PrefixIndexConfig,
    /// Settings of the strategy.
    pub resource_aware: ResourceAwareConfig,
    /// Settings of the strategy.
    pub session_affinity: SessionAffinityConfig,
    /// Settings of the strategy.
    pub prefix_affinity: PrefixAffinityConfig,
    /// Settings of the strategy.
    pub lowest_latency: LowestLatencyConfig,
    /// Settings of the strategy.
    pub priority: PriorityConfig,
    /// Settings of the strategy.
    pub multi_objective: MultiObjectiveConfig,
    /// Settings of the strategy.
    pub learned: LearnedConfig,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            strategy: StrategyName::default(),
            pools: BTreeMap::new(),
            decisions: 256,
            sites: SitesConfig::default(),
            prefix_index: PrefixIndexConfig::default(),
            resource_aware: ResourceAwareConfig::default(),
            session_affinity: SessionAffinityConfig::default(),
            prefix_affinity: PrefixAffinityConfig::default(),
            lowest_latency: LowestLatencyConfig::default(),
            priority: PriorityConfig::default(),
            multi_objective: MultiObjectiveConfig::default(),
            learned: LearnedConfig::default(),
        }
    }
}

impl RoutingConfig {
    /// What is wrong with keys of this section, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let decisions =
            range::fault(self.decisions as u64, 0..=100_000).map(|message| ("decisions", message));
        let nameless = self.pools.keys().find(|model| name::key(model).is_none());
        let nameless = nameless.map(|model| ("pools", format!("{model:?} cannot be the name of a model")));
        decisions.into_iter().chain(nameless).collect()
    }

    /// The same for the sections within it, by their keys.
    pub fn section_faults(&self) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
        vec![
            ("sites", self.sites.faults()),
            ("prefix_index", self.prefix_index.faults()),
            ("resource_aware", self.resource_aware.faults()),
            ("session_affinity", self.session_affinity.faults()),
            ("prefix_affinity", self.prefix_affinity.faults()),
            ("lowest_latency", self.lowest_latency.faults()),
            ("priority", self.priority.faults()),
            ("multi_objective", self.multi_objective.faults()),
            ("learned", self.learned.faults()),
        ]
    }
}

/// The algorithms there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// The node with the least to do per place, counted in tokens.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// One after the other, by weight.
    Weighted,
    /// Drawn by weight.
    Random,
    /// The less loaded of two that are drawn.
    PowerOfTwo,
    /// The node whose processors, memory, KV cells and queue are used least.
    ResourceAware,
    /// The nearest node.
    Geographic,
    /// The node of the session.
    SessionAffinity,
    /// The node that has read most of the prompt.
    PrefixAffinity,
    /// The node that was fastest lately.
    LowestLatency,
    /// Lower tiers first.
    Priority,
    /// A weighted sum of latency, load, memory, cost, distance and reuse.
    MultiObjective,
    /// The node that is predicted to answer first.
    Learned,
}

impl StrategyName {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::RoundRobin,
        Self::Weighted,
        Self::Random,
        Self::PowerOfTwo,
        Self::LeastLoaded,
        Self::ResourceAware,
        Self::Geographic,
        Self::SessionAffinity,
        Self::PrefixAffinity,
        Self::LowestLatency,
        Self::Priority,
        Self::MultiObjective,
        Self::Learned,
    ];

    /// As the config has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastLoaded => "least_loaded",
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::Random => "random",
            Self::PowerOfTwo => "power_of_two",
            Self::ResourceAware => "resource_aware",
            Self::Geographic => "geographic",
            Self::SessionAffinity => "session_affinity",
            Self::PrefixAffinity => "prefix_affinity",
            Self::LowestLatency => "lowest_latency",
            Self::Priority => "priority",
            Self::MultiObjective => "multi_objective",
            Self::Learned => "learned",
        }
    }
}

/// What is remembered of the prompts that nodes have read; for `prefix_affinity`, `multi_objective` and `learned`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixIndexConfig {
    /// Most bytes per pool.
    #[serde(with = "size")]
    pub memory: u64,
}

impl Default for PrefixIndexConfig {
    fn default() -> Self {
        Self { memory: 64 << 20 }
    }
}

impl PrefixIndexConfig {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let is_sound = (1 << 20..=64 << 30).contains(&self.memory);
        let fault = (!is_sound).then(|| ("memory", "must be from 1MiB to 64GiB".to_owned()));
        fault.into_iter().collect()
    }
}

/// What is wrong with a number that has to be in `range`.
pub(super) fn number(
    key: &'static str,
    value: f64,
    range: RangeInclusive<f64>,
) -> Option<(&'static str, String)> {
    let fault = || (key, format!("must be a number from {} to {}", range.start(), range.end()));
    (!range.contains(&value)).then(fault)
}
