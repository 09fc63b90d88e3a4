//! Another `memory` section while models are in memory.

use std::sync::Arc;
use std::time::Instant;

use super::Residency;
use crate::worker::action::{Action, Eviction};
use crate::worker::memory::{Limits, MemoryConfig, Need, Waiting, plan};

/// The key of a model that does not exist.
const NOBODY: u64 = u64::MAX;

impl Residency {
    /// Goes on under another section. Where there is more in memory than it allows, those that nobody uses leave as soon as that helps.
    pub(in crate::worker) fn renew_memory(&mut self, config: MemoryConfig) {
        if self.memory.config == config {
            return;
        }
        let did_count = self.memory.counts();
        self.memory.config = config;
        self.is_tight = true;
        self.unweigh();
        if self.memory.counts() && !did_count {
            // What came while bytes did not count was not weighed.
            let (live, scale) = (self.residents.values().filter(|it| it.is_live()), self.memory.scale());
            self.out.extend(live.map(|it| Action::Weigh(Arc::clone(&it.model), scale.clone())));
        }
    }

    /// Has idle models leave until all that is in memory fits, as if for one that takes nothing.
    pub(super) fn shed(&mut self, now: Instant) {
        if !self.is_tight {
            return;
        }
        let nobody = Waiting {
            key: NOBODY,
            needs: vec![Need::default()],
            before_eviction: 1,
            is_due: false,
            is_pressed: false,
            is_modest: false,
        };
        // How many there are is no matter of this section, and what other processes leave counts for who comes alone.
        let limits = Limits { count: usize::MAX, room: None, ..self.limits() };
        let moves = plan(&self.occupants(now), &[nobody], &limits);
        self.is_tight = moves.start.is_empty() && moves.refuse.is_empty();
        for key in moves.evict {
            if let Some(resident) = self.residents.get_mut(&key) {
                let worth = resident.stake.worth(self.memory.config.policy, resident.replicas.len(), now);
                self.memory.clock.left(self.memory.config.policy, worth);
                resident.evict(Eviction::Memory, &self.config, now, &mut self.out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::units::share::Share;
    use crate::worker::residency::crowded::{World, eager, ten_bytes};

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(world: &mut World, bytes: u64) {
        let config = MemoryConfig { budget: Share::Bytes(bytes), ..eager() };
        world.act(|residency, _| residency.renew_memory(config));
    }

    #[test]
    fn with_a_smaller_budget_those_that_nobody_uses_leave_and_with_a_larger_one_who_waits_comes() {
        let mut world = World::new(eager(), &[("a", 3), ("b", 4), ("c", 3)]);
        for name in ["a", "b", "c"] {
            world.hold(name).pass(SECOND);
        }
        world.release("a").events();
        budget(&mut world, 9);
        assert_eq!(world.events(), "evict a");
        world.pass(SECOND).hold("a").pass(SECOND);
        assert_eq!(world.events(), "", "there is no room for it");
        budget(&mut world, 10);
        assert_eq!(world.events(), "spawn a-0");
    }

    #[test]
    fn where_all_are_in_use_they_leave_when_they_are_not() {
        let mut world = World::new(ten_bytes(), &[("a", 5), ("b", 5)]);
        world.hold("a").hold("b").pass(2 * SECOND).events();
        budget(&mut world, 5);
        world.pass(60 * SECOND);
        assert_eq!(world.events(), "");
        world.release("b");
        assert_eq!(world.events(), "evict b");
        world.pass(SECOND).release("a").pass(SECOND);
        assert_eq!(world.events(), "", "now it fits");
    }

    #[test]
    fn what_was_not_counted_is_weighed_when_it_is() {
        let mut world = World::new(
            MemoryConfig { budget: Share::Off, devices: Share::Off, ..eager() },
            &[("a", 6), ("b", 6)],
        );
        world.hold("a").pass(SECOND).release("a");
        budget(&mut world, 10);
        world.hold("b").pass(SECOND);
        assert_eq!(world.events(), "spawn a-0, evict a, spawn b-0");
    }

    #[test]
    fn what_was_not_counted_and_is_too_much_leaves_once_it_is_weighed() {
        let off = MemoryConfig { budget: Share::Off, devices: Share::Off, ..eager() };
        let mut world = World::new(off, &[("a", 4), ("b", 4)]);
        world.hold("a").hold("b").pass(SECOND).release("a").release("b").events();
        budget(&mut world, 7);
        world.pass(SECOND);
        assert_eq!(world.events().matches("evict").count(), 1);
    }
}
