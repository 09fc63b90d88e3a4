//! Models that are loaded before anybody asks for them: into free room only, they leave before all others, and it is counted what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Residency;
use super::arrange::is_waiting;
use crate::library::Model;
use crate::worker::action::{Action, Preload};
use crate::worker::memory::Prediction;
use crate::worker::resident::Resident;

/// Between two looks at what is likely, where nobody asks for anything meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// A model that is asked for is loaded first, and it is looked again what comes after it.
const AFTER_YOU: Duration = Duration::from_secs(1);
/// How long what was learned may be lost if this process ends all at once.
const LOSS: Duration = Duration::from_secs(10 * 60);

/// What is under way.
#[derive(Default)]
pub(super) struct Ahead {
    /// The time of day, since 1970, as of the last event.
    time: Duration,
    /// When it is looked next; `None`: at once.
    next: Option<Instant>,
    /// Those that are to come or are there, and nobody has asked for them yet; whether their load has begun.
    pending: BTreeMap<u64, bool>,
    /// Those that were tried, and in which hour since 1970: once is enough, unless they are asked for.
    tried: BTreeMap<String, u64>,
    /// Since when there is something that is not in the ledger's file.
    unsaved: Option<Instant>,
}

impl Residency {
    /// It is so late, since 1970.
    pub(in crate::worker) fn tell_time(&mut self, time: Duration) {
        self.ahead.time = time;
    }

    /// Somebody is about to hold the model.
    pub(in crate::worker) fn asked(&mut self, model: &Arc<Model>, now: Instant) {
        let resident = self.residents.get_mut(&model.edition());
        if resident.as_ref().is_some_and(|resident| resident.holds > 0) {
            return;
        }
        if let Some(resident) = resident {
            resident.stake.is_foreseen = false;
        }
        if self.ahead.pending.remove(&model.edition()) == Some(true) {
            self.out.push(Action::Preloaded(Arc::clone(model), Preload::Used));
        }
        if self.memory.config.preload.enabled {
            self.memory.ledger.foresight.asked(&model.name, self.ahead.time);
            self.ahead.tried.remove(&model.name);
            self.ahead.unsaved.get_or_insert(now);
            self.look_by(now.checked_add(AFTER_YOU));
        }
    }

    fn look_by(&mut self, time: Option<Instant>) {
        self.ahead.next = self.ahead.next.min(time).or(time);
    }

    /// What is likely to be asked for soon, the most likely first; nothing where that is not looked at.
    pub(in crate::worker) fn predictions(&self) -> Vec<Prediction> {
        match self.memory.config.preload.enabled {
            true => self.memory.ledger.foresight.predictions(self.ahead.time),
            false => Vec::new(),
        }
    }

    /// Looks what is likely, if it is time to, and wants it.
    pub(super) fn look_ahead(&mut self, now: Instant) {
        let config = &self.memory.config.preload;
        if !config.enabled || self.ahead.next.is_some_and(|next| next > now) {
            return;
        }
        // What somebody waits for comes first, unless it never will.
        let has_hope = |it: &Resident| is_waiting(it, now) && !it.has_failed();
        let is_busy = self.residents.values().any(|it| has_hope(it) || it.progress().is_some());
        self.ahead.next = now.checked_add(if is_busy { AFTER_YOU } else { LOOK });
        if self.ahead.unsaved.is_some_and(|since| now.saturating_duration_since(since) >= LOSS) {
            self.ahead.unsaved = None;
            self.out.push(Action::Remember(self.memory.ledger.clone()));
        }
        if is_busy {
            return;
        }
        let hour = self.ahead.time.as_secs() / 3600;
        self.ahead.tried.retain(|_, tried| *tried == hour);
        let is_there = |name: &str| {
            let mut residents = self.residents.values();
            residents.any(|it| it.model.name == name && (it.is_live() || it.wanted.is_some()))
        };
        let is_new = |it: &Prediction| !is_there(&it.model) && !self.ahead.tried.contains_key(&it.model);
        let likely = self.predictions().into_iter().filter(|it| it.probability >= config.threshold);
        let free = config.models.saturating_sub(self.ahead.pending.len());
        let chosen: Vec<_> = likely.filter(is_new).take(free).collect();
        for prediction in chosen {
            self.ahead.tried.insert(prediction.model.clone(), hour);
            self.out.push(Action::Expect(prediction));
        }
    }

    /// Wants a model in memory, if it fits, because it is likely to be asked for. Not where memory ran out when it was loaded last, for then
    /// others have to leave.
    pub(in crate::worker) fn expect(&mut self, model: &Arc<Model>, now: Instant) {
        if self.resident(model).stake.is_pressed {
            return;
        }
        self.warm(model, now);
        let resident = self.resident(model);
        if resident.stake.is_warm && !resident.is_live() {
            resident.stake.is_foreseen = true;
            self.ahead.pending.insert(model.edition(), false);
        }
    }

