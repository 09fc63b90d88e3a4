//! [`Replica`]: the life of one worker and of its replacements, without processes and clocks.

use std::time::{Duration, Instant};

use super::WorkersConfig;
use super::action::{Action, Ending, Exit, Instruction, Report, Start};
use super::service::{Service, tell_snapshots};
use crate::error::Error;
use crate::generation::seam::{SnapshotCounts, State, Vitals};
use crate::node::Node;

/// A worker that dies sooner after it became ready dies of something that a restart does not cure.
const STABLE: Duration = Duration::from_secs(30);
/// Probes in a row that a worker may miss.
const MISSES: u32 = 3;

/// One place for a worker. At most one process at a time: a replacement starts when the old one is gone.
pub(super) struct Replica {
    phase: Phase,
    /// Failures in a row, without [`STABLE`] service in between.
    deaths: u32,
    /// Loads in a row that failed, those included that were killed.
    failed_loads: u32,
    /// End of the hold-off.
    not_before: Option<Instant>,
}

enum Phase {
    Down,
    Loading { start: Start, since: Instant, progress: f32, moved: Instant, private: u64 },
    Ready(Box<Service>),
    Leaving { start: Start, why: Leaving },
}

#[derive(Clone, Copy)]
enum Leaving {
    Planned,
    Stalled,
    Unresponsive { lived: Duration, reason: &'static str },
}

impl Leaving {
    fn unresponsive(service: &Service, reason: &'static str, now: Instant) -> Self {
        Self::Unresponsive { lived: now.saturating_duration_since(service.since), reason }
    }
}

/// What the end of a worker means.
pub(super) enum Fall {
    /// It was told to go.
    Planned,
    /// It never became ready.
    LoadFailed(Error),
    /// It died although it was ready, or was killed on its way there for the first time; so many deaths in a row by now.
    Died { deaths: u32, reason: String },
}

impl Replica {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Down, deaths: 0, failed_loads: 0, not_before: None }
    }

    /// Something runs here.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Down)
    }

    /// Something runs here and is to stay.
    pub(super) fn is_staying(&self) -> bool {
        matches!(self.phase, Phase::Loading { .. } | Phase::Ready(_))
    }

    pub(super) fn is_loading(&self) -> bool {
        matches!(self.phase, Phase::Loading { .. })
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(&self.phase, Phase::Ready(service) if service.is_serving)
    }

    /// Requests may as well wait for this one: it serves, or it is loaded for the first time or in place of one that served.
    pub(super) fn is_promising(&self) -> bool {
        self.is_serving() || self.is_loading() && self.failed_loads == 0 && self.deaths <= 1
    }

    /// The state of a worker that has the model in memory.
    pub(super) fn vitals(&self) -> Option<&Vitals> {
        match &self.phase {
            Phase::Ready(service) => Some(&service.vitals),
            _ => None,
        }
    }

    /// What it took a worker that is ready to become so.
    pub(super) fn took(&self) -> Duration {
        match &self.phase {
            Phase::Ready(service) => service.took,
            _ => Duration::ZERO,
        }
    }

    /// How much of the model is in memory, where it is being loaded.
    pub(super) fn progress(&self) -> Option<f32> {
        match &self.phase {
            Phase::Loading { progress, .. } => Some(*progress),
            _ => None,
        }
    }

    /// Bytes of its own that the worker was last seen to have, also before it was ready.
    pub(super) fn private(&self) -> u64 {
        match &self.phase {
            Phase::Loading { private, .. } => *private,
            Phase::Ready(service) => service.vitals.private_bytes,
            Phase::Down | Phase::Leaving { .. } => 0,
        }
    }

    /// Whether it does something for somebody.
    pub(super) fn is_running(&self) -> bool {
        self.start().is_some_and(|start| start.node.in_flight() > 0)
    }

    /// Gives the worker no new requests, or gives it some again.
    pub(super) fn hush(&mut self, is_hushed: bool, out: &mut Vec<Action>) {
        if let Phase::Ready(service) = &mut self.phase
            && service.is_hushed != is_hushed
        {
            service.is_hushed = is_hushed;
            if is_hushed {
                service.withdraw(out);
            } else if !service.is_suspect && service.vitals.state == State::Ready {
                service.admit(out);
            }
        }
    }

    /// Nothing runs here, and the hold-off has passed.
    pub(super) fn can_start(&self, now: Instant) -> bool {
        !self.is_live() && self.not_before.is_none_or(|end| end <= now)
    }

    pub(super) fn has_incarnation(&self, incarnation: u64) -> bool {
        self.start().is_some_and(|start| start.node.incarnation == incarnation)
    }

    fn start(&self) -> Option<&Start> {
        match &self.phase {
            Phase::Down => None,
            Phase::Loading { start, .. } | Phase::Leaving { start, .. } => Some(start),
            Phase::Ready(service) => Some(&service.start),
        }
    }

    /// When time alone will change something.
    pub(super) fn next_wake(&self, load_timeout: Duration) -> Option<Instant> {
        match &self.phase {
            Phase::Down => self.not_before,
            Phase::Loading { moved, .. } if !load_timeout.is_zero() => moved.checked_add(load_timeout),
            _ => None,
        }
    }

    pub(super) fn spawn(&mut self, start: Start, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::Spawn(start.clone()));
        self.phase = Phase::Loading { start, since: now, progress: 0.0, moved: now, private: 0 };
    }

    /// Takes in what a look at the worker found.
    pub(super) fn report(&mut self, report: Report, now: Instant, out: &mut Vec<Action>) {
        match (&mut self.phase, report) {
            (Phase::Loading { start, since, .. }, Report::Vitals(vitals)) if vitals.state == State::Ready => {
                let (start, took) = (start.clone(), now.saturating_duration_since(*since));
                out.push(Action::Loaded(start.clone(), took));
                out.push(Action::Admit(start.clone()));
                self.failed_loads = 0;
                tell_snapshots(&start, SnapshotCounts::default(), &vitals, out);
                self.phase = Phase::Ready(Box::new(Service::new(start, took, *vitals, now)));
            }
            (Phase::Loading { progress, moved, private, .. }, Report::Vitals(vitals)) => {
                *private = vitals.private_bytes;
                if vitals.progress > *progress {
                    *progress = vitals.progress;
                    *moved = now;
                }
            }
            (Phase::Ready(service), Report::Vitals(vitals)) => {
                service.answered(*vitals, now, out);
                if service.is_wedged(now) {
                    let why = Leaving::unresponsive(service, "it had work but stopped decoding", now);
                    self.leave(Instruction::Kill, why, out);
                }
            }
            (Phase::Ready(service), Report::Missed) => {
                service.misses += 1;
                if service.is_suspect || service.misses >= MISSES {
                    let why = Leaving::unresponsive(service, "it did not answer", now);
                    self.leave(Instruction::Kill, why, out);
                }
            }
            _ => {}
        }
    }

    /// An exchange with `node` failed, which may be this worker.
    pub(super) fn suspect(&mut self, node: &Node, out: &mut Vec<Action>) {
        if let Phase::Ready(service) = &mut self.phase
            && service.start.node.incarnation == node.incarnation
            && service.start.node.name == node.name
        {
            service.is_suspect = true;
            service.withdraw(out);
            out.push(Action::Instruct(service.start.node.incarnation, Instruction::Probe));
        }
    }

    /// Gives up on a load that does not move.
    pub(super) fn give_up_if_stalled(&mut self, load_timeout: Duration, now: Instant, out: &mut Vec<Action>) {
        let is_due = self.next_wake(load_timeout).is_some_and(|due| due <= now);
        if self.is_loading() && is_due {
            self.leave(Instruction::Kill, Leaving::Stalled, out);
        }
    }

    /// Ends what runs here, if anything does.
    pub(super) fn stop(&mut self, grace: Duration, out: &mut Vec<Action>) {
        self.leave(Instruction::Stop(grace), Leaving::Planned, out);
    }

    fn leave(&mut self, instruction: Instruction, why: Leaving, out: &mut Vec<Action>) {
        if let Phase::Ready(service) = &mut self.phase {
            service.withdraw(out);
        }
        let Some(start) = self.start().cloned() else { return };
        out.push(Action::Instruct(start.node.incarnation, instruction));
        // Who is being killed already stays in that state: its end means what it meant.
        if self.is_staying() {
            self.phase = Phase::Leaving { start, why };
        }
    }

    /// The process is gone; says what that means and sets the hold-off.
    pub(super) fn gone(
        &mut self,
        exit: Exit,
        now: Instant,
        config: &WorkersConfig,
        out: &mut Vec<Action>,
    ) -> Fall {
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Down | Phase::Leaving { why: Leaving::Planned, .. } => {
                *self = Self::new();
                Fall::Planned
            }
            // Killed once says nothing about the model; killed again (out of memory, say) does. So it is where memory ran out.
            Phase::Loading { start, .. }
                if (exit.ending == Ending::Killed || exit.is_out_of_memory()) && self.failed_loads == 0 =>
            {
                self.failed_loads = 1;
                self.died(start, exit, Duration::ZERO, now, config, out)
            }
            Phase::Loading { start, .. } => {
                let error = Error::LoadFailed { model: start.model.name.clone(), reason: exit.reason };
                self.load_failed(start, error, now, config, out)
            }
            Phase::Leaving { start, why: Leaving::Stalled } => {
                let error = Error::LoadTimeout { model: start.model.name.clone() };
                self.load_failed(start, error, now, config, out)
            }
            Phase::Leaving { start, why: Leaving::Unresponsive { lived, reason } } => {
                let exit = Exit { ending: Ending::Unresponsive, reason: reason.to_owned() };
                self.died(start, exit, lived, now, config, out)
            }
            Phase::Ready(mut service) => {
                service.withdraw(out);
                let lived = now.saturating_duration_since(service.since);
                self.died(service.start, exit, lived, now, config, out)
            }
        }
    }

    fn load_failed(
        &mut self,
        start: Start,
        error: Error,
        now: Instant,
        config: &WorkersConfig,
        out: &mut Vec<Action>,
    ) -> Fall {
        self.deaths += 1;
        self.failed_loads += 1;
        self.not_before = now.checked_add(hold_off(self.deaths, config));
        out.push(Action::LoadFailed(start, error.clone()));
        Fall::LoadFailed(error)
    }

    /// The first death is an accident: the replacement starts at once.
    fn died(
        &mut self,
        start: Start,
        exit: Exit,
        lived: Duration,
        now: Instant,
        config: &WorkersConfig,
        out: &mut Vec<Action>,
    ) -> Fall {
        self.deaths = if lived >= STABLE { 1 } else { self.deaths + 1 };
        self.not_before = now.checked_add(hold_off(self.deaths - 1, config));
        out.push(Action::Lost(start, exit.ending, exit.reason.clone()));
        Fall::Died { deaths: self.deaths, reason: exit.reason }
    }
}

/// Nothing for no failure, `restart_backoff` for the first, then twice as long each time up to the limit.
fn hold_off(failures: u32, config: &WorkersConfig) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    config.restart_backoff.saturating_mul(factor).min(config.restart_backoff_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hold_off_doubles_up_to_its_limit() {
        let config = WorkersConfig::default();
        let milliseconds: Vec<_> = (0..9).map(|n| hold_off(n, &config).as_millis()).collect();
        assert_eq!(milliseconds, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(hold_off(u32::MAX, &config), config.restart_backoff_max);
    }
}
