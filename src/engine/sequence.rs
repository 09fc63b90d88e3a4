//! [`Sequence`]: one running generation, from the first prompt token to the last event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::answer::Step;
use super::job::Job;
use super::model::Model;
use super::sampling::{Distribution, Sampler, Token};
use crate::generation::{Alternative, Done, DoneReason, Event, Failure, FailureCode, TokenLogprob};

/// A running generation. It ends with exactly one `Done` or `Error`, or silently when nobody listens any more.
pub struct Sequence {
    job: Job,
    events: UnboundedSender<Event>,
    /// Prompt and answer so far; never shortened, also where the KV cache is.
    history: Vec<Token>,
    /// Tokens to be decoded next.
    unfed: Vec<Token>,
    /// Tokens of the prompt that were in the KV cache already.
    cached: usize,
    generated: usize,
    /// Tokens of the answer that were sent.
    sent: Vec<Token>,
    started: Instant,
    /// When the prompt had been read.
    read: Option<Instant>,
}

impl Sequence {
    /// Starts with `cached` tokens of the prompt in the KV cache.
    pub fn new(job: Job, events: UnboundedSender<Event>, cached: usize) -> Self {
        Self {
            history: job.prompt.tokens.clone(),
            unfed: job.prompt.tokens[cached..].to_vec(),
            cached,
            generated: 0,
            sent: Vec::new(),
            started: Instant::now(),
            read: None,
            job,
            events,
        }
    }

    /// Whether anybody still listens.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether it still reads: its prompt, or what was kept of its context.
    pub fn is_reading(&self) -> bool {
        self.read.is_none() || self.unfed.len() > 1
    }

    /// Tokens waiting to be decoded.
    pub fn unfed(&self) -> &[Token] {
        &self.unfed
    }

    /// The next `count` tokens were decoded.
    pub fn fed(&mut self, count: usize) {
        self.unfed.drain(..count);
    }

    /// Decodes `tokens` before what is waiting.
    pub fn feed_again(&mut self, tokens: Vec<Token>) {
        let waiting = std::mem::replace(&mut self.unfed, tokens);
        self.unfed.extend(waiting);
    }

    /// Cells it may hold.
    pub fn context(&self) -> usize {
        self.job.prompt.context
    }

    /// Cells at the front that stay when its context shifts; `None` if it must end instead.
    pub fn shift_keeps(&self) -> Option<usize> {
        self.job.shift.then_some(self.job.prompt.keep)
    }

    /// Takes the logits after the last token fed. Whether it goes on. A panic, in `logits` too, ends this sequence and no other.
    pub fn advance<'a>(
        &mut self,
        model: &Model,
        sampler: &mut Sampler,
        logits: impl FnOnce() -> &'a [f32],
    ) -> bool {
        let step = catch_unwind(AssertUnwindSafe(|| self.step(model, sampler, logits())));
        match step.unwrap_or_else(|_| Err("sampling panicked".to_owned())) {
            Ok(None) => true,
            Ok(Some(reason)) => {
                self.finish(reason);
                false
            }
            Err(reason) => {
                self.fail(&reason);
                false
            }
        }
    }

    /// Samples, sends what can be sent, and says why it ends if it does.
    fn step(
        &mut self,
        model: &Model,
        sampler: &mut Sampler,
        logits: &[f32],
    ) -> Result<Option<DoneReason>, String> {
        self.read.get_or_insert_with(Instant::now);
        if self.generated >= self.job.limit {
            return Ok(Some(DoneReason::Length));
        }
        let token = self.sample(sampler, logits)?;
        self.generated += 1;
        if let Some(constraint) = &mut self.job.constraint {
            constraint.accept(token)?;
        }
        if model.is_end(token) || self.job.ends.contains(&token) {
            return Ok(Some(DoneReason::Stop));
        }
        self.history.push(token);
        self.unfed.push(token);
        let bytes = if self.job.answer.shows(token) { model.mark(token) } else { model.piece(token) };
        let logprob = self.job.logprobs.map(|best| logprob(model, logits, token, best));
        match self.job.answer.push(token, &bytes, logprob) {
            Step::More(events) => self.send(events),
            Step::Stopped(events) => {
                self.send(events);
                return Ok(Some(DoneReason::Stop));
            }
        }
        if self.job.constraint.as_ref().is_some_and(|constraint| constraint.is_complete()) {
            return Ok(Some(DoneReason::Stop));
        }
        Ok((self.generated >= self.job.limit).then_some(DoneReason::Length))
    }

    fn sample(&mut self, sampler: &mut Sampler, logits: &[f32]) -> Result<Token, String> {
        let mut restricted = Ok(());
        let constraint = self.job.constraint.as_mut();
        let position = self.history.len() as u64;
        let token = sampler.sample(&self.job.settings, logits, &self.history, position, |logits| {
            if let Some(constraint) = constraint {
                restricted = constraint.restrict(logits);
            }
        });
        restricted?;
        token.ok_or_else(|| "no token can follow: the model's output is not a number".to_owned())
    }

    /// Ends it: the text held back, then `Done`.
    pub fn finish(&mut self, reason: DoneReason) {
        let rest = self.job.answer.finish();
        self.send(rest);
        let read = self.read.unwrap_or_else(Instant::now);
        let mut done = Done {
            reason,
            prompt_tokens: self.job.prompt.tokens.len() as u64,
            cached_tokens: self.cached as u64,
            completion_tokens: self.generated as u64,
            prompt_duration: nanoseconds(read - self.started),
            completion_duration: nanoseconds(read.elapsed()),
            context: Vec::new(),
        };
        if self.job.reports_context {
            done.context = self.job.prompt.tokens.iter().chain(&self.sent).copied().collect();
        }
        self.events.send(Event::Done(done)).ok();
    }

    /// Ends it with a failure of this worker.
    pub fn fail(&mut self, reason: &str) {
        let failure = Failure { code: FailureCode::Internal, message: reason.to_owned() };
        self.events.send(Event::Error(failure)).ok();
    }

    fn send(&mut self, events: Vec<Event>) {
        for event in events {
            if let (true, Event::Delta(delta)) = (self.job.reports_context, &event) {
                self.sent.extend(&delta.tokens);
            }
            // A receiver that is gone is noticed before the next step.
            self.events.send(event).ok();
        }
    }
}

fn logprob(model: &Model, logits: &[f32], token: Token, best: usize) -> TokenLogprob {
    let distribution = Distribution::new(logits);
    let alternative = |token| {
        let bytes = model.piece(token);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Alternative { token: text, logprob: distribution.logprob(token), bytes }
    };
    let Alternative { token, logprob, bytes } = alternative(token);
    TokenLogprob {
        token,
        logprob,
        bytes,
        top: distribution.best(best).into_iter().map(alternative).collect(),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}
