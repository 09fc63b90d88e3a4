//! [`Stake`]: what a model has to do with memory: what it claims, since when it is there, how much it is worth.

use std::time::{Duration, Instant};

use super::memory::{Claim, Clock, Cost, Memory, Need, Policy, Record, Step, Weight, remaining};
use crate::generation::seam::{Cut, Vitals};

/// Reading a header takes some 10 ms.
const PATIENCE: Duration = Duration::from_secs(2);
/// What was likely to be asked for soon and was not has become unlikely.
const UNUSED: Duration = Duration::from_secs(10 * 60);

/// One model's.
pub(super) struct Stake {
    /// Known from when it was weighed until it is gone.
    claim: Option<Claim>,
    /// Since when it is being weighed.
    weighing: Option<Instant>,
    record: Record,
    /// When it came.
    since: Option<Instant>,
    /// When the load began that is not over.
    begun: Option<Instant>,
    /// Another model has left for it since it began to wait.
    pub(super) has_displaced: bool,
    /// It gets no new requests, because another model waits for its room.
    pub(super) is_hushed: bool,
    /// Memory ran out when it was loaded.
    pub(super) is_pressed: bool,
    /// It was in memory at the last shutdown and comes back if it fits, for nobody.
    pub(super) is_warm: bool,
    /// It is likely to be asked for and came for that, and nobody has asked for it yet.
    pub(super) is_foreseen: bool,
}

impl Stake {
    pub(super) fn new() -> Self {
        Self {
            claim: None,
            weighing: None,
            record: Record::new(Clock::default()),
            since: None,
            begun: None,
            has_displaced: false,
            is_hushed: false,
            is_pressed: false,
            is_warm: false,
            is_foreseen: false,
        }
    }

    /// Whether it has to be weighed now, which is then to be done.
    pub(super) fn must_be_weighed(&mut self, now: Instant) -> bool {
        self.claim.is_none() && self.weighing.replace(self.weighing.unwrap_or(now)).is_none()
    }

    /// When it is given up to weigh it: the disk does not answer, which is for the load to tell.
    pub(super) fn weighed_by(&self) -> Option<Instant> {
        self.weighing?.checked_add(PATIENCE)
    }

    pub(super) fn is_weighed(&self) -> bool {
        self.claim.is_some()
    }

    /// It weighs so much. What cannot be weighed claims nothing: loading it will say what is wrong.
    pub(super) fn weighed(&mut self, weight: Option<Weight>, memory: &Memory) {
        self.weighing = None;
        let cut = self.cut();
        let mut claim = memory.claim(weight.unwrap_or_default());
        // One that is in memory already stands where it stands.
        if let Some(step) = claim.steps.iter().find(|step| step.cut == cut) {
            claim.step = step.clone();
        }
        self.claim = Some(claim);
    }

    /// What it weighs is to be found out anew: by what is done so that it fits, or by what that may be, it is another matter now.
    pub(super) fn unweigh(&mut self) {
        self.claim = None;
        self.weighing = None;
    }

    /// A request that used it has ended.
    pub(super) fn used(&mut self, clock: Clock, now: Instant) {
        self.record.touch(clock, now);
    }

    /// A load begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    /// How long it will take until it is there, of which so much is loaded.
    pub(super) fn eta(&self, progress: f32, now: Instant) -> Duration {
        let elapsed = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        remaining(progress, elapsed, self.load())
    }

    /// A worker became ready, after so long.
    pub(super) fn came(&mut self, vitals: &Vitals, took: Duration, memory: &mut Memory, now: Instant) {
        self.since.get_or_insert(now);
        self.is_pressed = false;
        self.is_warm = false;
        // One that could not be weighed has no key.
        if vitals.private_bytes > 0
            && let Some(claim) = self.claim.as_ref().filter(|claim| !claim.step.key.is_empty())
        {
            memory.ledger.loaded(&claim.step.key, vitals.private_bytes, vitals.device_bytes, took);
            let totals = vitals.devices.iter().map(|device| device.total);
            memory.ledger.set_gpus(vitals.binding.gpus.as_ref(), totals);
            self.correct(memory);
        }
    }

    /// A worker that serves was looked at.
    pub(super) fn seen(&mut self, vitals: &Vitals, memory: &mut Memory) {
        if let Some(claim) = &self.claim
            && memory.ledger.seen(&claim.step.key, vitals.private_bytes)
        {
            self.correct(memory);
        }
    }

    fn correct(&mut self, memory: &Memory) {
        if let Some(claim) = &mut self.claim {
            let Step { key, need, .. } = &mut claim.step;
            *need = memory.ledger.correct(key, std::mem::take(need));
            claim.load = memory.load(key).unwrap_or(claim.load);
        }
    }

    /// Nothing of it runs any more. Its file may be another one when it comes again.
    pub(super) fn gone(&mut self) {
        self.claim = None;
        self.since = None;
        self.begun = None;
        self.is_hushed = false;
    }

    /// What one of its workers claims.
    pub(super) fn need(&self) -> Option<&Need> {
        self.claim.as_ref().map(|claim| &claim.step.need)
    }

    /// What one of its workers would claim on each rung that it has, and how many of these come before anybody has to leave.
    pub(super) fn needs(&self) -> (impl Iterator<Item = &Need>, usize) {
        let steps = self.claim.iter().flat_map(|claim| &claim.steps);
        (steps.map(|step| &step.need), self.claim.as_ref().map_or(1, |claim| claim.before_eviction))
    }

    /// It comes on this rung, as in [`Stake::needs`].
    pub(super) fn stands_on(&mut self, rung: usize) {
        if let Some(claim) = &mut self.claim
            && let Some(step) = claim.steps.get(rung)
        {
            claim.step = step.clone();
        }
    }

    /// What its workers do without.
    pub(super) fn cut(&self) -> Cut {
        self.claim.as_ref().map_or_else(Cut::default, |claim| claim.step.cut)
    }

    /// What loading it takes.
    pub(super) fn load(&self) -> Duration {
        self.claim.as_ref().map_or(Duration::ZERO, |claim| claim.load)
    }

    /// Until when it stays in any case: for `least`, and, while it is in use, for as long as its load took, so that at least half of
    /// the time is spent on requests.
    pub(super) fn stays_until(&self, least: Duration, is_used: bool) -> Option<Instant> {
        let turn = if is_used { least.max(self.load()) } else { least };
        self.since?.checked_add(turn)
    }

    /// When it leaves if nobody asks for it though that was likely.
    pub(super) fn unused_by(&self) -> Option<Instant> {
        self.since?.checked_add(UNUSED)
    }

    /// What `workers` of it are worth. What nobody has asked for leaves before all others.
    pub(super) fn worth(&self, policy: Policy, workers: usize, now: Instant) -> f64 {
        if self.is_foreseen {
            return f64::NEG_INFINITY;
        }
        let need = self.need().map(|need| need.times(workers as u64));
        let size = need.map_or(0, |need| need.host().saturating_add(need.device));
        self.record.worth(policy, Cost { size, load: self.load() }, now)
    }

    /// How often it was used lately.
    pub(super) fn uses(&self, now: Instant) -> f64 {
        self.record.uses(now)
    }
}
