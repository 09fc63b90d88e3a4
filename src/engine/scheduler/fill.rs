//! What goes into a step: whose turn it is, how many tokens of prompts, what is guessed.

use std::time::{Duration, Instant};

use super::{Scheduler, Share};
use crate::engine::budget;
use crate::engine::model::llama_token;
use crate::engine::pace::Reading;
use crate::engine::sequence::Sequence;
use crate::engine::slot::Slot;

/// Requests that start within this time are a burst.
const BURST: Duration = Duration::from_millis(300);
/// As many batches are read soon.
const SOON: usize = 2;

impl Scheduler<'_> {
    /// What is being read.
    pub(super) fn reading(&self) -> Reading {
        let reading = self.ready().map(|index| &self.slots[index]).filter(|slot| slot.is_reading());
        let lengths = reading.filter_map(|slot| Some(slot.sequence.as_ref()?.to_read()));
        lengths.fold(Reading { prompts: 0, longest: 0 }, |all, length| Reading {
            prompts: all.prompts + 1,
            longest: all.longest.max(length),
        })
    }

    /// What the next step computes while so much is being read: slots and how many of their tokens, batch by batch.
    pub(super) fn batches(&mut self, reading: Reading) -> Result<Vec<Vec<(usize, usize)>>, String> {
        self.adapt()?;
        let mut portions = self.portions(reading);
        portions.sort_unstable();
        if reading.prompts == 0 {
            self.guess(&portions);
        }
        if reading.prompts == 0 || self.pool.is_shared() {
            return Ok(vec![portions]);
        }
        // Sequences with cells of their own are computed together as far as they have equally many tokens. In one batch the first
        // token of each prompt would go with those that generate, and take longer there than with its own.
        let is_reading = |&(slot, _): &(usize, usize)| self.slots[slot].is_reading();
        let (prompts, generating) = portions.into_iter().partition(is_reading);
        Ok(vec![generating, prompts])
    }

    /// Fills the batch.
    pub(super) fn fill(&mut self, portions: Vec<(usize, usize)>) -> Result<Vec<Share>, String> {
        self.batch.clear();
        portions.into_iter().map(|(slot, tokens)| self.put(slot, tokens)).collect()
    }

    /// Applies the adapter that is next.
    fn adapt(&mut self) -> Result<(), String> {
        let mut ready: Vec<&Slot> = self.ready().map(|index| &self.slots[index]).collect();
        ready.sort_unstable_by_key(|slot| slot.turn.age());
        let wanted: Vec<_> = ready.into_iter().map(Slot::adapter).collect();
        let next = self.rotation.next(&wanted);
        if next != self.adapter {
            self.model.adapters.apply(&mut self.context, next)?;
            self.adapter = next;
        }
        Ok(())
    }

    /// Slots that can be computed with the adapter that is applied, and how many tokens each gets: one where it generates; of the
    /// prompts, what there is room for.
    fn portions(&self, reading: Reading) -> Vec<(usize, usize)> {
        let is_adapted = |index: &usize| self.slots[*index].adapter() == self.adapter;
        if reading.prompts == 0 {
            return self.ready().filter(is_adapted).map(|slot| (slot, 1)).collect();
        }
        let burst = self.burst();
        let (mut prompts, mut generating): (Vec<usize>, Vec<usize>) =
            self.ready().partition(|&index| self.slots[index].is_reading());
        generating.retain(|&index| !self.waits_for(&burst, index));
        let is_alone = generating.is_empty();
        prompts.retain(is_adapted);
        generating.retain(is_adapted);
        let mut room = self.room(generating.len());
        if !is_alone {
            // A full batch of prompt takes many times as long as a token, and every stream would stand still for it.
            room = room.min(self.pace.tokens(reading));
        }
        let unread: Vec<_> =
            prompts.iter().map(|&slot| (self.slots[slot].turn, self.slots[slot].readable())).collect();
        let read = prompts.into_iter().zip(budget::divide(&unread, room)).filter(|&(_, tokens)| tokens > 0);
        generating.into_iter().map(|slot| (slot, 1)).chain(read).collect()
    }

    /// When the prompts that are being read and are short have started; none if all that is unread is not through soon.
    fn burst(&self) -> Vec<Instant> {
        let batch = self.settings.batch as usize;
        let reading = || self.ready().map(|index| &self.slots[index]).filter(|slot| slot.is_reading());
        if reading().map(Slot::unread).sum::<usize>() > SOON * batch {
            return Vec::new();
        }
        let short =
            reading().filter_map(|slot| slot.sequence.as_ref()).filter(|it| it.to_read() <= batch / 2);
        short.map(Sequence::started).collect()
    }

    /// Whether a sequence lets others of its burst be read first: each of its tokens would make them wait for their first one, and
    /// all together, with prompts as short as these, are through soon.
    fn waits_for(&self, burst: &[Instant], index: usize) -> bool {
        let Some(own) = self.slots[index].sequence.as_ref().map(Sequence::started) else { return false };
        burst.iter().any(|&other| own.max(other) - own.min(other) < BURST)
    }

    /// Has guessed what comes after the tokens of a step. Not beside prompts: those would wait for it.
    fn guess(&mut self, portions: &[(usize, usize)]) {
        let generating: Vec<usize> = portions.iter().map(|&(slot, _)| slot).collect();
        let room = self.room(generating.len());
        self.speculation.guess(&mut self.slots, &generating, room);
    }

    /// Tokens that fit into a step besides those of so many sequences that generate.
    fn room(&self, generating: usize) -> usize {
        (self.settings.batch as usize).min(self.pool.free()).saturating_sub(generating)
    }

    /// Puts the next `count` tokens of a slot's sequence into the batch, and what is guessed to follow them.
    fn put(&mut self, index: usize, count: usize) -> Result<Share, String> {
        let slot = &self.slots[index];
        let Some(sequence) = &slot.sequence else {
            return Err("an empty slot".to_owned());
        };
        let (unfed, guess) = (sequence.unfed(), sequence.guesser.guess());
        let is_whole = count == unfed.len();
        let mut logits = None;
        for (offset, &token) in unfed[..count].iter().chain(guess).enumerate() {
            let position = i32::try_from(slot.used() + offset).map_err(|error| error.to_string())?;
            let is_last = is_whole && offset + 1 >= count;
            if is_last {
                logits.get_or_insert(self.batch.n_tokens());
            }
            self.batch
                .add(llama_token(token), position, &[slot.id()], is_last)
                .map_err(|error| error.to_string())?;
        }
        Ok(Share { slot: index, tokens: count, logits, guessed: guess.len() })
    }
}
