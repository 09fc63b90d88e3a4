//! [`Node`]: what has been learned of one node: how long until its first token, how long between tokens, and how good such predictions
//! were.

use std::time::Instant;

use super::super::{Candidate, Digest};
use super::rls::Rls;

/// How fast the record of errors forgets: one of so many answers.
const ERROR_MEMORY: f32 = 64.0;
/// A prediction that was trusted stays so until its error is larger by this factor: no strategy is to change with every answer.
const DOUBT: f32 = 1.5;

/// What the time to first token depends on: a constant; the tokens to be read until then, as far as the node is idle and as far as it is
/// busy, for who generates slows reading down; and those that have no place.
const TTFT: usize = 4;
/// A constant is believed in less readily than that reading takes time.
const CONSTANT: f64 = 0.1;
/// What the time per token depends on: a constant and sequences.
const PACE: usize = 2;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Node {
    ttft: Rls<TTFT>,
    pace: Rls<PACE>,
    seen: u32,
    /// Moving averages of how far predictions were off, and of what came, in seconds.
    error: f32,
    actual: f32,
    is_mature: bool,
    is_trusted: bool,
    /// When it was last sent a request.
    pub last: Option<Instant>,
}

/// What makes predictions trusted.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub samples: u32,
    pub max_error: f32,
    pub forget: f64,
}

/// What a prediction is made from: thousands of tokens, and parts of a node's places, so that all are of about 1.
pub(super) fn features(digest: &Digest, candidate: &Candidate, reuse: u32) -> [f64; TTFT] {
    let places = candidate.parallel.max(1) as f64;
    let unread = u64::from(digest.prompt_tokens.saturating_sub(reuse));
    let read = (unread + candidate.tokens_unread) as f64 / 1000.0;
    let busy = candidate.in_flight as f64 / places;
    let own_queue = (busy + 1.0 / places - 1.0).max(0.0);
    let waiting = candidate.signals.queue.map_or(0.0, |queue| f64::from(queue) / places).max(own_queue);
    let busy = busy.min(1.0);
    [CONSTANT, read * (1.0 - busy), read * busy, waiting]
}

/// What the time per token is predicted from.
fn beside(candidate: &Candidate) -> [f64; PACE] {
    [1.0, candidate.in_flight as f64 / candidate.parallel.max(1) as f64]
}

impl Node {
    /// Seconds until the first token, of a model that is in memory.
    pub(super) fn ttft(&self, features: &[f64; TTFT]) -> f32 {
        self.ttft.predict(features).max(0.0) as f32
    }

    /// Seconds that reading takes of that which the request itself brings.
    pub(super) fn own(&self, digest: &Digest, candidate: &Candidate, reuse: u32) -> f32 {
        let busy = f64::from(candidate.usage().min(1.0));
        let per_thousand = self.ttft.weight(1) * (1.0 - busy) + self.ttft.weight(2) * busy;
        (f64::from(digest.prompt_tokens.saturating_sub(reuse)) / 1000.0 * per_thousand) as f32
    }

    /// Seconds per token after that.
    pub(super) fn pace(&self, candidate: &Candidate) -> f32 {
        self.pace.predict(&beside(candidate)).max(0.0) as f32
    }

    /// Whether there were enough answers to say more of it than that it is one of many.
    pub(super) fn is_mature(&self) -> bool {
        self.is_mature
    }

    /// Whether its predictions have been right, too.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// How far predictions were off, in relation to what came.
    pub(super) fn relative_error(&self) -> f32 {
        if self.actual > 0.0 { self.error / self.actual } else { 1.0 }
    }

    /// The first token came after `seconds`. The error is of what would have been predicted, before anything is learned.
    pub(super) fn observe_ttft(&mut self, features: &[f64; TTFT], seconds: f32, terms: Terms) {
        let error = (self.ttft(features) - seconds).abs();
        let rate = (1.0 / (self.seen as f32 + 1.0)).max(1.0 / ERROR_MEMORY);
        // The first guesses are of somebody who knows nothing, and would be held against it for long.
        if self.seen >= terms.samples / 2 {
            let rate = rate.max(1.0 / (1.0 + (self.seen - terms.samples / 2) as f32));
            self.error += (error - self.error) * rate;
            self.actual += (seconds - self.actual) * rate;
        }
        self.ttft.observe(features, f64::from(seconds), terms.forget);
        self.seen = self.seen.saturating_add(1);
        let bound = if self.is_trusted { terms.max_error * DOUBT } else { terms.max_error };
        self.is_mature = self.seen >= terms.samples;
        self.is_trusted = self.is_mature && self.relative_error() <= bound;
    }

    /// Tokens came every `seconds`.
    pub(super) fn observe_pace(&mut self, candidate: &Candidate, seconds: f32, forget: f64) {
        self.pace.observe(&beside(candidate), f64::from(seconds), forget);
    }
}
