//! When a model that cannot be used yet will be there, by what is known of it and of those in its way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Residency;
use crate::generation::{Loading, LoadingState};
use crate::library::Model;
use crate::worker::memory::{Departure, Occupant, Standing, Waiting, room_in};
use crate::worker::resident::Resident;

/// What it is taken to last until there is room where nobody knows: until other processes give memory back.
const UNKNOWN: Duration = Duration::from_secs(5);

impl Residency {
    /// How far a model is on its way; `None`: it takes requests, or nobody has asked for it.
    pub(in crate::worker) fn loading(&self, model: &Model, now: Instant) -> Option<Loading> {
        self.arrival(model.edition(), self.residents.get(&model.edition())?, now)
    }

    /// Every model on its way, but those that are only there for requests that began before the configuration changed.
    pub(in crate::worker) fn arriving(&self, now: Instant) -> Vec<(Arc<Model>, Loading)> {
        let residents = self.residents.iter().filter(|(_, resident)| !resident.is_retired());
        residents
            .filter_map(|(key, resident)| {
                Some((Arc::clone(&resident.model), self.arrival(*key, resident, now)?))
            })
            .collect()
    }

    pub(super) fn arrival(&self, key: u64, resident: &Resident, now: Instant) -> Option<Loading> {
        if resident.is_serving() || resident.wanted.is_none() {
            return None;
        }
        Some(match resident.progress() {
            Some(progress) => {
                let eta = Some(resident.stake.eta(progress, now));
                Loading { state: LoadingState::Loading, progress, eta }
            }
            None => {
                let eta = self.room_for(key, resident, now).map(|wait| wait + resident.stake.load());
                Loading { state: LoadingState::Waiting, progress: 0.0, eta }
            }
        })
    }

    /// How long it will take, as far as it can be said, until a model could be used that is refused now.
    pub(super) fn eta(&self, key: u64, now: Instant) -> Duration {
        let Some(resident) = self.residents.get(&key) else { return UNKNOWN };
        self.room_for(key, resident, now).unwrap_or(UNKNOWN) + resident.stake.load()
    }

    /// How long it takes until a model has room that is not there. `None`: it cannot be said, or it has its room and gets no requests.
    fn room_for(&self, key: u64, resident: &Resident, now: Instant) -> Option<Duration> {
        if resident.is_staying() || !resident.stake.is_weighed() {
            return None;
        }
        let (needs, before_eviction) = resident.needs();
        let waiting =
            Waiting { key, needs, before_eviction, is_due: false, is_pressed: false, is_modest: false };
        let due = self.due(resident);
        let there = self.occupants(now).into_iter().map(|it| (self.leaves(&it, due, now), it));
        let ahead = self.waiting(now).into_iter().take_while(|it| it.key != key && !it.is_modest);
        let ahead = ahead.map(|Waiting { key, needs, .. }| {
            // As it is configured: it may come with less.
            let need = needs.into_iter().next().unwrap_or_default();
            (self.is_through(key, due), Occupant { key, need, standing: Standing::Busy, worth: 0.0 })
        });
        let departures = there.chain(ahead).map(|(leaves, occupant)| Departure {
            occupant,
            leaves: leaves.map(|leaves| leaves.saturating_duration_since(now)),
        });
        room_in(&departures.collect::<Vec<_>>(), &waiting, &self.limits())
    }

    /// When a model that waits has waited for as long as it may.
    fn due(&self, resident: &Resident) -> Option<Instant> {
        resident.wanted?.checked_add(self.memory.config.max_wait)
    }

    /// When a model that waits, too, has come, had its turn, and leaves for one that has waited long enough at `due`.
    fn is_through(&self, key: u64, due: Option<Instant>) -> Option<Instant> {
        let resident = self.residents.get(&key)?;
        Some(self.due(resident)?.checked_add(2 * resident.stake.load())?.max(due?))
    }

