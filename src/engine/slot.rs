//! [`Slot`]: one sequence of the llama.cpp context, running or idle, and what its KV cells hold.

use llama_cpp_2::context::LlamaContext;

use super::adapters::Adapter;
use super::cells::{Pool, Row};
use super::prefixes::alike;
use super::sampling::Token;
use super::sequence::Sequence;
use super::sharing::Donor;
use super::snapshot;
use crate::generation::{DoneReason, Priority};
use crate::units::line::Turn;

/// A place for one sequence. `cells` mirrors llama.cpp's memory for this sequence exactly; an idle slot keeps its cells, because
/// the next request may begin with the same tokens.
pub struct Slot {
    id: i32,
    /// Tokens in the KV cache, by position.
    cells: Row,
    /// What they were computed with: nobody who wants anything else can use them.
    adapter: Option<Adapter>,
    /// Cells from here on have seen tokens that a shift has discarded: reading the same tokens would not give the same.
    shifted: Option<usize>,
    /// What runs here.
    pub sequence: Option<Sequence>,
    /// The place of what runs here among all that came.
    pub turn: Turn<Priority>,
    /// Whose cells its sequence waits for.
    pub donor: Option<Donor>,
    /// Whether its sequence waits for a snapshot, or for a picture to be encoded.
    pub is_restoring: bool,
    /// When it was last given work, as a count; the longest idle goes first.
    pub last_used: u64,
}

impl Slot {
    /// An empty slot for the sequence `id` of the context.
    pub fn new(id: i32, pool: &Pool) -> Self {
        Self {
            id,
            cells: Row::new(pool),
            adapter: None,
            shifted: None,
            sequence: None,
            turn: Turn::default(),
            donor: None,
            is_restoring: false,
            last_used: 0,
        }
    }

    /// llama.cpp's number for the sequence.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Cells in use.
    pub fn used(&self) -> usize {
        self.cells.len()
    }

    /// What its cells are computed with.
    pub fn adapter(&self) -> Option<Adapter> {
        self.adapter
    }

    /// From now on its cells are computed with `adapter`; those that were computed with another are freed.
    pub fn adapt(&mut self, context: &mut LlamaContext, adapter: Option<Adapter>) {
        if self.adapter != adapter {
            self.clear(context);
            self.adapter = adapter;
        }
    }

    /// How many tokens at the front of `prompt` are in its cells.
    pub fn common_prefix(&self, prompt: &[Token]) -> usize {
        alike(self.cells(), prompt)
    }

    /// Whether what runs here still reads.
    pub fn is_reading(&self) -> bool {
        self.sequence.as_ref().is_some_and(Sequence::is_reading)
    }

    /// Tokens that its sequence has still to read.
    pub fn unread(&self) -> usize {
        self.sequence.as_ref().map_or(0, |sequence| sequence.unfed().len())
    }

    /// Those of them that come before the next picture.
    pub fn readable(&self) -> usize {
        self.sequence.as_ref().map_or(0, Sequence::readable)
    }

    /// Whether its sequence waits for cells that others are to give it.
    pub fn waits(&self) -> bool {
        self.donor.is_some() || self.is_restoring
    }

    /// Shares the first `count` cells of another slot, or copies them, in place of its own; how many it has then: none where
    /// the memory cannot be cut.
    pub fn copy(&mut self, context: &mut LlamaContext, from: &Self, count: usize) -> usize {
        let end = if self.cells.is_shared() {
            self.clear(context);
            position(count)
        } else {
            // A stream is copied as a whole.
            None
        };
        // Fails for positions beyond 31 bits only.
        if context.copy_kv_cache_seq(from.id, self.id, None, end).is_err() {
            self.clear(context);
            return 0;
        }
        self.share(from, if end.is_some() { count } else { from.used() });
        self.shifted = from.shifted;
        self.cut(context, count)
    }

    /// Puts a saved state of `tokens` in place of its cells and frees those that `prompt` does not begin with; how many of its
    /// tokens remain.
    pub fn restore(
        &mut self,
        context: &mut LlamaContext,
        tokens: &[Token],
        state: &[u8],
        prompt: &[Token],
    ) -> usize {
        self.clear(context);
        if !snapshot::put(context, self.id, state) {
            self.clear(context);
            return 0;
        }
        self.hold(tokens);
        self.reuse(context, prompt)
    }

    /// Its memory holds the first `count` cells of another slot now, and nothing else.
    pub fn share(&mut self, from: &Self, count: usize) {
        self.cells.copy(&from.cells, count);
    }

    /// What its cells hold.
    pub fn cells(&self) -> &[Token] {
        self.cells.tokens()
    }

    /// Cells at its end that no other slot has.
    pub fn own(&self) -> usize {
        self.cells.own()
    }

    /// Its memory holds `tokens` now, of which those from `shifted` on are not what reading them gives, and did hold nothing.
    pub fn hold_shifted(&mut self, tokens: &[Token], shifted: Option<usize>) {
        self.hold(tokens);
        self.shifted = shifted;
    }

    /// Its memory holds `tokens` now, and did hold nothing.
    pub fn hold(&mut self, tokens: &[Token]) {
        self.truncate(0);
        self.cells.extend(tokens);
    }

    /// Frees the last `count` cells, or all of them where the memory cannot be cut.
    pub fn shorten(&mut self, context: &mut LlamaContext, count: usize) {
        self.cut(context, self.cells.len().saturating_sub(count));
    }

