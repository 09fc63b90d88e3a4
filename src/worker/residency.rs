//! [`Residency`]: which models are in memory, which come and which leave first. Pure state: time is passed in, and what
//! is to be done comes out as [`Action`]s.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::WorkersConfig;
use super::action::{Action, Eviction, Exit, Report};
use super::replica::Replica;
use super::resident::{Answer, Resident};
use crate::error::Error;
use crate::library::Model;
use crate::node::Node;
use crate::units::KeepAlive;

/// Every model that was asked for, and its workers.
pub(super) struct Residency {
    config: WorkersConfig,
    runtime: PathBuf,
    /// By edition: a model whose section has changed is another one, beside which the old one stays until nobody holds it.
    residents: BTreeMap<u64, Resident>,
    incarnations: u64,
    is_closing: bool,
    out: Vec<Action>,
}

impl Residency {
    pub(super) fn new(config: WorkersConfig, runtime: PathBuf) -> Self {
        Self {
            config,
            runtime,
            residents: BTreeMap::new(),
            incarnations: 0,
            is_closing: false,
            out: Vec::new(),
        }
    }

    fn resident(&mut self, model: &Arc<Model>) -> &mut Resident {
        let is_known = self.residents.contains_key(&model.edition());
        let first = if is_known { 0 } else { self.free_number(model) };
        let config = &self.config;
        let new = || Resident::new(Arc::clone(model), first, config);
        self.residents.entry(model.edition()).or_insert_with(new)
    }

    /// The number of the first worker of a model that has none yet: no two workers have one name.
    fn free_number(&self, model: &Model) -> usize {
        let namesakes = self.residents.values().filter(|resident| resident.model.name == model.name);
        let mut taken: Vec<_> = namesakes.map(Resident::numbers).collect();
        taken.sort_by_key(|numbers| numbers.start);
        let fits = |first: usize, before: usize| first + model.config.replicas.max(1) <= before;
        taken.into_iter().fold(0, |first, numbers| match fits(first, numbers.start) {
            true => first,
            false => first.max(numbers.end),
        })
    }

    /// Every model, the oldest edition first.
    pub(super) fn residents(&self) -> impl Iterator<Item = &Resident> {
        self.residents.values()
    }

    /// Goes on under another configuration, with these models in place of those of the same edition.
    pub(super) fn renew(&mut self, config: WorkersConfig, models: &[Arc<Model>]) {
        let before = std::mem::replace(&mut self.config, config);
        for resident in self.residents.values_mut() {
            let renewed = models.iter().find(|model| model.edition() == resident.model.edition());
            let model = Arc::clone(renewed.unwrap_or(&resident.model));
            resident.renew(&model, &before, &self.config);
        }
    }

    /// Its last load failed.
    pub(super) fn has_failed(&self, model: &Model) -> bool {
        self.residents.get(&model.edition()).is_some_and(Resident::has_failed)
    }

    /// No process is left.
    pub(super) fn is_vacant(&self) -> bool {
        !self.residents.values().any(Resident::is_live)
    }

    /// [`Residency::close`] was called.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Wants a model in memory though nobody asks for it.
    pub(super) fn preload(&mut self, model: &Arc<Model>, now: Instant) {
        self.resident(model).wanted.get_or_insert(now);
    }

    /// One more request uses the model.
    pub(super) fn hold(&mut self, model: &Arc<Model>, keep_alive: Option<KeepAlive>) {
        let resident = self.resident(model);
        resident.holds += 1;
        resident.keep_alive = keep_alive.unwrap_or(resident.keep_alive);
    }

    /// One request less.
    pub(super) fn release(&mut self, model: &Arc<Model>, now: Instant) {
        self.resident(model).release(now);
    }

    /// Whether the model can be used; see [`Resident::ask`].
    pub(super) fn ask(&mut self, model: &Arc<Model>, failures: Option<u64>, now: Instant) -> Answer {
        if self.is_closing {
            return Answer::Failed(Error::ShuttingDown);
        }
        self.resident(model).ask(failures, now)
    }

    /// Unloads the model once it is idle, if it is in memory or on its way there.
    pub(super) fn unload(&mut self, model: &Arc<Model>, now: Instant) {
        self.resident(model).unload(now);
    }

