//! [`Residency`]: which models are in memory, which come and which leave first. Pure state: time is passed in, and what
//! is to be done comes out as [`Action`]s.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::ahead::Ahead;
pub use self::usage::Footprint;
pub(super) use self::usage::Usage;
use super::WorkersConfig;
use super::action::{Action, Exit, Report};
use super::memory::Memory;
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
    memory: Memory,
    incarnations: u64,
    is_closing: bool,
    /// There may be more in memory than there is to be.
    is_tight: bool,
    ahead: Ahead,
    out: Vec<Action>,
}

impl Residency {
    /// Memory is not counted; see [`Residency::within`].
    pub(super) fn new(config: WorkersConfig, runtime: PathBuf) -> Self {
        Self {
            config,
            memory: Memory::unlimited(),
            runtime,
            residents: BTreeMap::new(),
            incarnations: 0,
            is_closing: false,
            is_tight: false,
            ahead: Ahead::default(),
            out: Vec::new(),
        }
    }

    /// Within these limits.
    pub(super) fn within(self, memory: Memory) -> Self {
        Self { memory, ..self }
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
        self.unweigh();
    }

    /// Has those weighed anew that are not in memory: how they may be made to fit has changed.
    fn unweigh(&mut self) {
        let absent = self.residents.values_mut().filter(|resident| !resident.is_live());
        absent.for_each(|resident| resident.stake.unweigh());
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
        let (least, most) = (self.config.keep_alive_min, self.config.keep_alive_max);
        let resident = self.resident(model);
        resident.holds += 1;
        if let Some(asked) = keep_alive {
            resident.keep_alive = asked.max(least).min(most);
        }
    }

    /// One request less; `was_use`: somebody had asked for it.
    pub(super) fn release(&mut self, model: &Arc<Model>, was_use: bool, now: Instant) {
        let key = model.edition();
        if let Some(resident) = self.residents.get_mut(&key) {
            resident.release(was_use, &self.memory, now);
        }
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
        let least = self.config.keep_alive_min;
        self.resident(model).unload(least, now);
    }

    /// An exchange with this node failed.
    pub(super) fn suspect(&mut self, node: &Node) {
        for replica in self.residents.values_mut().flat_map(|resident| &mut resident.replicas) {
            replica.suspect(node, &mut self.out);
        }
    }

    /// A look at a worker has a result; whether it serves now. Those of workers that are gone come to nothing.
    pub(super) fn report(&mut self, incarnation: u64, report: Report, now: Instant) -> bool {
        let (out, memory) = (&mut self.out, &mut self.memory);
        let mut residents = self.residents.values_mut();
        let mut report =
            |resident: &mut Resident| resident.report(incarnation, report.clone(), memory, now, out);
        residents.find_map(&mut report).unwrap_or(false)
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
            self.arrange(now);
            self.look_ahead(now);
        }
        self.follow_up();
        std::mem::take(&mut self.out)
    }

    /// When [`Residency::settle`] must be called again though nothing happens.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let wakes = self.residents.values().flat_map(|resident| resident.next_wakes(&self.config));
        wakes.chain(self.next_moves(now)).chain(self.next_look()).filter(|wake| *wake > now).min()
    }
}

mod ahead;
mod arrange;
mod arrival;
#[cfg(test)]
mod crowded;
#[cfg(test)]
mod retired;
mod swap;
mod tighten;
mod usage;

#[cfg(test)]
mod tests;
