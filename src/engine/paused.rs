//! [`Paused`]: a sequence that had to give its cells back, and what it takes to go on exactly where it stopped.

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::session::{LlamaStateSeqFlags, SeqState};

use super::sampling::Token;
use super::sequence::Sequence;
use super::sharing::WORTH;
use super::slot::Slot;

/// A running generation outside of the context. Sampling is keyed by position, so it never tells from its output.
pub struct Paused {
    /// What goes on.
    pub sequence: Sequence,
    /// What its cells held.
    tokens: Vec<Token>,
    /// From where on they were not what reading the tokens gives.
    shifted: Option<usize>,
    /// The cells themselves, in ordinary memory; `None` where reading the tokens again costs less.
    state: Option<SeqState>,
}

impl Paused {
    /// What its cells must hold before it goes on.
    pub fn tokens(&self) -> &[Token] {
        if self.is_unread() { self.sequence.start() } else { &self.tokens }
    }

    /// Whether it has not begun yet.
    pub fn is_unread(&self) -> bool {
        self.tokens.is_empty() && self.sequence.unfed() == self.sequence.start()
    }

    /// Cells it takes to go on, where as many as `common` of its first tokens are in memory.
    pub fn needs(&self, common: usize) -> usize {
        let again = if self.restores(common) { 0 } else { common };
        (self.tokens.len() + self.sequence.unfed().len()).saturating_sub(again)
    }

    /// Whether its cells come back as they were: what they held would take long to read.
    pub fn restores(&self, common: usize) -> bool {
        self.state.is_some() && self.tokens.len() >= common + WORTH
    }

    /// Goes on in `slot`, where as many as `common` of its first tokens could be had from cells that are in memory. What is not
    /// put back is read again.
    pub fn resume(mut self, context: &mut LlamaContext, slot: &mut Slot, common: usize) {
        let restores = self.restores(common);
        let kept = match self.state.take_if(|_| restores) {
            Some(state) if slot.put_back(context, &state, &self.tokens, self.shifted) => self.tokens.len(),
            _ => slot.reuse(context, &self.tokens),
        };
        self.sequence.feed_again(self.tokens.split_off(kept));
        slot.sequence = Some(self.sequence);
    }
}

impl Slot {
    /// Takes its sequence out and frees its cells. `keeps`: llama.cpp can put the cells back as they were.
    pub fn pause(&mut self, context: &mut LlamaContext, keeps: bool) -> Option<Paused> {
        let sequence = self.sequence.take()?;
        let is_worth = keeps && self.own() >= WORTH;
        // An error here means that it has to be read again, like what is not worth keeping.
        let state =
            is_worth.then(|| context.state_seq_get(self.id(), LlamaStateSeqFlags::empty()).ok()).flatten();
        let tokens = self.cells().to_vec();
        let shifted = self.shifted();
        (self.donor, self.is_restoring) = (None, false);
        self.clear(context);
        Some(Paused { sequence, tokens, shifted, state })
    }

    /// Puts cells back as they were, in place of its own; false, and none, if that fails.
    fn put_back(
        &mut self,
        context: &mut LlamaContext,
        state: &SeqState,
        tokens: &[Token],
        shifted: Option<usize>,
    ) -> bool {
        self.clear(context);
        let is_back = context.state_seq_set(state, self.id()).is_ok();
        if is_back {
            self.hold_shifted(tokens, shifted);
        } else {
            self.clear(context);
        }
        is_back
    }
}
