//! Pictures: the vectors of one take the place of tokens, in a step of their own, for llama.cpp takes a batch of either.

use std::sync::Arc;

use super::Scheduler;
use crate::engine::vision::{Picture, Seen, Undecoded};

impl Scheduler<'_> {
    /// Has pictures encoded that are next in what sequences read, and computes some of one that is.
    pub(super) fn show(&mut self) -> Result<(), String> {
        if self.eye.is_none() {
            return Ok(());
        }
        let next: Vec<usize> = self.ready().filter(|&index| self.picture(index).is_some()).collect();
        for &index in &next {
            self.encode(index);
        }
        let first =
            self.ready().filter(|index| next.contains(index)).min_by_key(|&index| self.slots[index].turn);
        match first {
            Some(index) => self.compute(index),
            None => Ok(()),
        }
    }

    /// A picture was looked at.
    pub(super) fn seen(&mut self, seen: Seen) {
        let slot = &mut self.slots[seen.slot];
        // Its sequence may be gone, and another one wait for something else.
        if slot.last_used != seen.job {
            return;
        }
        slot.is_restoring = false;
        if let Err(reason) = seen.result {
            self.fail(seen.slot, &reason);
        }
    }

    /// What is next in what a slot reads, if it is a picture, and at which of its tokens.
    fn picture(&self, index: usize) -> Option<(Arc<Picture>, usize)> {
        let (picture, at) = self.slots[index].sequence.as_ref()?.picture()?;
        Some((picture.clone(), at))
    }

    /// Has the next picture of a slot encoded, unless it is; its sequence waits for it, and the others go on.
    fn encode(&mut self, index: usize) {
        let (Some(eye), Some((picture, _))) = (&self.eye, self.picture(index)) else { return };
        let slot = &mut self.slots[index];
        if let (None, Some(sequence)) = (picture.vectors(), &slot.sequence) {
            slot.is_restoring = eye.look(index, slot.last_used, picture, sequence.events());
        }
    }

    /// Computes as much of the next picture of a slot as there is room for, as for tokens of a prompt; all, where it has to be read
    /// as a whole.
    fn compute(&mut self, index: usize) -> Result<(), String> {
        let (Some(vision), Some((picture, at))) = (&self.model.vision, self.picture(index)) else {
            return Ok(());
        };
        let (tokens, rows) = if vision.is_whole() {
            self.slots[index].take_back(&mut self.context, at);
            (picture.tokens().len(), 0..picture.rows())
        } else {
            let left = picture.rows() - at;
            let count = left.min(self.room_to_read(index));
            (count, at..at + count)
        };
        if self.slots[index].sequence.as_ref().is_none_or(|sequence| sequence.picture().is_none()) {
            // What came before it could not be kept and is read again first.
            return Ok(());
        }
        if rows.is_empty() || !self.free_cells(rows.len(), None) {
            self.make_way(index);
            return Ok(());
        }
        let slot = &self.slots[index];
        // Of its first vector.
        let position = slot.used() - rows.start;
        let (id, adapter) = (slot.id(), slot.adapter());
        if adapter != self.adapter {
            self.model.adapters.apply(&mut self.context, adapter)?;
            self.adapter = adapter;
        }
        match vision.decode(&mut self.context, id, position, &picture, rows) {
            Ok(()) => {
                self.status.decoded();
                self.slots[index].fed(tokens);
                Ok(())
            }
            Err(Undecoded::Refused(reason)) => {
                self.fail(index, &reason);
                Ok(())
            }
            Err(Undecoded::Broken(reason)) => Err(format!("llama.cpp cannot decode any more: {reason}")),
        }
    }

    /// Vectors that a step computes for a slot: as many as tokens of its prompt.
    fn room_to_read(&self, index: usize) -> usize {
        let others_generate = self.ready().any(|other| other != index && !self.slots[other].is_reading());
        let most = self.settings.batch as usize;
        if others_generate { most.min(self.pace.tokens(self.reading())) } else { most }
    }

    /// Lets others go on where there are no cells for the picture that is next; alone it is too large for all there are.
    fn make_way(&mut self, index: usize) {
        if self.running().any(|other| other != index) {
            self.set_aside(index, self.slots[index].turn);
        } else {
            self.fail(index, "no room in the KV cache");
        }
    }

    /// Ends the sequence of a slot, whose cells may be of no use.
    fn fail(&mut self, index: usize, reason: &str) {
        let slot = &mut self.slots[index];
        if let Some(mut sequence) = slot.sequence.take() {
            sequence.fail(reason);
        }
        slot.clear(&mut self.context);
    }
}
