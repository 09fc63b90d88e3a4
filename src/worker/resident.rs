//! [`Resident`]: one model's claim to memory: who uses it, how long it stays, and its workers.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::WorkersConfig;
use super::action::{Action, Eviction, Exit, Report, Start};
use super::memory::{Memory, Need};
use super::replica::{Fall, Replica};
use super::stake::Stake;
use crate::error::Error;
use crate::library::Model;
use crate::node::Node;
use crate::units::KeepAlive;

/// Deaths in a row that requests wait through, some two seconds of hold-off; then they are told.
const PATIENCE: u32 = 4;
/// A unix socket's path has room for 107 bytes, most of which are the directory's.
const SOCKET_NAME: usize = 24;

/// One model and its workers.
pub(super) struct Resident {
    pub(super) model: Arc<Model>,
    pub(super) replicas: Vec<Replica>,
    /// The number of its first worker: those of another edition may have the first ones.
    first: usize,
    /// Requests that use it.
    pub(super) holds: usize,
    /// When the last hold was dropped, or the model became ready again without one. `None` until the first was dropped: what
    /// is loaded ahead of all requests waits for one.
    idle_since: Option<Instant>,
    /// In force until the model leaves memory.
    pub(super) keep_alive: KeepAlive,
    /// Since when it should be in memory; `None`: nobody asks for it.
    pub(super) wanted: Option<Instant>,
    /// What it has to do with memory.
    pub(super) stake: Stake,
    /// Why it is not in memory, from the last failure until it is ready again.
    error: Option<Error>,
    /// Failures so far: whoever waits learns of those that happen while it waits.
    failures: u64,
    changed: watch::Sender<()>,
}

/// The answer to someone who needs the model.
pub(super) enum Answer {
    /// A node takes requests.
    Ready,
    /// It cannot be had.
    Failed(Error),
    /// Look again when something has changed, and say how many failures there were.
    Wait { failures: u64, changed: watch::Receiver<()> },
}

impl Resident {
    /// Its workers are numbered from `first` on.
    pub(super) fn new(model: Arc<Model>, first: usize, config: &WorkersConfig) -> Self {
        Self {
            replicas: (0..model.config.replicas.max(1)).map(|_| Replica::new()).collect(),
            first,
            holds: 0,
            idle_since: None,
            keep_alive: usual(&model, config),
            wanted: None,
            stake: Stake::new(),
            error: None,
            failures: 0,
            changed: watch::Sender::new(()),
            model,
        }
    }

    /// The numbers of its workers.
    pub(super) fn numbers(&self) -> Range<usize> {
        self.first..self.first + self.replicas.len()
    }

    /// The configuration has it no longer: it stays for those who hold it.
    pub(super) fn is_retired(&self) -> bool {
        self.model.is_retired()
    }

    /// It is retired, nobody holds it and nothing of it runs.
    pub(super) fn is_over(&self) -> bool {
        self.is_retired() && self.holds == 0 && !self.is_live()
    }

    /// Goes on as `model`, which its workers fit, and under another configuration than `before`. What a request has said about how long it
    /// stays goes on to hold.
    pub(super) fn renew(&mut self, model: &Arc<Model>, before: &WorkersConfig, config: &WorkersConfig) {
        if self.keep_alive == usual(&self.model, before) {
            self.keep_alive = usual(model, config);
        }
        self.model = Arc::clone(model);
    }

    /// At least one process of it runs, be it on its way out.
    pub(super) fn is_live(&self) -> bool {
        self.replicas.iter().any(Replica::is_live)
    }

    /// Processes of it run and are to stay.
    pub(super) fn is_staying(&self) -> bool {
        self.replicas.iter().any(Replica::is_staying)
    }

    /// Takes requests.
    pub(super) fn is_serving(&self) -> bool {
        self.replicas.iter().any(Replica::is_serving)
    }