    /// From where on its cells are not what reading their tokens gives.
    pub fn shifted(&self) -> Option<usize> {
        self.shifted
    }

    /// Frees the cells that `prompt` does not begin with; how many of its tokens remain. At least the last one has to be decoded
    /// again, for its logits.
    pub fn reuse(&mut self, context: &mut LlamaContext, prompt: &[Token]) -> usize {
        let kept = self.common_prefix(prompt).min(prompt.len().saturating_sub(1));
        self.cut(context, kept)
    }

    /// Frees all cells but the first `count`; how many remain: none where the memory cannot be cut.
    fn cut(&mut self, context: &mut LlamaContext, count: usize) -> usize {
        if count < self.cells.len() && !self.remove(context, count, None) {
            self.clear(context);
        }
        self.truncate(count);
        self.cells.len()
    }

    fn truncate(&mut self, count: usize) {
        self.cells.truncate(count);
        self.shifted = self.shifted.filter(|&from| from < self.cells.len());
    }

    /// Frees all cells.
    pub fn clear(&mut self, context: &mut LlamaContext) {
        // Removing a whole sequence never fails.
        self.remove(context, 0, None);
        self.truncate(0);
    }

    /// The next `count` tokens of its sequence were decoded.
    pub fn fed(&mut self, count: usize) {
        if let Some(sequence) = &mut self.sequence {
            self.cells.extend(&sequence.unfed()[..count]);
            sequence.fed(count);
        }
    }

    /// Frees the last `count` cells, to decode their tokens again; all, where the memory cannot be cut.
    pub fn take_back(&mut self, context: &mut LlamaContext, count: usize) {
        let mut again = self.cells().to_vec();
        let left = self.cut(context, self.cells.len().saturating_sub(count));
        if let Some(sequence) = &mut self.sequence {
            sequence.feed_again(again.split_off(left));
        }
    }

    /// Frees the cells behind those of the tokens that were fed: guesses that were wrong.
    pub fn trim(&mut self, context: &mut LlamaContext) {
        if self.remove(context, self.cells.len(), None) {
            return;
        }
        let again = self.cells().to_vec();
        self.clear(context);
        if let Some(sequence) = &mut self.sequence {
            sequence.feed_again(again);
        }
    }

    /// Shifts the context of a sequence that fills it, or ends the sequence. `moves`: the memory can move cells.
    pub fn make_room(&mut self, context: &mut LlamaContext, moves: bool) {
        let Some(mut sequence) = self.sequence.take() else { return };
        let is_full = self.cells.len() + sequence.unfed().len() > sequence.context();
        let keep = sequence.shift_keeps().map(|keep| keep.min(self.cells.len()));
        match keep {
            _ if !is_full => self.sequence = Some(sequence),
            Some(keep) if self.cells.len() - keep > 1 => {
                let again = self.shift(context, keep, moves);
                sequence.feed_again(again);
                self.sequence = Some(sequence);
            }
            _ => sequence.finish(DoneReason::Length),
        }
    }

    /// Discards half of what comes after the first `keep` cells and moves the rest to the front. What cannot be moved is freed
    /// and returned: it has to be decoded again.
    fn shift(&mut self, context: &mut LlamaContext, keep: usize, moves: bool) -> Vec<Token> {
        let end = keep + (self.cells.len() - keep) / 2;
        if moves && self.remove(context, keep, Some(end)) && self.move_back(context, end, end - keep) {
            self.cells.cut(keep, end);
            self.shifted = Some(self.shifted.map_or(keep, |from| from.min(keep)));
            return Vec::new();
        }
        let mut again = self.cells()[end..].to_vec();
        if !self.remove(context, keep, None) {
            again.splice(0..0, self.cells()[..keep].iter().copied());
            self.clear(context);
        }
        self.truncate(keep);
        again
    }

    fn move_back(&self, context: &mut LlamaContext, from: usize, by: usize) -> bool {
        let by = i32::try_from(by).unwrap_or(i32::MAX);
        context.kv_cache_seq_add(self.id, position(from), None, -by).is_ok()
    }

    /// Whether it could. Where cells at the front are missing, as of a restored window that slides, those that would come last
    /// could not see what is before them.
    fn remove(&self, context: &mut LlamaContext, from: usize, to: Option<usize>) -> bool {
        if from > 0 && context.kv_cache_seq_pos_min(self.id) > 0 {
            return false;
        }
        context.kv_cache_seq_rm(self.id, position(from), to.and_then(position)).is_ok()
    }
}

/// Positions are 31-bit numbers in llama.cpp; a context is never that long.
fn position(index: usize) -> Option<u32> {
    u32::try_from(index).ok()
}

#[cfg(test)]
impl Slot {
    /// One with a stream of its own.
    pub fn empty(id: i32) -> Self {
        Self::new(id, &Pool::default())
    }

    /// An idle one with these cells.
    pub fn holding(id: i32, cells: &[Token]) -> Self {
        let mut slot = Self::empty(id);
        slot.hold(cells);
        slot
    }

    /// The same, computed with `adapter`.
    pub fn adapted(self, adapter: Adapter) -> Self {
        Self { adapter: Some(adapter), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_prefix_ends_at_the_first_difference() {
        let slot = Slot::holding(0, &[1, 2, 3]);
        assert_eq!(slot.common_prefix(&[1, 2, 3, 4]), 3);
        assert_eq!(slot.common_prefix(&[1, 9, 3]), 1);
        assert_eq!(slot.common_prefix(&[]), 0);
    }
}
