//! [`Sequence`]: one running generation, from the first prompt token to the last event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::adapters::Adapter;
use super::answer::Step;
use super::job::Job;
use super::model::Model;
use super::sampling::{Distribution, Restrict, Sampler, Token};
use super::speculate::Guesser;
use super::vision::{Picture, is_part};
use crate::generation::{Alternative, Done, DoneReason, Event, Failure, FailureCode, Resume, TokenLogprob};

/// A running generation. It ends with exactly one `Done` or `Error`, or silently when nobody listens any more.
pub struct Sequence {
    job: Job,
    events: UnboundedSender<Event>,
    /// Prompt and answer so far; never shortened, also where the KV cache is.
    history: Vec<Token>,
    /// What its cells hold when it has read all it starts with.
    start: Vec<Token>,
    /// Tokens to be decoded next.
    unfed: Vec<Token>,
    /// Tokens of the prompt that were in the KV cache already.
    cached: usize,
    generated: usize,
    /// What was sent by a run before this one and is not sent again.
    known: Resume,
    /// Tokens of the answer that were sent.
    sent: Vec<Token>,
    started: Instant,
    /// When the prompt had been read.
    read: Option<Instant>,
    /// What is guessed to come next.
    pub guesser: Guesser,
}

impl Sequence {
    /// Starts where the request says, behind what was sent before if there is any. `None`: it has ended, and said so.
    pub fn new(model: &Model, mut job: Job, events: UnboundedSender<Event>) -> Option<Self> {
        let known = std::mem::take(&mut job.resume);
        let again = known.tokens.clone();
        let mut sequence = Self {
            history: job.prompt.tokens.clone(),
            start: Vec::new(),
            unfed: Vec::new(),
            cached: 0,
            generated: 0,
            known,
            sent: Vec::new(),
            started: Instant::now(),
            read: None,
            guesser: Guesser::default(),
            job,
            events,
        };
        for token in again {
            let step = sequence.take(model, token, None);
            if !sequence.goes_on(step) {
                return None;
            }
        }
        sequence.start = sequence.cells();
        sequence.unfed = sequence.start.clone();
        Some(sequence)
    }

    /// What its cells would hold had it run from the beginning: all of it, unless its context has shifted.
    fn cells(&self) -> Vec<Token> {
        let (prompt, answer) = self.history.split_at(self.job.prompt.tokens.len());
        let mut cells = prompt.to_vec();
        for &token in answer {
            if cells.len() >= self.context() {
                let keep = self.job.prompt.keep.min(cells.len());
                cells.drain(keep..keep + (cells.len() - keep) / 2);
            }
            cells.push(token);
        }
        cells
    }

    /// The first `cached` tokens of what it starts with are in the KV cache; before anything was decoded.
    pub fn skip(&mut self, cached: usize) {
        self.unfed = self.start[cached..].to_vec();
        self.cached = cached.min(self.job.prompt.tokens.len());
    }

    /// What it reads before it generates.
    pub fn start(&self) -> &[Token] {
        &self.start
    }

    /// What it is computed with.
    pub fn adapter(&self) -> Option<Adapter> {
        self.job.adapter
    }

    /// Tokens that it had to read when it started.
    pub fn to_read(&self) -> usize {
        self.start.len().saturating_sub(self.cached)
    }

    /// When it was given a slot.
    pub fn started(&self) -> Instant {
        self.started
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

    /// How many of them come before the next picture.
    pub fn readable(&self) -> usize {
        match self.job.prompt.pictures.is_empty() {
            true => self.unfed.len(),
            false => self.unfed.iter().take_while(|token| !is_part(**token)).count(),
        }
    }

    /// The picture that is to be computed next, and at which of its tokens, if what is next is one.
    pub fn picture(&self) -> Option<(&Arc<Picture>, usize)> {
        let next = self.unfed.first().filter(|token| is_part(**token))?;
        self.job.prompt.pictures.iter().find_map(|picture| {
            let at = picture.tokens().iter().position(|token| token == next)?;
            Some((picture, at))
        })
    }

    /// Where its events go.
    pub fn events(&self) -> &UnboundedSender<Event> {
        &self.events
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

    /// Its guesser, which has seen all of its text, and the text.
    pub fn guessing(&mut self) -> (&mut Guesser, &[Token]) {
        self.guesser.follow(&self.history);
        (&mut self.guesser, &self.history)
    }

    /// How many tokens could be guessed behind what waits to be decoded, with so many cells used: it neither outgrows its context
    /// with them nor its limit. None where it sees: guesses are looked up in its tokens, and not all of them are any.
    pub fn room(&self, used: usize) -> usize {
        if !self.job.prompt.pictures.is_empty() {
            return 0;
        }
        let cells = self.context().saturating_sub(used + self.unfed.len());
        cells.min(self.job.limit.saturating_sub(self.generated + 1))
    }

    /// Takes the logits after the last token fed. Whether it goes on. A panic, in `logits` too, ends this sequence and no other.
    pub fn advance<'a>(
        &mut self,
        model: &Model,
        sampler: &mut Sampler,
        logits: impl FnOnce() -> &'a [f32],
    ) -> bool {
        let step = catch_unwind(AssertUnwindSafe(|| self.step(model, sampler, logits())));
        self.goes_on(step.unwrap_or_else(|_| Err("sampling panicked".to_owned())))
    }

    /// Ends it if it is at its end.
    fn goes_on(&mut self, step: Result<Option<DoneReason>, String>) -> bool {
        match step {
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
        let logprob = self.job.logprobs.map(|best| logprob(model, logits, token, best));
        let ends = self.take(model, token, logprob)?;
        if ends.is_none() {
            self.unfed.push(token);
        }
        Ok(ends)
    }

    /// Adds a token to the answer, sends what can be sent, and says why it ends if it does.
    fn take(
        &mut self,
        model: &Model,
        token: Token,
        logprob: Option<TokenLogprob>,
    ) -> Result<Option<DoneReason>, String> {
        self.generated += 1;
        if let Some(constraint) = &mut self.job.constraint {
            constraint.accept(token)?;
        }
        if model.is_end(token) || self.job.ends.contains(&token) {
            return Ok(Some(DoneReason::Stop));
        }
        self.history.push(token);
        let bytes = if self.job.answer.shows(token) { model.mark(token) } else { model.piece(token) };
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
        let mut restrict =
            self.job.constraint.as_mut().map(|it| |logits: &mut [f32]| restricted = it.restrict(logits));
        let restrict = restrict.as_mut().map(|restrict| restrict as Restrict);
        let position = self.history.len() as u64;
        let token = sampler.sample(&self.job.settings, logits, &self.history, position, restrict);
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
            guessed_tokens: self.guesser.guessed,
            accepted_tokens: self.guesser.accepted,
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
            if let Some(rest) = self.known.rest(event) {
                // A receiver that is gone is noticed before the next step.
                self.events.send(rest).ok();
            }
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

#[cfg(test)]
impl Sequence {
    /// Its prompt has been read.
    pub fn has_read(&mut self) {
        self.read = Some(Instant::now());
    }

    /// One that has read nothing of `start`, and to which nobody listens.
    pub fn unread(start: &[Token]) -> Self {
        Self {
            job: Job::of(start),
            events: tokio::sync::mpsc::unbounded_channel().0,
            history: start.to_vec(),
            start: start.to_vec(),
            unfed: start.to_vec(),
            cached: 0,
            generated: 0,
            known: Resume::default(),
            sent: Vec::new(),
            started: Instant::now(),
            read: None,
            guesser: Guesser::default(),
        }
    }
}