    /// Nothing stands against starting a worker but perhaps room.
    pub(super) fn can_start(&self, now: Instant) -> bool {
        self.wanted.is_some() && self.replicas.iter().any(|replica| replica.can_start(now))
    }

    /// In memory, and nothing of it is on its way there.
    pub(super) fn is_settled(&self) -> bool {
        self.is_staying() && !self.replicas.iter().any(Replica::is_loading)
    }

    /// In memory, and nobody would miss it right now.
    pub(super) fn is_evictable(&self) -> bool {
        self.is_settled() && self.holds == 0 && !self.is_pinned()
    }

    /// Gets no new requests, and has none that runs: those that hold it wait until it is back.
    pub(super) fn is_silent(&self) -> bool {
        self.stake.is_hushed && !self.replicas.iter().any(Replica::is_running)
    }

    /// How much of it is loaded, of the workers that are on their way the least; `None`: none is.
    pub(super) fn progress(&self) -> Option<f32> {
        self.replicas.iter().filter_map(Replica::progress).min_by(f32::total_cmp)
    }

    /// What all its workers claim; `None`: it was not weighed yet.
    pub(super) fn need(&self) -> Option<Need> {
        self.stake.need().map(|need| self.of_all(need))
    }

    /// What all its workers take of which each takes `need`.
    fn of_all(&self, need: &Need) -> Need {
        let mut all = need.times(self.replicas.len() as u64);
        let bindings = (0..self.replicas.len()).map(|place| self.model.config.binding(place));
        bindings.filter_map(|binding| binding.gpus).for_each(|gpus| all.put(need.device, &gpus));
        all
    }

    /// What they would claim on each rung, and how many of these come before anybody has to leave. What could not be weighed claims
    /// nothing.
    pub(super) fn needs(&self) -> (Vec<Need>, usize) {
        let (needs, before_eviction) = self.stake.needs();
        let mut needs: Vec<_> = needs.map(|need| self.of_all(need)).collect();
        if needs.is_empty() {
            needs.push(Need::default());
        }
        (needs, before_eviction)
    }

    /// Gives it no new requests, or gives it some again.
    pub(super) fn hush(&mut self, is_hushed: bool, out: &mut Vec<Action>) {
        if self.stake.is_hushed != is_hushed {
            self.stake.is_hushed = is_hushed;
            self.replicas.iter_mut().for_each(|replica| replica.hush(is_hushed, out));
            self.notify();
        }
    }

    /// Never leaves by itself.
    pub(super) fn is_pinned(&self) -> bool {
        self.model.config.pin && !self.is_retired()
    }

    /// Comes back by itself when it fails.
    fn is_kept(&self) -> bool {
        self.is_pinned() || self.model.config.preload && !self.is_retired()
    }

    /// When an idle model is unloaded; `None`: never.
    pub(super) fn expires(&self) -> Option<Instant> {
        match self.keep_alive {
            _ if self.is_pinned() => None,
            _ if self.stake.is_foreseen => self.stake.unused_by(),
            KeepAlive::Forever => None,
            KeepAlive::Unload => self.idle_since,
            KeepAlive::For(idle) => self.idle_since?.checked_add(idle),
        }
    }

    /// When time alone will change something; may be past where something else is awaited.
    pub(super) fn next_wakes(&self, config: &WorkersConfig) -> impl Iterator<Item = Instant> {
        let expiry = self.expires().filter(|_| self.is_evictable());
        let starts = self.wanted.is_some();
        let relevant = self.replicas.iter().filter(move |replica| starts || replica.is_live());
        relevant.filter_map(|replica| replica.next_wake(config.load_timeout)).chain(expiry)
    }

    pub(super) fn release(&mut self, was_use: bool, memory: &Memory, now: Instant) {
        self.holds = self.holds.saturating_sub(1);
        if was_use {
            self.stake.used(memory.clock, now);
            self.idle_since = Some(now);
        } else {
            self.idle_since.get_or_insert(now);
        }
    }

