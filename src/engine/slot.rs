//! [`Slot`]: one sequence of the llama.cpp context, running or idle, and what its KV cells hold.

use llama_cpp_2::context::LlamaContext;

use super::sampling::Token;
use super::sequence::Sequence;
use crate::generation::DoneReason;

/// A place for one sequence. `cells` mirrors llama.cpp's memory for this sequence exactly; an idle slot keeps its cells, because
/// the next request may begin with the same tokens.
pub struct Slot {
    id: i32,
    /// Tokens in the KV cache, by position.
    cells: Vec<Token>,
    /// What runs here.
    pub sequence: Option<Sequence>,
    /// When it was last given work, as a count; the longest idle goes first.
    pub last_used: u64,
}

impl Slot {
    /// An empty slot for the sequence `id` of the context.
    pub fn new(id: i32) -> Self {
        Self { id, cells: Vec::new(), sequence: None, last_used: 0 }
    }

    /// llama.cpp's number for the sequence.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Cells in use.
    pub fn used(&self) -> usize {
        self.cells.len()
    }

    /// How many tokens at the front of `prompt` are in its cells.
    pub fn common_prefix(&self, prompt: &[Token]) -> usize {
        self.cells.iter().zip(prompt).take_while(|(cell, token)| cell == token).count()
    }

    /// Frees the cells that `prompt` does not begin with; how many of its tokens remain. At least the last one has to be decoded
    /// again, for its logits.
    pub fn reuse(&mut self, context: &mut LlamaContext, prompt: &[Token]) -> usize {
        let kept = self.common_prefix(prompt).min(prompt.len().saturating_sub(1));
        if kept < self.cells.len() && !self.remove(context, kept, None) {
            self.clear(context);
        }
        self.cells.truncate(kept);
        self.cells.len()
    }

    /// Frees all cells.
    pub fn clear(&mut self, context: &mut LlamaContext) {
        // Removing a whole sequence never fails.
        self.remove(context, 0, None);
        self.cells.clear();
    }

    /// The next `count` tokens of its sequence were decoded.
    pub fn fed(&mut self, count: usize) {
        if let Some(sequence) = &mut self.sequence {
            self.cells.extend_from_slice(&sequence.unfed()[..count]);
            sequence.feed(count);
        }
    }

    /// Shifts or ends a sequence whose context is full.
    pub fn make_room(&mut self, context: &mut LlamaContext) {
        let Some(mut sequence) = self.sequence.take() else { return };
        let is_full = self.cells.len() + sequence.unfed().len() > sequence.context();
        let keep = sequence.shift_keeps();
        if is_full && !keep.is_some_and(|keep| self.shift(context, keep)) {
            sequence.finish(DoneReason::Length);
            return;
        }
        self.sequence = Some(sequence);
    }

    /// Makes room by discarding half of what comes after the first `keep` cells and moving the rest to the front. False where
    /// the memory cannot do that.
    fn shift(&mut self, context: &mut LlamaContext, keep: usize) -> bool {
        let movable = self.cells.len().saturating_sub(keep);
        let discarded = movable / 2;
        let end = keep + discarded;
        if discarded == 0 || !self.remove(context, keep, Some(end)) {
            return false;
        }
        let moved = match (position(end), i32::try_from(discarded)) {
            (Some(from), Ok(by)) => context.kv_cache_seq_add(self.id, Some(from), None, -by).is_ok(),
            _ => false,
        };
        self.cells.drain(keep..end);
        moved
    }

    fn remove(&self, context: &mut LlamaContext, from: usize, to: Option<usize>) -> bool {
        context.kv_cache_seq_rm(self.id, position(from), to.and_then(position)).is_ok()
    }
}

/// Positions are 31-bit numbers in llama.cpp; a context is never that long.
fn position(index: usize) -> Option<u32> {
    u32::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_prefix_ends_at_the_first_difference() {
        let slot = Slot { cells: vec![1, 2, 3], ..Slot::new(0) };
        assert_eq!(slot.common_prefix(&[1, 2, 3, 4]), 3);
        assert_eq!(slot.common_prefix(&[1, 9, 3]), 1);
        assert_eq!(slot.common_prefix(&[]), 0);
    }
}
