//! [`Scheduler`]: the one thread that computes text. Every step is one llama.cpp batch with tokens of all running sequences; a new
//! request joins at the next.
//!
//! llama.cpp cuts a batch into micro-batches, and computes sequences together only where their numbers follow each other: slots
//! are therefore given out side by side, and a batch is filled in their order.

mod warm;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use tokio::sync::mpsc::UnboundedSender;

use super::command::Command;
use super::health::Status;
use super::job::Job;
use super::model::{Model, llama_token};
use super::pace::Pace;
use super::sampling::{Sampler, Token};
use super::sequence::Sequence;
use super::sharing::{self, Offer};
use super::slot::Slot;
use super::snapshot::Snapshots;
use crate::generation::Event;

/// Owner of the context and of every sequence in it.
pub struct Scheduler<'a> {
    model: &'a Model,
    status: &'a Status,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    /// Most tokens in a batch.
    capacity: usize,
    slots: Vec<Slot>,
    /// Requests beyond the slots, first come first served.
    waiting: VecDeque<(Box<Job>, UnboundedSender<Event>)>,
    sampler: Sampler,
    pace: Pace,
    /// Counts the jobs that were started.
    started: u64,
    /// What is on disk; absent: nothing.
    snapshots: Option<Snapshots>,
    /// What is being saved.
    round: Option<warm::Round>,
}

/// The tokens of one slot that are in the batch.
struct Share {
    slot: usize,
    tokens: usize,
    /// Where in the batch the logits after its last token are; none while its prompt goes on.
    logits: Option<i32>,
}

