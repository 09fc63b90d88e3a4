//! [`Service`]: a worker that has become ready: whether it takes requests, and whether it works on those that it has. Pure.

use std::time::{Duration, Instant};

use super::action::{Action, Start};
use super::snapshots;
use crate::generation::seam::{SnapshotCounts, State, Vitals};

/// A worker that has work and yet decodes nothing for so long is wedged. Far longer than any decode takes: it is one batch.
const SILENCE: Duration = Duration::from_secs(60);
/// So it is after this, if all the while it does not even compute.
const STANDSTILL: Duration = Duration::from_secs(6);
/// Who does less than this part of the time computes nothing: answering probes is some work, too.
const IDLE: f64 = 0.02;

/// A worker that has become ready.
pub(super) struct Service {
    pub(super) start: Start,
    pub(super) since: Instant,
    /// From spawn to then.
    pub(super) took: Duration,
    /// Is in the pool.
    pub(super) is_serving: bool,
    /// Is to get no new requests.
    pub(super) is_hushed: bool,
    /// An exchange with it failed and no probe has cleared it yet.
    pub(super) is_suspect: bool,
    pub(super) misses: u32,
    /// Since when it has had work; `None` while it is idle.
    busy_since: Option<Instant>,
    /// When it was seen to compute, or had nothing to do.
    worked: Instant,
    pub(super) vitals: Vitals,
    /// When that was.
    answered: Instant,
}

impl Service {
    pub(super) fn new(start: Start, took: Duration, vitals: Vitals, now: Instant) -> Self {
        Self {
            start,
            since: now,
            took,
            is_serving: true,
            is_hushed: false,
            is_suspect: false,
            misses: 0,
            busy_since: (vitals.busy > 0).then_some(now),
            worked: now,
            vitals,
            answered: now,
        }
    }

    pub(super) fn answered(&mut self, vitals: Vitals, now: Instant, out: &mut Vec<Action>) {
        self.misses = 0;
        self.is_suspect = false;
        self.busy_since = (vitals.busy > 0).then(|| self.busy_since.unwrap_or(now));
        // Somebody else may have told it to stop: then it takes nothing new, and its end is a death like any other.
        match (vitals.state, self.is_serving) {
            (State::Ready, false) if !self.is_hushed => self.admit(out),
            (State::Ready, _) => {}
            _ => self.withdraw(out),
        }
        tell_snapshots(&self.start, self.vitals.snapshots, &vitals, out);
        let passed = now.saturating_duration_since(self.answered).as_secs_f64() * 1e3;
        let work = vitals.work.saturating_sub(self.vitals.work) as f64;
        if vitals.busy == 0 || work > IDLE * passed {
            self.worked = now;
        }
        (self.vitals, self.answered) = (vitals, now);
    }

    pub(super) fn is_wedged(&self, now: Instant) -> bool {
        let silence = self.silence(now);
        let idle = now.saturating_duration_since(self.worked);
        silence >= SILENCE || silence.min(idle) >= STANDSTILL
    }

    /// How long it has had work without decoding any of it.
    fn silence(&self, now: Instant) -> Duration {
        let busy = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.vitals.last_decode_ms.map_or(busy, |age| busy.min(Duration::from_millis(age)))
    }

    pub(super) fn admit(&mut self, out: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.is_serving, true) {
            out.push(Action::Admit(self.start.clone()));
        }
    }

    pub(super) fn withdraw(&mut self, out: &mut Vec<Action>) {
        if std::mem::take(&mut self.is_serving) {
            out.push(Action::Withdraw(self.start.clone()));
        }
    }
}

pub(super) fn tell_snapshots(start: &Start, earlier: SnapshotCounts, vitals: &Vitals, out: &mut Vec<Action>) {
    if vitals.snapshots != earlier {
        out.push(Action::Snapshots(start.model.clone(), snapshots::since(earlier, vitals.snapshots)));
    }
}
