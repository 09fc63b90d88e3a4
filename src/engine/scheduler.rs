//! [`Scheduler`]: the one thread that computes text. Every step takes tokens of all running sequences; a new request joins at the
//! next.
//!
//! llama.cpp cuts a batch into micro-batches, and computes sequences together only where their numbers follow each other: slots
//! are therefore given out side by side, and a batch is filled in their order.

mod change;
mod fill;
mod places;
mod show;
mod warm;

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;

use super::adapters::{Adapter, Rotation};
use super::cells::Pool;
use super::command::Command;
use super::health::Status;
use super::model::Model;
use super::pace::{Pace, Reading};
use super::prefixes::Prefixes;
use super::queue::Queue;
use super::sampling::Sampler;
use super::sharing::{self, Offer};
use super::slot::Slot;
use super::snapshot::Snapshots;
use super::speculate::Speculation;
use super::vision::Eye;
use crate::generation::seam::Settings;

/// Owner of the context and of every sequence in it.
pub struct Scheduler<'a> {
    model: &'a Model,
    status: &'a Status,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    settings: Settings,
    /// What there is memory for.
    allocated: Settings,
    pool: Pool,
    slots: Vec<Slot>,
    /// Which of them begin alike.
    prefixes: Prefixes,
    queue: Queue,
    sampler: Sampler,
    pace: Pace,
    rotation: Rotation,
    /// What the context computes with.
    adapter: Option<Adapter>,
    speculation: Speculation<'a>,
    /// Counts the jobs that were started.
    started: u64,
    /// What is on disk; absent: nothing.
    snapshots: Option<Snapshots>,
    /// What is being saved.
    round: Option<warm::Round>,
    /// Where pictures are encoded; absent: there are none.
    eye: Option<Eye>,
}

/// The tokens of one slot that are in the batch.
struct Share {
    slot: usize,
    tokens: usize,
    /// Where in the batch the logits after its last token are, and after them those of what is guessed to follow; none while its
    /// prompt goes on.
    logits: Option<i32>,
    /// How many tokens were guessed.
    guessed: usize,
}

impl<'a> Scheduler<'a> {
    /// Allocates the context. The error says in words why that failed.
    pub fn new(
        model: &'a Model,
        status: &'a Status,
        snapshots: Option<Snapshots>,
        eye: Option<Eye>,
    ) -> Result<Self, String> {
        let threads = model.threads();
        let context = model.context(threads)?;
        let settings = Settings {
            threads: threads.0,
            prefill_threads: threads.1,
            batch: model.batch(),
            parallel: model.sequences(),
            pace: model.spec.pace.clone(),
        };
        status.set(&settings);
        let capacity = model.batch() as usize;
        let pool = Pool::new(model.shared_cells());
        let ids = 0..i32::try_from(model.sequences()).unwrap_or(i32::MAX);
        Ok(Self {
            model,
            status,
            context,
            batch: LlamaBatch::new(capacity, 1),
            slots: ids.map(|id| Slot::new(id, &pool)).collect(),
            pool,
            prefixes: Prefixes::default(),
            queue: Queue::default(),
            sampler: Sampler::default(),
            pace: Pace::new(settings.pace.clone(), capacity),
            rotation: Rotation::default(),
            adapter: None,
            speculation: model.speculation()?,
            allocated: settings.clone(),
            settings,
            started: 0,
            snapshots,
            round: None,
            eye,
        })
    }

    /// Serves until told to stop. An error means that the context is of no use any more; whoever waited has been told.
    pub fn run(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        while self.receive(commands) {
            self.release_abandoned();
            self.start_waiting();
            self.report();
            if let Err(reason) = self.step() {
                self.fail_all(&reason);
                return Err(reason);
            }
            self.report();
        }
        self.save_last(commands);
        Ok(())
    }

