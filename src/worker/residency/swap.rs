//! Swaps: loads that another model has left for, counted because each costs what two models are in memory for.
//!
//! A swap is a load of a model that began after one or more others were evicted, for bytes or for `max_loaded`, to make room for it. Each such
//! load counts once, however many left; a load into free room is none, nor is what leaves because its time is over.

use super::Residency;
use crate::worker::memory::{Limits, Occupant, Waiting, plan};

impl Residency {
    /// Takes note of those for whom others are told to leave now. They are served in their order, so whoever adds to what those ahead of it
    /// have leave is one.
    pub(super) fn note_swaps(
        &mut self,
        occupants: &[Occupant<u64>],
        waiting: &[Waiting<u64>],
        limits: &Limits,
    ) {
        let mut before = 0;
        for (place, it) in waiting.iter().enumerate() {
            let leave = plan(occupants, &waiting[..=place], limits).evict.len();
            if let Some(resident) = self.residents.get_mut(&it.key).filter(|_| leave > before) {
                resident.stake.has_displaced = true;
            }
            before = leave;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::worker::residency::crowded::{World, eager};

    const SECOND: Duration = Duration::from_secs(1);

    /// These models in this order, each asked for and left alone.
    fn visit(world: &mut World, names: &[&str]) {
        for name in names {
            world.hold(name).pass(SECOND).release(name);
        }
    }

    #[test]
    fn a_load_that_others_have_left_for_is_one_swap_however_many_they_were() {
        let mut world = World::new(eager(), &[("a", 3), ("b", 3), ("c", 3), ("d", 7)]);
        visit(&mut world, &["a", "b", "c"]);
        assert_eq!(world.swaps, 0, "there was room");
        visit(&mut world, &["d"]);
        assert_eq!((world.swaps, world.events().matches("evict").count()), (1, 2));
    }

    #[test]
    fn of_two_that_come_into_one_place_the_first_one_is_a_swap() {
        let mut world = World::new(eager(), &[("a", 8), ("b", 3), ("c", 4)]);
        visit(&mut world, &["a"]);
        world.hold("b").hold("c").pass(SECOND);
        assert_eq!((world.swaps, world.events().as_str()), (1, "spawn a-0, evict a, spawn b-0, spawn c-0"));
    }

    #[test]
    fn what_leaves_because_its_time_is_over_makes_no_swap_nor_does_one_who_gives_up() {
        let mut world = World::new(eager(), &[("a", 8), ("b", 8)]);
        visit(&mut world, &["a"]);
        world.pass(301 * SECOND);
        world.hold("b").pass(SECOND);
        assert_eq!((world.swaps, world.events().as_str()), (0, "spawn a-0, evict a, spawn b-0"));
        world.release("b").hold("a").release("a").pass(SECOND);
        visit(&mut world, &["b"]);
        assert_eq!((world.swaps, world.events().as_str()), (0, "evict b, spawn b-0"));
    }
}