    /// Takes note of those that are on their way now, and of those that nobody has asked for.
    pub(super) fn follow_up(&mut self) {
        let (residents, out) = (&mut self.residents, &mut self.out);
        self.ahead.pending.retain(|edition, has_begun| {
            let Some(resident) = residents.get_mut(edition) else { return false };
            let mut tell = |what| out.push(Action::Preloaded(Arc::clone(&resident.model), what));
            if resident.is_staying() {
                if !std::mem::replace(has_begun, true) {
                    tell(Preload::Begun);
                }
                return true;
            }
            if *has_begun {
                tell(Preload::Unused);
            }
            let is_to_come = !*has_begun && resident.wanted.is_some();
            resident.stake.is_foreseen &= is_to_come;
            is_to_come
        });
    }

    /// When it is looked next, where it is looked at all.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.ahead.next.filter(|_| self.memory.config.preload.enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::memory::{MemoryConfig, PreloadConfig};
    use crate::worker::residency::crowded::{World, ten_bytes};

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// A world in which `b` has always come after `a`, that looks ahead.
    fn world(models: &[(&'static str, u64)]) -> World {
        let preload = PreloadConfig { enabled: true, ..PreloadConfig::default() };
        let mut world = World::new(MemoryConfig { preload, ..ten_bytes() }, models);
        let foresight = &mut world.residency.memory.ledger.foresight;
        for round in 0..20 {
            foresight.asked("a", HOUR * round);
            foresight.asked("b", HOUR * round + SECOND);
        }
        world.act(|residency, _| residency.tell_time(HOUR * 1000));
        world
    }

    /// Somebody asks for the model and has an answer at once.
    fn visit(world: &mut World, name: &'static str) {
        let model = Arc::clone(&world.models[name]);
        world.act(|residency, now| residency.asked(&model, now));
        world.hold(name).pass(SECOND).release(name);
    }

    #[test]
    fn what_follows_is_there_before_it_is_asked_for() {
        let mut world = world(&[("a", 3), ("b", 3)]);
        visit(&mut world, "a");
        assert_eq!(world.events(), "spawn a-0, expect b, spawn b-0, begun b");
        world.pass(SECOND);
        assert!(world.run("b").is_some());
        visit(&mut world, "b");
        assert_eq!(world.events(), "used b");
        world.pass(299 * SECOND);
        assert_eq!(world.events(), "evict a", "b stays as if it had come when it was asked for");
        world.pass(2 * SECOND);
        assert_eq!(world.events(), "evict b");
    }

    #[test]
    fn nobody_leaves_for_it_and_it_leaves_for_anybody() {
        let mut full = self::world(&[("a", 6), ("b", 6)]);
        visit(&mut full, "a");
        full.pass(100 * SECOND);
        assert_eq!(full.events(), "spawn a-0, expect b", "there is no room, and it is tried once");
        let mut world = world(&[("a", 3), ("b", 3), ("c", 5)]);
        visit(&mut world, "a");
        world.events();
        world.pass(SECOND / 4).hold("c").pass(SECOND / 4);
        assert_eq!(
            world.events(),
            "evict b, unused b, spawn c-0",
            "though it is being loaded, and a is idle for longer"
        );
    }

    #[test]
    fn what_nobody_asks_for_leaves_in_the_end() {
        let mut world = world(&[("a", 3), ("b", 3)]);
        visit(&mut world, "a");
        world.events();
        world.hold("a").pass(599 * SECOND);
        assert_eq!(world.events(), "");
        world.pass(3 * SECOND);
        assert_eq!(world.events(), "evict b, unused b");
    }

    #[test]
    fn no_more_are_loaded_than_may_be() {
        let mut world = world(&[("a", 1), ("b", 1), ("c", 1)]);
        for round in 0..20 {
            world.residency.memory.ledger.foresight.asked("c", HOUR * 24 * round + HOUR * 16);
        }
        world.act(|residency, _| residency.tell_time(HOUR * (24 * 20 + 16)));
        visit(&mut world, "a");
        let events = world.events();
        assert_eq!(events.matches("expect").count(), 1, "{events}");
    }

    #[test]
    fn where_it_is_off_nothing_is_learned_or_expected() {
        let mut world = world(&[("a", 3), ("b", 3)]);
        world.residency.memory.config.preload.enabled = false;
        let before = world.residency.memory.ledger.foresight.clone();
        visit(&mut world, "a");
        assert_eq!(world.events(), "spawn a-0");
        assert_eq!(world.residency.memory.ledger.foresight, before);
        assert!(world.residency.predictions().is_empty() && world.residency.next_look().is_none());
    }
}