    /// When an occupant leaves for a model that has waited long enough at `due`, not counting what its requests take to end; `None`: never.
    fn leaves(&self, occupant: &Occupant<u64>, due: Option<Instant>, now: Instant) -> Option<Instant> {
        let resident = self.residents.get(&occupant.key)?;
        let stake = &resident.stake;
        let is_used = resident.holds > 0;
        let stays = || match resident.progress() {
            Some(progress) => now.checked_add(stake.eta(progress, now))?.checked_add(stake.load()),
            None => stake.stays_until(self.memory.config.min_residency, is_used).or(Some(now)),
        };
        match occupant.standing {
            Standing::Leaving | Standing::Idle | Standing::Hushed => Some(now),
            Standing::Pinned => None,
            Standing::Fixed if !is_used => stays(),
            Standing::Fixed | Standing::Busy => Some(stays()?.max(due?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::seam::{State, Vitals};
    use crate::worker::action::Report;
    use crate::worker::residency::crowded::{World, ten_bytes};

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    /// How far a model is, and how long it will take in milliseconds.
    fn told(world: &World, name: &str) -> Option<(LoadingState, f32, Option<u128>)> {
        let loading = world.residency.loading(&world.models[name], world.now)?;
        Some((loading.state, loading.progress, loading.eta.map(|eta| eta.as_millis())))
    }

    #[test]
    fn a_load_tells_how_far_it_is_until_the_model_takes_requests() {
        let mut world = World::new(ten_bytes(), &[("a", 6)]);
        assert_eq!(told(&world, "a"), None, "nobody has asked for it");
        world.hold("a").pass(200 * MILLISECOND);
        let (worker, vitals) =
            (world.worker("a"), Vitals { state: State::Loading, progress: 0.75, ..Vitals::default() });
        world.act(|residency, now| residency.report(worker, Report::Vitals(Box::new(vitals)), now));
        assert_eq!(told(&world, "a"), Some((LoadingState::Loading, 0.75, Some(50))));
        let arriving = world.residency.arriving(world.now);
        assert_eq!(arriving.iter().map(|(model, _)| model.name.as_str()).collect::<Vec<_>>(), ["a"]);
        world.pass(SECOND);
        assert_eq!(told(&world, "a"), None);
    }

    #[test]
    fn one_that_waits_tells_when_the_others_will_have_left() {
        let mut world = World::new(ten_bytes(), &[("a", 6), ("b", 6), ("c", 3)]);
        world.hold("a").pass(500 * MILLISECOND);
        world.hold("b").hold("c");
        assert_eq!(told(&world, "b"), Some((LoadingState::Waiting, 0.0, Some(15_000))), "a is in use");
        world.pass(SECOND);
        assert_eq!(told(&world, "b"), Some((LoadingState::Waiting, 0.0, Some(14_000))));
        assert_eq!(
            told(&world, "c"),
            Some((LoadingState::Waiting, 0.0, Some(14_000))),
            "b waits ahead of it"
        );
        let mut world = World::new(ten_bytes(), &[("a", 6), ("b", 6)]);
        world.hold("a").pass(500 * MILLISECOND).release("a").hold("b");
        assert_eq!(told(&world, "b"), Some((LoadingState::Waiting, 0.0, Some(1000))), "a has just come");
        world.pass(SECOND);
        assert_eq!(told(&world, "b"), Some((LoadingState::Waiting, 0.0, Some(0))), "it is leaving");
    }

    #[test]
    fn when_one_that_never_leaves_is_in_the_way_nobody_knows() {
        let mut world = World::new(ten_bytes(), &[("pinned", 3), ("a", 4), ("b", 4)]);
        world.hold("pinned").hold("a").pass(500 * MILLISECOND).hold("b");
        assert_eq!(told(&world, "b"), Some((LoadingState::Waiting, 0.0, Some(15_000))));
        let held = Arc::clone(&world.models["b"]);
        world.act(|residency, _| {
            residency.look(Some(crate::worker::memory::Host { total: 10, available: 6 }))
        });
        assert_eq!(told(&world, "b").unwrap().2, None, "other processes take too much");
        assert_eq!(world.residency.eta(held.edition(), world.now).as_secs(), UNKNOWN.as_secs());
    }
}