    /// An exchange with this node failed.
    pub(super) fn suspect(&mut self, node: &Node) {
        for replica in self.residents.values_mut().flat_map(|resident| &mut resident.replicas) {
            replica.suspect(node, &mut self.out);
        }
    }

    /// A look at a worker has a result; whether it serves now. Those of workers that are gone come to nothing.
    pub(super) fn report(&mut self, incarnation: u64, report: Report, now: Instant) -> bool {
        let out = &mut self.out;
        let mut residents = self.residents.values_mut();
        residents.find_map(|resident| resident.report(incarnation, report.clone(), now, out)).unwrap_or(false)
    }

    /// A worker is gone.
    pub(super) fn gone(&mut self, incarnation: u64, exit: Exit, now: Instant) {
        let (config, out) = (&self.config, &mut self.out);
        self.residents
            .values_mut()
            .any(|resident| resident.gone(incarnation, exit.clone(), now, config, out));
    }

    /// Stops every worker and starts no more.
    pub(super) fn close(&mut self, grace: Duration) {
        self.is_closing = true;
        for resident in self.residents.values_mut() {
            resident.wanted = None;
            resident.replicas.iter_mut().for_each(|replica| replica.stop(grace, &mut self.out));
            resident.notify();
        }
    }

    /// Nobody looks after the workers any more: they are as good as gone.
    pub(super) fn abandon(&mut self) {
        self.close(Duration::ZERO);
        for replica in self.residents.values_mut().flat_map(|resident| &mut resident.replicas) {
            *replica = Replica::new();
        }
    }

    /// Decides what follows from all that has happened up to `now`.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Action> {
        for resident in self.residents.values_mut() {
            resident.tick(&self.config, now, &mut self.out);
        }
        self.residents.retain(|_, resident| !resident.is_over());
        if !self.is_closing {
            let missing = self.start_wanted(now);
            if missing > 0 && self.is_pinned_full() {
                self.turn_away(now);
            } else {
                self.make_room(missing);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Starts what is wanted and has room, whoever asked first being first. Answers how many had no room.
    fn start_wanted(&mut self, now: Instant) -> usize {
        let limit = self.config.loaded_limit();
        let mut room = limit.saturating_sub(self.residents.values().filter(|r| r.is_live()).count());
        let mut missing = 0;
        let mut waiting: Vec<_> = self.residents.values_mut().filter(|r| r.can_start(now)).collect();
        waiting.sort_by_key(|resident| resident.wanted);
        for resident in waiting {
            if !resident.is_live() {
                if room == 0 {
                    missing += 1;
                    continue;
                }
                room -= 1;
            }
            resident.fill(&self.runtime, &mut self.incarnations, now, &mut self.out);
        }
        missing
    }

    /// Sends idle models away until `count` places are or will be free; those with the shortest remaining life first.
    /// Where all are busy this is tried again when one is not.
    fn make_room(&mut self, count: usize) {
        let leaving = self.residents.values().filter(|r| r.is_live() && !r.is_staying()).count();
        for _ in leaving..count {
            let idle = self.residents.values_mut().filter(|resident| resident.is_evictable());
            let Some(first) = idle.min_by_key(|resident| (resident.expires().is_none(), resident.expires()))
            else {
                return;
            };
            first.evict(Eviction::Limit, &self.config, &mut self.out);
        }
    }

    /// Every place is taken for good.
    fn is_pinned_full(&self) -> bool {
        let pinned = self.residents.values().filter(|r| r.is_live() && r.is_pinned());
        pinned.count() >= self.config.loaded_limit()
    }

    /// Fails those who wait for a place that will never be free.
    fn turn_away(&mut self, now: Instant) {
        let config = &self.config;
        let hopeless = self.residents.values_mut().filter(|r| r.can_start(now) && !r.is_live());
        hopeless
            .for_each(|resident| resident.fail("every place is taken by a pinned model".to_owned(), config));
    }

    /// When [`Residency::settle`] must be called again though nothing happens.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let wakes = self.residents.values().flat_map(|resident| resident.next_wakes(&self.config));
        wakes.filter(|wake| *wake > now).min()
    }
}

#[cfg(test)]
mod retired;

#[cfg(test)]
mod tests;