    /// Leaves memory once it is idle, or after `least`, if it is there or on its way.
    pub(super) fn unload(&mut self, least: KeepAlive, now: Instant) {
        if self.wanted.is_some() {
            self.keep_alive = least;
            self.stake.is_foreseen = false;
            self.idle_since.get_or_insert(now);
        }
    }

    /// Says whether the model can be used; if it cannot yet, it is wanted from now on. `failures` is what the last answer
    /// said, `None` the first time.
    pub(super) fn ask(&mut self, failures: Option<u64>, now: Instant) -> Answer {
        if self.is_serving() {
            return Answer::Ready;
        }
        let has_failed_since = failures.is_some_and(|failures| failures != self.failures);
        let is_held_off = !self.is_live() && !self.replicas.iter().any(|replica| replica.can_start(now));
        match &self.error {
            Some(error) if has_failed_since || is_held_off => Answer::Failed(error.clone()),
            _ => {
                self.wanted.get_or_insert(now);
                Answer::Wait { failures: self.failures, changed: self.changed.subscribe() }
            }
        }
    }

    /// Starts every worker that can be started.
    pub(super) fn fill(
        &mut self,
        runtime: &Path,
        incarnations: &mut u64,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.stake.begin(now);
        let startable = self.replicas.iter_mut().enumerate().filter(|(_, replica)| replica.can_start(now));
        for (index, replica) in startable {
            *incarnations += 1;
            let (mut node, socket) = node(&self.model, self.first + index, *incarnations, runtime);
            node.binding = self.model.config.binding(index);
            node.cut = self.stake.cut();
            node.parallel = node.cut.parallel.map_or(node.parallel, |parallel| parallel as usize);
            let start = Start { model: Arc::clone(&self.model), node: Arc::new(node), socket };
            replica.spawn(start, now, out);
        }
    }

    /// Whether the worker serves now; `None` if it is not one of these.
    pub(super) fn report(
        &mut self,
        incarnation: u64,
        report: Report,
        memory: &mut Memory,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Option<bool> {
        let place = self.replicas.iter().position(|replica| replica.has_incarnation(incarnation))?;
        let (replica, stake) = (&mut self.replicas[place], &mut self.stake);
        let (was_serving, was_ready) = (replica.is_serving(), replica.vitals().is_some());
        let before = replica.progress();
        replica.report(report, now, out);
        if let (Some(before), Some(progress)) = (before, replica.progress())
            && quarters(before) < quarters(progress)
        {
            out.push(Action::Progressed(Arc::clone(&self.model), progress));
        }
        match replica.vitals() {
            Some(health) if was_ready => stake.seen(health, memory),
            Some(health) => {
                stake.came(health, replica.took(), memory, now);
                out.push(Action::Remember(memory.ledger.clone()));
            }
            None => {}
        }
        // Another of its workers may have come while the others are hushed.
        replica.hush(stake.is_hushed, out);
        let is_serving = replica.is_serving();
        if is_serving && !was_serving {
            self.error = None;
            if self.holds == 0 {
                self.idle_since = self.idle_since.map(|_| now);
            }
            self.changed.send_replace(());
        }
        Some(is_serving)
    }

    pub(super) fn gone(
        &mut self,
        incarnation: u64,
        exit: Exit,
        now: Instant,
        config: &WorkersConfig,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(replica) = self.replica(incarnation) else { return false };
        let was_loading = replica.is_loading();
        let fall = replica.gone(exit, now, config, out);
        let is_promising = self.replicas.iter().any(Replica::is_promising);
        self.stake.is_pressed |= was_loading && matches!(fall, Fall::Died { .. });
        if !self.is_live() {
            self.stake.gone();
            if self.stake.is_pressed && self.stake.is_warm && self.holds == 0 {
                // Others would have to leave, and nobody asks for it.
                self.forget(config);
            }
        }
        match fall {
            Fall::Planned => {}
            Fall::LoadFailed(error) if !is_promising => self.fail_with(error, config),
            Fall::Died { deaths, reason } if !is_promising && deaths > PATIENCE => {
                self.fail(format!("its worker keeps dying: {reason}"), config);
            }
            Fall::LoadFailed(_) | Fall::Died { .. } => {}
        }
        true
    }

    fn replica(&mut self, incarnation: u64) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.has_incarnation(incarnation))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// Tells everybody who waits that it cannot be loaded.
    pub(super) fn fail(&mut self, reason: String, config: &WorkersConfig) {
        self.fail_with(Error::LoadFailed { model: self.model.name.clone(), reason }, config);
    }

