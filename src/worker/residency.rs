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

/// Where `workers.max_loaded` is 0; Ollama's own number for a CPU.
const MAX_LOADED: usize = 3;

/// Every model that was asked for, and its workers.
pub(super) struct Residency {
    config: WorkersConfig,
    runtime: PathBuf,
    residents: BTreeMap<String, Resident>,
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

    fn resident(&mut self, model: &Arc<Model>, now: Instant) -> &mut Resident {
        let config = &self.config;
        self.residents
            .entry(model.name.clone())
            .or_insert_with(|| Resident::new(Arc::clone(model), config, now))
    }

    /// Every model, by name.
    pub(super) fn residents(&self) -> impl Iterator<Item = &Resident> {
        self.residents.values()
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
        self.resident(model, now).wanted.get_or_insert(now);
    }

    /// One more request uses the model.
    pub(super) fn hold(&mut self, model: &Arc<Model>, keep_alive: Option<KeepAlive>, now: Instant) {
        let resident = self.resident(model, now);
        resident.holds += 1;
        resident.keep_alive = keep_alive.unwrap_or(resident.keep_alive);
    }

    /// One request less.
    pub(super) fn release(&mut self, model: &Arc<Model>, now: Instant) {
        self.resident(model, now).release(now);
    }

    /// Whether the model can be used; see [`Resident::ask`].
    pub(super) fn ask(&mut self, model: &Arc<Model>, failures: Option<u64>, now: Instant) -> Answer {
        if self.is_closing {
            return Answer::Failed(Error::ShuttingDown);
        }
        self.resident(model, now).ask(failures, now)
    }

    /// Unloads the model once it is idle, if it is in memory or on its way there.
    pub(super) fn unload(&mut self, model: &Arc<Model>, now: Instant) {
        let resident = self.resident(model, now);
        if resident.wanted.is_some() {
            resident.keep_alive = KeepAlive::Unload;
        }
    }

    /// An exchange with this node failed.
    pub(super) fn suspect(&mut self, node: &Node) {
        for replica in self.residents.values_mut().flat_map(|resident| &mut resident.replicas) {
            replica.suspect(node, &mut self.out);
        }
    }

    /// A look at a worker has a result. Those of workers that are gone come to nothing.
    pub(super) fn report(&mut self, incarnation: u64, report: Report, now: Instant) {
        let out = &mut self.out;
        self.residents.values_mut().any(|resident| resident.report(incarnation, report.clone(), now, out));
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
        if !self.is_closing {
            let missing = self.start_wanted(now);
            self.make_room(missing);
        }
        std::mem::take(&mut self.out)
    }

    /// Starts what is wanted and has room, whoever asked first being first. Answers how many had no room.
    fn start_wanted(&mut self, now: Instant) -> usize {
        let limit = if self.config.max_loaded == 0 { MAX_LOADED } else { self.config.max_loaded };
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

    /// When [`Residency::settle`] must be called again though nothing happens.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let wakes = self.residents.values().flat_map(|resident| resident.next_wakes(&self.config));
        wakes.filter(|wake| *wake > now).min()
    }
}
