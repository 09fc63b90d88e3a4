//! [`Status`]: what `GET /health` reports, shared by the thread that computes and the tasks that answer.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::generation::seam::{Binding, Device, Model, Sandbox, Settings, SnapshotCounts, State, Vitals};

/// The worker's state. Writers hold the lock for a few assignments only.
#[derive(Default)]
pub struct Status(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    vitals: Vitals,
    last_decode: Option<Instant>,
}

impl Status {
    /// The state at the start.
    pub fn new(binding: Binding, sandbox: Sandbox) -> Self {
        let vitals = Vitals { binding, sandbox, ..Vitals::default() };
        Self(Mutex::new(Inner { vitals, last_decode: None }))
    }

    /// The state as of now.
    pub fn vitals(&self) -> Vitals {
        let (mut vitals, last_decode) = self.with(|inner| (inner.vitals.clone(), inner.last_decode));
        vitals.last_decode_ms = last_decode.map(|at| at.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
        (vitals.resident_bytes, vitals.private_bytes) = memory();
        vitals.work = work();
        vitals
    }

    /// Loading has come this far, 0 to 1.
    pub fn loading(&self, progress: f32) {
        self.with(|inner| inner.vitals.progress = progress);
    }

    /// What llama.cpp computes with is known.
    pub fn computes_with(&self, backend: crate::generation::seam::Backend) {
        self.with(|inner| inner.vitals.backend = backend);
    }

    /// The model is loaded.
    pub fn ready(&self, model: Model, device_bytes: u64, devices: Vec<Device>) {
        self.with(|inner| {
            let vitals = &mut inner.vitals;
            vitals.progress = 1.0;
            vitals.free = model.parallel as usize;
            vitals.kv_total = model.cells;
            vitals.device_bytes = device_bytes;
            vitals.devices = devices;
            vitals.model = Some(model);
            if vitals.state == State::Loading {
                vitals.state = State::Ready;
            }
        });
    }

    /// Steps read so many tokens of prompts now while others generate.
    pub fn paced(&self, tokens: usize) {
        self.with(|inner| inner.vitals.pace = tokens);
    }

    /// These settings are in force now.
    pub fn set(&self, settings: &Settings) {
        self.with(|inner| inner.vitals.settings = Some(settings.clone()));
    }

    /// A sequence had to give its cells back.
    pub fn paused(&self) {
        self.with(|inner| inner.vitals.pauses += 1);
    }

    /// So many wait.
    pub fn waiting(&self, count: usize) {
        self.with(|inner| inner.vitals.waiting = count);
    }

    /// So many tokens were guessed, and so many of them right.
    pub fn guessed(&self, guessed: u64, accepted: u64) {
        self.with(|inner| {
            inner.vitals.guessed += guessed;
            inner.vitals.accepted += accepted;
        });
    }

    /// Counts what became of snapshots.
    pub fn snapshots(&self, count: impl FnOnce(&mut SnapshotCounts)) {
        self.with(|inner| count(&mut inner.vitals.snapshots));
    }

    /// The worker is of no use any more.
    pub fn failed(&self, reason: &str) {
        self.with(|inner| {
            inner.vitals.state = State::Failed;
            inner.vitals.error = Some(reason.to_owned());
        });
    }

    /// No new work is taken.
    pub fn stopping(&self) {
        self.with(|inner| inner.vitals.state = State::Stopping);
    }

    /// Sequences running, KV cells in use, and those that running sequences use, as of now.
    pub fn occupied(&self, busy: usize, kv_used: u64, kv_busy: u64) {
        self.with(|inner| {
            let parallel = inner.vitals.model.as_ref().map_or(0, |model| model.parallel as usize);
            inner.vitals.busy = busy;
            inner.vitals.free = parallel.saturating_sub(busy);
            (inner.vitals.kv_used, inner.vitals.kv_busy) = (kv_used, kv_busy);
        });
    }

    /// A batch was decoded just now.
    pub fn decoded(&self) {
        self.with(|inner| inner.last_decode = Some(Instant::now()));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Milliseconds that all threads have computed, and how often one had to wait for a page of a file.
fn work() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let computed = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
    u64::try_from(computed + usage.major_page_faults()).unwrap_or(0)
}

/// Resident memory of this process, and the part of it that is no file's; 0 where the system does not say.
fn memory() -> (u64, u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let bytes = |pages: u64| pages * u64::try_from(page).unwrap_or(4096);
    (bytes(resident), bytes(resident.saturating_sub(shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_was_told_to_stop_while_loading_does_not_become_ready() {
        let status = Status::default();
        assert_eq!(status.vitals().state, State::Loading);
        status.stopping();
        status.ready(Model { parallel: 2, cells: 16, ..Model::default() }, 0, Vec::new());
        let vitals = status.vitals();
        assert_eq!((vitals.state, vitals.kv_total), (State::Stopping, 16));
    }

    #[test]
    fn busy_and_free_add_up_to_the_sequences() {
        let status = Status::default();
        status.ready(Model { parallel: 4, ..Model::default() }, 0, Vec::new());
        status.occupied(1, 77, 70);
        let vitals = status.vitals();
        assert_eq!((vitals.busy, vitals.free, vitals.kv_used, vitals.kv_busy), (1, 3, 77, 70));
        assert_eq!(vitals.last_decode_ms, None);
        status.decoded();
        assert!(status.vitals().last_decode_ms.is_some());
    }
}
