//! [`Policy`]: which of the models that could leave memory leaves first. Pure: what happened and the time go in.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A use counts half as much after this long, where uses are counted.
const HALF_LIFE: Duration = Duration::from_secs(10 * 60);

/// How the one that leaves is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The one that was not used for the longest time.
    Lru,
    /// The one that is used least often, lately.
    Lfu,
    /// GreedyDual-Size-Frequency (Cherkasova 1998): the one for which uses times the time it takes to load again are least for its
    /// size.
    #[default]
    CostAware,
    /// The time it is likely to be missed for, times what loading it again takes: how often it was used lately, by how long ago.
    Hybrid,
}

impl Policy {
    /// As in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::CostAware => "cost_aware",
            Self::Hybrid => "hybrid",
        }
    }
}

/// What is known of a model in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Uses, each worth half after [`HALF_LIFE`], as of [`Record::used`].
    uses: f64,
    /// When it was used last; `None`: never.
    used: Option<Instant>,
    /// GreedyDual's clock at that time.
    clock: f64,
}

/// What a decision goes by beside the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Bytes that become free.
    pub size: u64,
    /// What loading it again takes.
    pub load: Duration,
}

/// The state of a policy: with each that leaves, GreedyDual's clock goes on to what that one was worth, so that whoever was worth
/// much once and is not used any more comes to leave too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock(f64);

impl Record {
    /// Of a model that nobody has used yet.
    pub fn new(clock: Clock) -> Self {
        Self { uses: 0.0, used: None, clock: clock.0 }
    }

    /// It is used once more.
    pub fn touch(&mut self, clock: Clock, now: Instant) {
        *self = Self { uses: self.uses(now) + 1.0, used: Some(now), clock: clock.0 };
    }

