//! [`Pools`]: a strategy of its own for each model, so that what one learns or counts is about one pool.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use super::draw::mix;
use super::{
    Candidate, Digest, NodeId, Order, Outcome, Pick, RoutingConfig, Strategy, StrategyName, strategy,
};
use crate::dialect::name;

/// Makes a model's strategy when its first request comes. Models are the configured ones, so there are never many.
pub(super) struct Pools {
    config: RoutingConfig,
    /// By the key of a model's name.
    named: HashMap<String, StrategyName>,
    seed: u64,
    made: RwLock<HashMap<Arc<str>, Arc<dyn Strategy>>>,
}

impl Pools {
    pub(super) fn new(config: RoutingConfig, seed: u64) -> Self {
        let named = config.pools.iter().filter_map(|(model, strategy)| Some((name::key(model)?, *strategy)));
        Self { named: named.collect(), config, seed, made: RwLock::default() }
    }

    fn of(&self, model: &Arc<str>) -> Arc<dyn Strategy> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.get(model) {
            return Arc::clone(made);
        }
        drop(made);
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(made.entry(Arc::clone(model)).or_insert_with(|| {
            let named = name::key(model).and_then(|key| self.named.get(&key)).copied();
            let seed = mix(self.seed ^ NodeId::of(model).0);
            strategy(named.unwrap_or(self.config.strategy), &self.config, seed).into()
        }))
    }
}

impl Strategy for Pools {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], now: Instant, order: &mut Order) {
        self.of(&digest.model).rank(digest, candidates, now, order);
    }

    fn observe(&self, digest: &Digest, pick: &Pick, outcome: &Outcome, now: Instant) {
        self.of(&digest.model).observe(digest, pick, outcome, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_its_strategy_and_its_own_state() {
        let pools =
            [("Small".to_owned(), StrategyName::RoundRobin), ("other".to_owned(), StrategyName::RoundRobin)];
        let pools = Pools::new(RoutingConfig { pools: pools.into(), ..RoutingConfig::default() }, 0);
        let candidates = [Candidate::new("a", 1), Candidate::new("b", 1)];
        let now = Instant::now();
        let send = |model: &str| {
            let (digest, mut order) = (Digest::of_bytes(model, b""), Order::default());
            pools.rank(&digest, &candidates, now, &mut order);
            let index = order.take().unwrap();
            pools.observe(&digest, &order.pick(index, &candidates).unwrap(), &Outcome::Sent, now);
            (order.strategy(), index)
        };
        for turn in [0, 1, 0] {
            assert_eq!(send("small:latest"), (StrategyName::RoundRobin, turn));
            assert_eq!(send("other"), (StrategyName::RoundRobin, turn));
            assert_eq!(send("third"), (StrategyName::LeastLoaded, 0));
        }
    }
}
