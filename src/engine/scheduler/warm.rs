//! The scheduler's side of snapshots ([`super::super::snapshot`]): whose beginning is loaded, and what is saved.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::command::Command;
use super::super::log;
use super::super::snapshot::{self, Kept, Loaded};
use super::Scheduler;
use crate::generation::seam::Saved;
use crate::generation::{Failure, FailureCode};

/// What is being saved: one slot after the other, so that no more than one state is in memory twice.
#[derive(Default)]
pub struct Round {
    /// Slots that are still to be looked at, the one to save next last.
    slots: Vec<usize>,
    saved: Saved,
    /// Who waits for the end of it.
    replies: Vec<oneshot::Sender<Result<Saved, Failure>>>,
}

impl Scheduler<'_> {
    /// Has the beginning of what a slot is about to read loaded, if a snapshot has more of it than the slot, and its donor.
    pub(super) fn look_up(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (Some(snapshots), Some(sequence), None) = (&self.snapshots, &slot.sequence, slot.adapter())
        else {
            // What an adapter has changed is not on disk.
            return;
        };
        let held = slot.used().max(slot.donor.map_or(0, |donor| donor.tokens()));
        if snapshots.load(index, slot.last_used, sequence.start(), held) {
            slot.donor = None;
            slot.is_restoring = true;
        }
    }

    /// Goes on where the keeper has done something.
    pub(super) fn kept(&mut self, kept: Kept) {
        match kept {
            Kept::Loaded(loaded) => self.restore(&loaded),
            Kept::Saved(saved) => {
                if let Some(round) = &mut self.round {
                    let (tokens, bytes) = saved.unwrap_or_default();
                    round.saved.snapshots += u64::from(saved.is_some());
                    round.saved.tokens += tokens;
                    round.saved.bytes += bytes;
                }
                self.save_next();
            }
        }
    }

    fn restore(&mut self, loaded: &Loaded) {
        let slot = &mut self.slots[loaded.slot];
        // Its sequence may be gone, and another one wait for another snapshot.
        if slot.last_used != loaded.job {
            return;
        }
        slot.is_restoring = false;
        let Some(state) = &loaded.state else { return };
        let Some(mut sequence) = slot.sequence.take() else { return };
        let cached = slot.restore(&mut self.context, &loaded.tokens, state, sequence.start());
        sequence.skip(cached);
        slot.sequence = Some(sequence);
        self.status.snapshots(|counts| {
            counts.restored += u64::from(cached > 0);
            counts.restored_tokens += cached as u64;
        });
    }

    /// Saves what slots hold, those used last first, and answers when it is on disk.
    pub(super) fn save(&mut self, reply: oneshot::Sender<Result<Saved, Failure>>) {
        if self.snapshots.is_none() {
            let message = "snapshots are off".to_owned();
            reply.send(Err(Failure { code: FailureCode::Unsupported, message })).ok();
            return;
        }
        let is_new = self.round.is_none();
        self.round.get_or_insert_default().replies.push(reply);
        if is_new {
            self.begin_round();
        }
    }

    fn begin_round(&mut self) {
        let mut slots: Vec<usize> = (0..self.slots.len()).collect();
        slots.sort_by_key(|&index| self.slots[index].last_used);
        self.round.get_or_insert_default().slots = slots;
        self.save_next();
    }

    /// Hands the next state to the keeper, or ends the round.
    fn save_next(&mut self) {
        while let Some(index) = self.round.as_mut().and_then(|round| round.slots.pop()) {
            if self.hand_over(index) {
                return;
            }
        }
        let Some(round) = self.round.take() else { return };
        for reply in round.replies {
            reply.send(Ok(round.saved)).ok();
        }
        if round.saved.snapshots > 0 {
            let Saved { snapshots, tokens, bytes } = round.saved;
            log::say(&format!("saved {snapshots} snapshots: {tokens} tokens, {bytes} bytes"));
        }
    }

    /// Whether a slot is being saved now.
    fn hand_over(&mut self, index: usize) -> bool {
        let (Some(snapshots), slot) = (&self.snapshots, &self.slots[index]) else { return false };
        let cells = slot.cells();
        let is_as_read = slot.shifted().is_none() && slot.adapter().is_none();
        if !is_as_read || !snapshots.lacks(cells) {
            return false;
        }
        let Some(state) = snapshot::take(&self.context, slot.id()) else { return false };
        // More than the budget would only push out what this round has saved before.
        let written = self.round.as_ref().map_or(0, |round| round.saved.bytes);
        written + state.len() as u64 <= snapshots.budget() && snapshots.save(cells.to_vec(), state)
    }

    /// Saves what there is before the worker ends, as far as time allows.
    pub(super) fn save_last(&mut self, commands: &Receiver<Command>) {
        let patience =
            self.model.spec.snapshots.as_ref().map_or(Duration::ZERO, |settings| settings.patience);
        let deadline = Instant::now() + patience;
        if self.round.is_none() {
            self.begin_round();
        }
        while self.round.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            match commands.recv_timeout(left) {
                Ok(Command::Kept(kept)) => self.kept(kept),
                // Too late for whatever else it is.
                Ok(_) => {}
                Err(_) => {
                    log::warn("there was no time to save all snapshots");
                    return;
                }
            }
        }
    }
}