    /// How often it was used lately.
    pub fn uses(&self, now: Instant) -> f64 {
        self.uses * (-self.age(now) / HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Seconds since it was used last; as if just now before it was.
    fn age(&self, now: Instant) -> f64 {
        self.used.map_or(0.0, |used| now.saturating_duration_since(used).as_secs_f64())
    }

    /// How much it is worth to keep it; who is worth least leaves first.
    pub fn worth(&self, policy: Policy, cost: Cost, now: Instant) -> f64 {
        let idle = self.age(now);
        // A model that nobody has used yet is worth as much as with one use.
        let uses = self.uses(now).max(f64::MIN_POSITIVE);
        match policy {
            Policy::Lru => -idle,
            Policy::Lfu => uses,
            Policy::CostAware => self.clock + self.uses.max(1.0) * cost.per_byte(),
            Policy::Hybrid => uses * cost.per_byte() / (1.0 + idle),
        }
    }
}

impl Cost {
    /// Seconds of loading per GiB.
    fn per_byte(self) -> f64 {
        self.load.as_secs_f64().max(1e-3) / (self.size.max(1) as f64 / (1 << 30) as f64)
    }
}

impl Clock {
    /// One that was worth so much has left.
    pub fn left(&mut self, policy: Policy, worth: f64) {
        if policy == Policy::CostAware {
            self.0 = self.0.max(worth);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GIB: u64 = 1 << 30;

    /// Models by name with what they cost, and those that are in memory.
    struct Stage {
        policy: Policy,
        clock: Clock,
        now: Instant,
        records: Vec<(&'static str, Record, Cost)>,
    }

    impl Stage {
        fn new(policy: Policy) -> Self {
            Self { policy, clock: Clock::default(), now: Instant::now(), records: Vec::new() }
        }

        fn cost(&mut self, name: &'static str, size: u64, seconds: u64) -> &mut Self {
            let cost = Cost { size: size * GIB, load: Duration::from_secs(seconds) };
            self.records.push((name, Record::new(self.clock), cost));
            self
        }

        fn uses(&mut self, name: &str, count: usize) -> &mut Self {
            let (clock, now) = (self.clock, self.now);
            let (_, record, _) = self.records.iter_mut().find(|(known, ..)| *known == name).unwrap();
            (0..count).for_each(|_| record.touch(clock, now));
            self
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        /// Who leaves.
        fn evict(&mut self) -> &'static str {
            let worth = |(_, record, cost): &(_, Record, Cost)| record.worth(self.policy, *cost, self.now);
            let worths: Vec<_> = self.records.iter().map(worth).collect();
            let least = (0..worths.len()).min_by(|a, b| worths[*a].total_cmp(&worths[*b])).unwrap();
            self.clock.left(self.policy, worths[least]);
            self.records.remove(least).0
        }
    }

    #[test]
    fn least_recently_used_goes_by_time_alone() {
        let mut stage = Stage::new(Policy::Lru);
        stage.cost("often", 1, 60).cost("once", 1, 1).uses("often", 9).after(SECOND).uses("once", 1);
        assert_eq!(stage.evict(), "often");
    }

    #[test]
    fn least_frequently_used_goes_by_uses_which_fade() {
        let mut stage = Stage::new(Policy::Lfu);
        stage.cost("often", 1, 1).cost("once", 1, 1).uses("often", 9).after(SECOND).uses("once", 1);
        assert_eq!(stage.evict(), "once");
        let mut stage = Stage::new(Policy::Lfu);
        stage.cost("long ago", 1, 1).cost("lately", 1, 1).uses("long ago", 9);
        stage.after(6 * HALF_LIFE).uses("lately", 1);
        assert_eq!(stage.evict(), "long ago");
    }

    #[test]
    fn what_is_soon_loaded_again_or_takes_much_room_leaves_before_what_is_dear() {
        let mut stage = Stage::new(Policy::CostAware);
        stage.cost("dear", 4, 40).cost("cheap", 4, 2).cost("large", 40, 40);
        stage.uses("dear", 1).uses("cheap", 1).uses("large", 1);
        assert_eq!(stage.evict(), "cheap");
        assert_eq!(stage.evict(), "large");
    }

    #[test]
    fn what_was_dear_and_is_not_used_any_more_leaves_in_the_end() {
        let mut stage = Stage::new(Policy::CostAware);
        stage.cost("dear", 1, 10).uses("dear", 1);
        let mut evicted = Vec::new();
        for _ in 0..20 {
            stage.cost("cheap", 1, 1).uses("cheap", 1);
            evicted.push(stage.evict());
        }
        assert!(evicted.starts_with(&["cheap"; 8]), "{evicted:?}");
        assert!(evicted.contains(&"dear"), "{evicted:?}");
    }

    #[test]
    fn the_hybrid_weighs_time_uses_and_cost() {
        let mut stage = Stage::new(Policy::Hybrid);
        stage.cost("dear", 1, 60).cost("cheap", 1, 1).uses("dear", 1).uses("cheap", 1);
        assert_eq!(stage.evict(), "cheap");
        let mut stage = Stage::new(Policy::Hybrid);
        stage.cost("long ago", 1, 10).cost("lately", 1, 10).uses("long ago", 3);
        stage.after(600 * SECOND).uses("lately", 1);
        assert_eq!(stage.evict(), "long ago");
    }

    proptest! {
        /// Of two that differ in one thing only, the one that is better to keep is never worth less.
        #[test]
        fn more_uses_a_longer_load_and_fewer_bytes_never_make_it_worth_less(
            uses in 1..50_usize, more in 0..50_usize, size in 1..100_u64, bytes in 0..100_u64, load in 0..600_u64, longer in 0..600_u64,
            idle in 0..10_000_u64,
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(idle);
            for policy in [Policy::Lru, Policy::Lfu, Policy::CostAware, Policy::Hybrid] {
                let worth = |uses: usize, size: u64, load: u64| {
                    let mut record = Record::new(Clock::default());
                    (0..uses).for_each(|_| record.touch(Clock::default(), start));
                    record.worth(policy, Cost { size: size * GIB, load: Duration::from_secs(load) }, now)
                };
                let base = worth(uses, size, load);
                prop_assert!(base.is_finite());
                prop_assert!(worth(uses + more, size, load) >= base);
                prop_assert!(worth(uses, size + bytes, load) <= base);
                prop_assert!(worth(uses, size, load + longer) >= base);
            }
        }
    }
}