    /// The same, of what stands against loading it; into the log once.
    pub(super) fn refuse(&mut self, error: Error, config: &WorkersConfig, out: &mut Vec<Action>) {
        // When it is likely to have room is no news.
        if self.error.as_ref().map(Error::to_string) != Some(error.to_string()) {
            out.push(Action::Refused(Arc::clone(&self.model), error.clone()));
        }
        self.fail_with(error, config);
    }

    fn fail_with(&mut self, error: Error, config: &WorkersConfig) {
        self.error = Some(error);
        self.failures += 1;
        self.changed.send_replace(());
        if !self.is_kept() {
            self.forget(config);
        }
    }

    /// Nobody wants it any more, and what was said and done about how long it stays is void.
    fn forget(&mut self, config: &WorkersConfig) {
        self.wanted = None;
        self.stake.is_warm = false;
        self.stake.has_displaced = false;
        self.idle_since = None;
        self.keep_alive = usual(&self.model, config);
    }

    /// What follows from the time and from who is there: stalled loads end, idle models go, and what is not in memory is no
    /// longer wanted when the last one who waited for it has left.
    pub(super) fn tick(&mut self, config: &WorkersConfig, now: Instant, out: &mut Vec<Action>) {
        for replica in &mut self.replicas {
            replica.give_up_if_stalled(config.load_timeout, now, out);
        }
        if self.is_retired() && self.holds == 0 && self.is_staying() {
            self.evict(Eviction::Changed, config, now, out);
        }
        if self.is_evictable() && self.expires().is_some_and(|expiry| expiry <= now) {
            let is_manual = self.keep_alive == KeepAlive::Unload && !self.stake.is_foreseen;
            self.evict(if is_manual { Eviction::Manual } else { Eviction::Idle }, config, now, out);
        }
        let is_for_nobody = self.holds == 0 && !self.is_kept() && !self.stake.is_warm;
        if self.wanted.is_some() && !self.is_live() && is_for_nobody {
            self.forget(config);
        }
    }

    /// Takes the model out of memory. Whoever still waits for it waits for its next turn.
    pub(super) fn evict(
        &mut self,
        eviction: Eviction,
        config: &WorkersConfig,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Evicted(Arc::clone(&self.model), eviction));
        for replica in &mut self.replicas {
            replica.stop(config.stop_timeout, out);
        }
        self.forget(config);
        if self.holds > 0 {
            self.wanted = Some(now);
        }
    }

    /// Tells whoever waits to look again.
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }
}

/// Whole quarters of a load: more often nobody wants to hear of it.
fn quarters(progress: f32) -> u8 {
    (progress * 4.0) as u8
}

/// How long a model stays in memory after its last request, where no request says.
fn usual(model: &Model, config: &WorkersConfig) -> KeepAlive {
    model.config.keep_alive.unwrap_or(config.keep_alive)
}

/// A new worker: its node, and its socket.
fn node(model: &Model, index: usize, incarnation: u64, runtime: &Path) -> (Node, PathBuf) {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' };
    let name: String = model.name.chars().take(SOCKET_NAME).map(safe).collect();
    let socket = runtime.join(format!("{name}-{index}-{incarnation}.sock"));
    let parallel = model.config.parallel.max(1) as usize;
    let mut node = Node::new(format!("{}-{index}", model.name), socket.clone(), incarnation, parallel);
    node.edition = model.edition();
    (node, socket)
}