    /// Takes the commands there are, and waits for one if there is nothing to do. False: stop.
    fn receive(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            let next = match self.is_idle() {
                true => commands.recv().map_err(TryRecvError::from),
                false => commands.try_recv(),
            };
            match next {
                Ok(Command::Generate(job, events)) => self.queue.push(job, events),
                Ok(Command::Set(change, reply)) => {
                    // Who does not wait for the answer any more has it changed all the same.
                    reply.send(self.change(change)).ok();
                }
                // Refused where it was prepared: this model does not embed. Dropping it tells whoever waits.
                Ok(Command::Embed(..)) => {}
                Ok(Command::Save(reply)) => self.save(reply),
                Ok(Command::Kept(kept)) => self.kept(kept),
                Ok(Command::Seen(seen)) => self.seen(seen),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Whether nothing can be done before a command comes: nobody is there, or all who are wait for snapshots or pictures.
    fn is_idle(&self) -> bool {
        let nobody_starts =
            self.queue.is_empty() || self.running().count() >= self.settings.parallel as usize;
        let nobody_runs = self.running().next().is_none();
        let is_restoring = self.slots.iter().any(|slot| slot.is_restoring);
        nobody_starts && (nobody_runs || is_restoring && self.ready().next().is_none())
    }

    /// Frees what nobody listens to.
    fn release_abandoned(&mut self) {
        self.queue.forget_abandoned();
        for slot in &mut self.slots {
            if slot.sequence.take_if(|sequence| sequence.is_abandoned()).is_some() {
                slot.is_restoring = false;
            }
        }
    }

    /// Copies the beginnings of prompts from slots that have read them by now.
    fn share(&mut self) {
        for index in 0..self.slots.len() {
            let (Some(donor), Some(sequence)) = (self.slots[index].donor, &self.slots[index].sequence) else {
                continue;
            };
            let Offer::Tokens(count) = sharing::offer(&self.slots, donor, sequence.start()) else {
                continue;
            };
            self.slots[index].donor = None;
            if count <= self.slots[index].used() {
                continue;
            }
            let Ok([slot, donor]) = self.slots.get_disjoint_mut([index, donor.slot]) else { continue };
            let cached = slot.copy(&mut self.context, donor, count);
            if let Some(sequence) = &mut slot.sequence {
                sequence.skip(cached);
            }
        }
    }

    /// A token of every sequence that generates, and as much of the prompts as there is room for.
    fn step(&mut self) -> Result<(), String> {
        for slot in &mut self.slots {
            slot.make_room(&mut self.context, self.model.can_shift);
        }
        self.share();
        self.find_cells();
        self.show()?;
        let reading = self.reading();
        let from = Instant::now();
        let mut computed = Vec::new();
        for portions in self.batches(reading)? {
            let shares = self.fill(portions)?;
            if !shares.is_empty() && self.decode(&shares)? {
                computed.extend(shares);
            }
        }
        if !computed.is_empty() {
            // Where a GPU computes, waiting for the logits is part of it.
            self.learn(reading, &computed, from.elapsed());
        }
        Ok(())
    }

    /// Has the batch computed, and takes note of it; whether there was room.
    fn decode(&mut self, shares: &[Share]) -> Result<bool, String> {
        match self.context.decode(&mut self.batch) {
            Ok(()) => {
                self.status.decoded();
                shares.iter().for_each(|share| self.advance(share));
                Ok(true)
            }
            Err(DecodeError::NoKvCacheSlot) => {
                self.fail_shares(shares, "no room in the KV cache");
                Ok(false)
            }
            Err(error) => Err(format!("llama.cpp cannot decode any more: {error}")),
        }
    }

    /// Adapts the pace to a step in which some generated, and what is guessed to one in which all did.
    fn learn(&mut self, reading: Reading, shares: &[Share], took: Duration) {
        let read: usize = shares.iter().filter(|share| share.tokens > 1).map(|share| share.tokens).sum();
        let guessed = shares.iter().map(|share| share.guessed);
        let is_guessed = guessed.clone().any(|count| count > 0);
        if !is_guessed && shares.iter().any(|share| share.tokens == 1) {
            self.pace.observe(reading, read, took);
            self.status.paced(self.pace.tokens(reading));
        }
        if read == 0 {
            self.speculation.observe(guessed, took);
        }
    }

    /// Slots that run and do not wait for cells.
    fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        self.running().filter(|&index| !self.slots[index].waits())
    }

    /// Slots that run.
    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.slots.len()).filter(|&index| self.slots[index].sequence.is_some())
    }

    /// Takes note of what was decoded, and samples where a sequence is ready for it: once, and once more for each token that was
    /// guessed right.
    fn advance(&mut self, share: &Share) {
        let slot = &mut self.slots[share.slot];
        slot.fed(share.tokens);
        let (Some(sequence), Some(mut row)) = (&mut slot.sequence, share.logits) else { return };
        let guess = sequence.guesser.take();
        let mut right = 0;
        while let Some(sequence) = &mut slot.sequence {
            let context = &self.context;
            if !sequence.advance(self.model, &mut self.sampler, || context.get_logits_ith(row)) {
                slot.sequence = None;
                break;
            }
            let Some(guessed) = guess.get(right) else { break };
            let is_right = sequence.unfed().first() == Some(guessed);
            sequence.guesser.learn(is_right);
            if !is_right {
                break;
            }
            slot.fed(1);
            right += 1;
            row += 1;
        }
        if right < guess.len() {
            slot.trim(&mut self.context);
        }
        if !guess.is_empty() {
            self.status.guessed(guess.len() as u64, right as u64);
        }
    }

    /// Fails the sequences of a batch that did not go through; what their cells hold is unknown now.
    fn fail_shares(&mut self, shares: &[Share], reason: &str) {
        for share in shares {
            let slot = &mut self.slots[share.slot];
            if let Some(mut sequence) = slot.sequence.take() {
                sequence.fail(reason);
            }
            slot.clear(&mut self.context);
        }
    }

    fn fail_all(&mut self, reason: &str) {
        let running = self.slots.iter_mut().filter_map(|slot| slot.sequence.take());
        running.for_each(|mut sequence| sequence.fail(reason));
        // Those that wait see their events end without any, which is an internal failure too.
        self.queue.clear();
    }

    fn report(&self) {
        let busy = self.running().map(|index| self.slots[index].used() as u64);
        self.status.occupied(self.running().count(), self.pool.taken() as u64, busy.sum());
        self.status.waiting(self.queue.len());
    }
}
