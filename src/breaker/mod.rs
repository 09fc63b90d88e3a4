//! [`Breaker`]: passive health. A node that fails is left alone for a while, then tried with few requests, and comes back slowly.
//! (M. Nygard, "Release It!", 2007, chapter 5.) Pure state; the time is passed in.
//!
//! Who was wrong is for the caller to say: what the client did, and what a node refuses because it is busy, is no failure.

mod config;
mod state;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use config::BreakerConfig;
pub use state::{Forced, Report, Shut, State, Transition};
use window::Window;

/// The share of its requests that a node begins with when it is back.
const FIRST_SHARE: f64 = 0.1;

/// Told of every change of state.
pub type Listener = Arc<dyn Fn(&Transition) + Send + Sync>;

/// The breaker of one node.
pub struct Breaker {
    inner: Mutex<Inner>,
    listener: Listener,
}

struct Inner {
    config: BreakerConfig,
    state: State,
    forced: Option<Forced>,
    reason: String,
    window: Window,
    consecutive: u32,
    /// When it opened last, and how often without a quiet time in between.
    opened: Instant,
    times: u32,
    /// When it closed again.
    closed: Option<Instant>,
    /// Requests that try whether it is back, and those that came back well.
    trying: u32,
    recovered: u32,
    /// Counts openings, so that what was let in before one is no verdict on what came after it.
    era: u64,
    /// The node has asked to be left alone until then.
    resting: Option<Instant>,
}

/// One request to a node. Dropped without a verdict it counts for nothing.
#[must_use]
pub struct Permit {
    breaker: Arc<Breaker>,
    era: u64,
    /// Its first event says whether the node is back.
    is_trial: bool,
    /// To the first event.
    took: Duration,
}

impl Breaker {
    /// A closed one.
    pub fn new(config: BreakerConfig, listener: Listener, now: Instant) -> Self {
        let inner = Inner {
            window: Window::new(config.window, now),
            config,
            state: State::Closed,
            forced: None,
            reason: String::new(),
            consecutive: 0,
            opened: now,
            times: 0,
            closed: None,
            trying: 0,
            recovered: 0,
            era: 0,
            resting: None,
        };
        Self { inner: Mutex::new(inner), listener }
    }