impl<'a> Scheduler<'a> {
    /// Allocates the context. The error says in words why that failed.
    pub fn new(model: &'a Model, status: &'a Status, snapshots: Option<Snapshots>) -> Result<Self, String> {
        let context = model.context()?;
        let capacity = model.batch() as usize;
        let ids = 0..i32::try_from(model.sequences()).unwrap_or(i32::MAX);
        Ok(Self {
            model,
            status,
            context,
            batch: LlamaBatch::new(capacity, 1),
            capacity,
            slots: ids.map(Slot::new).collect(),
            waiting: VecDeque::new(),
            sampler: Sampler::default(),
            pace: Pace::new(model.spec.pace.clone(), capacity),
            started: 0,
            snapshots,
            round: None,
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
                Ok(Command::Generate(job, events)) => self.waiting.push_back((job, events)),
                // Refused where it was prepared: this model does not embed. Dropping it tells whoever waits.
                Ok(Command::Embed(..)) => {}
                Ok(Command::Save(reply)) => self.save(reply),
                Ok(Command::Kept(kept)) => self.kept(kept),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Whether nothing can be done before a command comes: nobody is there, or all who are wait for snapshots.
    fn is_idle(&self) -> bool {
        let is_free = self.slots.iter().any(|slot| slot.sequence.is_none());
        let mut running = self.slots.iter().filter(|slot| slot.sequence.is_some()).peekable();
        let nobody_runs = running.peek().is_none();
        let nobody_starts = self.waiting.is_empty() || !is_free;
        let is_restoring = self.slots.iter().any(|slot| slot.is_restoring);
        nobody_starts && (nobody_runs || is_restoring && running.all(Slot::waits))
    }

    /// Frees what nobody listens to.
    fn release_abandoned(&mut self) {
        self.waiting.retain(|(_, events)| !events.is_closed());
        for slot in &mut self.slots {
            if slot.sequence.take_if(|sequence| sequence.is_abandoned()).is_some() {
                slot.is_restoring = false;
            }
        }
    }

    /// Gives each waiting job a slot for as long as there is a free one.
    fn start_waiting(&mut self) {
        while self.slots.iter().any(|slot| slot.sequence.is_none()) {
            let Some((job, events)) = self.waiting.pop_front() else { return };
            if let Some(sequence) = Sequence::new(self.model, *job, events) {
                self.start(sequence);
            }
        }
    }

    fn start(&mut self, mut sequence: Sequence) {
        let Some(index) = choose(&self.slots, sequence.start()) else { return };
        let slot = &mut self.slots[index];
        let cached = slot.reuse(&mut self.context, sequence.start());
        sequence.skip(cached);
        self.started += 1;
        slot.last_used = self.started;
        self.slots[index].donor = sharing::donor(&self.slots, index, sequence.start());
        self.slots[index].sequence = Some(sequence);
        self.look_up(index);
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
            let held = self.slots[donor.slot].held();
            let slot = &mut self.slots[index];
            let cached = slot.copy(&mut self.context, held, count);
            if let Some(sequence) = &mut slot.sequence {
                sequence.skip(cached);
            }
        }
    }

    /// One decode: a token of every sequence that generates, and as much of the prompts as there is room for.
    fn step(&mut self) -> Result<(), String> {
        for slot in &mut self.slots {
            slot.make_room(&mut self.context, self.model.can_shift);
        }
        self.share();
        let shares = self.fill_batch()?;
        if shares.is_empty() {
            return Ok(());
        }
        let from = Instant::now();
        match self.context.decode(&mut self.batch) {
            Ok(()) => {
                self.status.decoded();
                shares.iter().for_each(|share| self.advance(share));
                self.learn(&shares, from.elapsed());
                Ok(())
            }
            Err(DecodeError::NoKvCacheSlot) => {
                self.fail_shares(&shares, "no room in the KV cache");
                Ok(())
            }
            Err(error) => Err(format!("llama.cpp cannot decode any more: {error}")),
        }
    }

    /// Adapts the pace to a step in which some read while others generated.
    fn learn(&mut self, shares: &[Share], took: Duration) {
        let read: usize = shares.iter().filter(|share| share.tokens > 1).map(|share| share.tokens).sum();
        if read > 0 && shares.iter().any(|share| share.tokens == 1) {
            self.pace.observe(read, took);
            self.status.paced(self.pace.tokens());
        }
    }

    fn fill_batch(&mut self) -> Result<Vec<Share>, String> {
        self.batch.clear();
        let mut portions = self.portions();
        portions.sort_unstable();
        portions.into_iter().map(|(slot, tokens)| self.put(slot, tokens)).collect()
    }

    /// Slots and how many tokens each gets: one where it generates; of the prompts, oldest job first, what there is room for.
    fn portions(&self) -> Vec<(usize, usize)> {
        let unfed = |slot: usize| self.slots[slot].sequence.as_ref().map_or(0, |s| s.unfed().len());
        let (reading, generating): (Vec<usize>, Vec<usize>) = self
            .running()
            .filter(|&slot| !self.slots[slot].waits())
            .partition(|&slot| self.slots[slot].sequence.as_ref().is_some_and(Sequence::is_reading));
        let mut room = self.capacity - generating.len();
        if !generating.is_empty() {
            // A full batch of prompt takes many times as long as a token, and every stream would stand still for it.
            room = room.min(self.pace.tokens());
        }
        let mut portions: Vec<_> = generating.into_iter().map(|slot| (slot, 1)).collect();
        for slot in reading {
            portions.push((slot, unfed(slot).min(room)));
            room -= unfed(slot).min(room);
        }
        portions.retain(|&(_, tokens)| tokens > 0);
        portions
    }

    /// Slots that run, in the order their jobs came.
    fn running(&self) -> impl Iterator<Item = usize> + use<> {
        let running = self.slots.iter().enumerate().filter(|(_, slot)| slot.sequence.is_some());
        let mut order: Vec<(u64, usize)> = running.map(|(index, slot)| (slot.last_used, index)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index)
    }

    /// Puts the next `count` tokens of a slot's sequence into the batch.
    fn put(&mut self, index: usize, count: usize) -> Result<Share, String> {
        let slot = &self.slots[index];
        let unfed = slot.sequence.as_ref().map_or(&[][..], Sequence::unfed);
        let is_whole = count == unfed.len();
        for (offset, &token) in unfed[..count].iter().enumerate() {
            let position = i32::try_from(slot.used() + offset).map_err(|error| error.to_string())?;
            let is_last = is_whole && offset + 1 == count;
            self.batch
                .add(llama_token(token), position, &[slot.id()], is_last)
                .map_err(|error| error.to_string())?;
        }
        let logits = is_whole.then(|| self.batch.n_tokens() - 1);
        Ok(Share { slot: index, tokens: count, logits })
    }

    /// Takes note of what was decoded, and samples where a sequence is ready for it.
    fn advance(&mut self, share: &Share) {
        let slot = &mut self.slots[share.slot];
        slot.fed(share.tokens);
        if let (Some(sequence), Some(index)) = (&mut slot.sequence, share.logits) {
            let context = &self.context;
            if !sequence.advance(self.model, &mut self.sampler, || context.get_logits_ith(index)) {
                slot.sequence = None;
            }
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
        self.waiting.clear();
    }

    fn report(&self) {
        let busy = self.slots.iter().filter(|slot| slot.sequence.is_some()).count();
        let used: usize = self.slots.iter().map(Slot::used).sum();
        self.status.occupied(busy, used as u64);
    }
}

/// The free slot that suits `prompt` best; among equals one next to a slot that runs, and the one idle for longest. A slot that
/// holds much else as well keeps it: from there the beginning is copied.
fn choose(slots: &[Slot], prompt: &[Token]) -> Option<usize> {
    let runs = |index: usize| slots.get(index).is_some_and(|slot| slot.sequence.is_some());
    let free = (0..slots.len()).filter(|&index| !runs(index));
    free.max_by_key(|&index| {
        let is_beside = runs(index + 1) || index.checked_sub(1).is_some_and(runs);
        let slot = &slots[index];
        let common = if slot.suits(prompt) { slot.common_prefix(prompt) } else { 0 };
        (common, is_beside, u64::MAX - slot.last_used)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_out_side_by_side_and_the_longest_idle_first() {
        let mut slots: Vec<Slot> = (0..5).map(Slot::new).collect();
        for (slot, last_used) in slots.iter_mut().zip([5, 4, 1, 3, 2]) {
            slot.last_used = last_used;
        }
        let mut given = Vec::new();
        while let Some(index) = choose(&slots, &[7]) {
            slots[index].sequence = Some(Sequence::unread(&[7]));
            given.push(index);
        }
        assert_eq!(given, [2, 3, 4, 1, 0]);
        slots[3].sequence = None;
        slots[0].sequence = None;
        assert_eq!(choose(&slots, &[7]), Some(3), "both are beside one that runs");
    }

    #[test]
    fn a_slot_that_holds_much_else_keeps_it() {
        let mut slots = vec![Slot::holding(0, &[1, 2, 3, 4, 5, 6]), Slot::holding(1, &[9]), Slot::new(2)];
        slots[1].last_used = 1;
        assert_eq!(
            choose(&slots, &[1, 2, 7, 7]),
            Some(2),
            "two of six is little, and slot 2 has nothing to lose"
        );
        assert_eq!(choose(&slots, &[1, 2, 3, 4, 7]), Some(0));
    }
}