    /// Lets one request through, or says when it is worth another try.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, Shut> {
        self.change(|inner| {
            inner.shut(now).map_or(Ok(()), Err)?;
            if inner.state == State::Open && inner.forced.is_none() {
                inner.turn(State::HalfOpen, "time to see whether it is back".into());
                (inner.trying, inner.recovered) = (0, 0);
            }
            let is_trial = inner.state == State::HalfOpen && inner.forced.is_none();
            inner.trying += u32::from(is_trial);
            Ok(Permit { breaker: Arc::clone(self), era: inner.era, is_trial, took: Duration::ZERO })
        })
    }

    /// Why nothing would be let through now; `None`: something would.
    pub fn shut(&self, now: Instant) -> Option<Shut> {
        self.lock().shut(now)
    }

    /// The part of its requests that the node should get: less than 1 for a while after it has come back.
    pub fn share(&self, now: Instant) -> f64 {
        self.lock().share(now)
    }

    /// The node has asked to be left alone for a while (`Retry-After`). That is no failure.
    pub fn rest(&self, pause: Duration, now: Instant) {
        let mut inner = self.lock();
        let until = now + pause.min(inner.config.open_max);
        inner.resting = Some(inner.resting.map_or(until, |known| known.max(until)));
    }

    /// Opens or closes it until [`Breaker::reset`].
    pub fn force(&self, forced: Forced, reason: &str, now: Instant) {
        self.change(|inner| {
            let to = if forced == Forced::Open { State::Open } else { State::Closed };
            inner.forced = Some(forced);
            (inner.era, inner.opened, inner.resting) = (inner.era + 1, now, None);
            inner.turn(to, reason.to_owned());
        });
    }

    /// Forgets everything, also what was forced.
    pub fn reset(&self, now: Instant) {
        self.change(|inner| {
            inner.window = Window::new(inner.config.window, now);
            (inner.forced, inner.resting, inner.closed) = (None, None, None);
            (inner.consecutive, inner.times, inner.era) = (0, 0, inner.era + 1);
            inner.turn(State::Closed, "reset".into());
        });
    }

    /// Goes on under other settings.
    pub fn configure(&self, config: &BreakerConfig, now: Instant) {
        let mut inner = self.lock();
        if inner.config.window != config.window {
            inner.window = Window::new(config.window, now);
        }
        inner.config = config.clone();
    }

    /// How things stand.
    pub fn report(&self, now: Instant) -> Report {
        let mut inner = self.lock();
        let counts = inner.window.sum(now);
        let shut = inner.shut(now);
        Report {
            state: inner.state,
            forced: inner.forced,
            reason: inner.reason.clone(),
            consecutive_failures: inner.consecutive,
            requests: counts.requests,
            failures: counts.failures,
            slow: counts.slow,
            retry_in: shut
                .and_then(|shut| shut.retry_at)
                .map(|at| at.saturating_duration_since(now).as_secs_f64()),
            share: inner.share(now),
        }
    }

    /// Changes the state and tells the listener if that made a difference.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let from = inner.state;
        let changed = change(&mut inner);
        let (to, reason) = (inner.state, inner.reason.clone());
        drop(inner);
        if from != to {
            (self.listener)(&Transition { from, to, reason });
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn shut(&self, now: Instant) -> Option<Shut> {
        match self.forced {
            Some(Forced::Open) => return Some(Shut { retry_at: None }),
            Some(Forced::Closed) => return None,
            None => {}
        }
        if let Some(until) = self.resting.filter(|&until| until > now) {
            return Some(Shut { retry_at: Some(until) });
        }
        match self.state {
            State::Closed => None,
            State::Open => {
                let until = self.opened + self.open_time();
                (until > now).then_some(Shut { retry_at: Some(until) })
            }
            // Those that try will say soon.
            State::HalfOpen => (self.trying + self.recovered >= self.config.half_open)
                .then_some(Shut { retry_at: Some(now + Duration::from_secs(1)) }),
        }
    }

    fn share(&self, now: Instant) -> f64 {
        let Some(closed) = self.closed.filter(|_| self.state == State::Closed) else { return 1.0 };
        let passed = now.saturating_duration_since(closed).as_secs_f64();
        let whole = self.config.slow_start.as_secs_f64();
        if passed >= whole { 1.0 } else { FIRST_SHARE + (1.0 - FIRST_SHARE) * passed / whole }
    }

    fn open_time(&self) -> Duration {
        let doublings = self.times.saturating_sub(1).min(16);
        self.config.open.saturating_mul(1 << doublings).min(self.config.open_max)
    }

    fn verdict(&mut self, failure: Option<&str>, took: Duration, is_trial: bool, now: Instant) {
        let is_slow = !self.config.slow_call.is_zero() && took > self.config.slow_call;
        self.window.count(failure.is_some(), is_slow, now);
        self.consecutive = if failure.is_some() { self.consecutive + 1 } else { 0 };
        match (is_trial, failure) {
            (true, Some(what)) => self.open(format!("it is not back: {what}"), now),
            (true, None) => {
                self.recovered += 1;
                if self.recovered >= self.config.half_open {
                    self.window = Window::new(self.config.window, now);
                    self.closed = Some(now);
                    self.turn(State::Closed, "it is back".into());
                }
            }
            (false, what) if self.state == State::Closed => {
                if let Some(reason) = self.fault(what, now) {
                    self.open(reason, now);
                } else if self.closed.is_some_and(|closed| now >= closed + self.quiet()) {
                    (self.closed, self.times) = (None, 0);
                }
            }
            (false, _) => {}
        }
    }

    /// After so long without opening it is as if it never had.
    fn quiet(&self) -> Duration {
        self.config.window.max(self.config.slow_start)
    }

    /// Why it should open.
    fn fault(&mut self, failure: Option<&str>, now: Instant) -> Option<String> {
        let config = &self.config;
        if let Some(what) = failure
            && self.consecutive >= config.consecutive_failures
        {
            return Some(format!("{} failures in a row, the last one: {what}", self.consecutive));
        }
        let counts = self.window.sum(now);
        if counts.requests < config.min_requests {
            return None;
        }
        let share = |count: u32| f64::from(count) / f64::from(counts.requests);
        let of = |count: u32, what: &str| format!("{count} of {} requests {what}", counts.requests);
        if failure.is_some() && config.error_rate > 0.0 && share(counts.failures) >= config.error_rate {
            return Some(of(counts.failures, "failed"));
        }
        let is_slow = counts.slow > 0 && config.slow_rate > 0.0 && share(counts.slow) >= config.slow_rate;
        is_slow.then(|| of(counts.slow, "were slow"))
    }

    fn open(&mut self, reason: String, now: Instant) {
        if self.forced.is_some() {
            return;
        }
        (self.opened, self.era, self.times) = (now, self.era + 1, self.times + 1);
        self.turn(State::Open, reason);
    }

    fn turn(&mut self, to: State, reason: String) {
        (self.state, self.reason) = (to, reason);
    }
}

impl Permit {
    /// The node has begun to answer, after `took`. That is enough to say that it is back.
    pub fn answered(&mut self, took: Duration, now: Instant) {
        self.took = took;
        if self.is_trial {
            self.verdict(None, now);
            self.leave();
        }
    }

    /// The node has answered.
    pub fn succeed(self, now: Instant) {
        self.verdict(None, now);
    }

    /// The node has failed; `what` happened in words.
    pub fn fail(self, what: &str, now: Instant) {
        self.verdict(Some(what), now);
    }

    fn verdict(&self, failure: Option<&str>, now: Instant) {
        self.breaker.change(|inner| {
            if self.era == inner.era {
                inner.verdict(failure, self.took, self.is_trial, now);
            }
        });
    }

    /// Tries no more.
    fn leave(&mut self) {
        let mut inner = self.breaker.lock();
        if std::mem::take(&mut self.is_trial) && self.era == inner.era {
            inner.trying = inner.trying.saturating_sub(1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
