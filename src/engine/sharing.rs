//! Prefixes that are computed once: a sequence whose prompt begins like what another slot holds, or is about to read, copies
//! those cells instead of reading the same tokens again. Pure decisions; the scheduler carries them out.
//!
//! Where each sequence has a stream of cells of its own, llama.cpp copies it whole: tens of megabytes, some milliseconds. In a
//! pool the sequences have the same cells; that costs nothing, but every token then attends over everybody's cells.

use super::adapters::Adapter;
use super::sampling::Token;
use super::slot::Slot;

/// A copy takes about as long as reading this many tokens; for fewer it is not worth it.
pub const WORTH: usize = 32;

/// Where a sequence gets the beginning of its prompt from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Donor {
    /// Index of the slot.
    pub slot: usize,
    /// Which of its jobs, as counted by [`Slot::last_used`].
    job: u64,
    /// Tokens of the prompt that it holds or will hold.
    tokens: usize,
    /// What they are computed with.
    adapter: Option<Adapter>,
}

impl Donor {
    /// Tokens of the prompt that it holds or will hold.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// What can be had from a donor now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    /// So many tokens, and no more will come.
    Tokens(usize),
    /// It is still reading what is wanted.
    Later,
}

/// The slot from which the sequence in `receiver` should copy the beginning of `prompt`, if that saves reading much. Cells that
/// are there already win over those that are still to be read. `shared` is what [`Prefixes::shared`] says of the prompt.
///
/// [`Prefixes::shared`]: super::prefixes::Prefixes::shared
pub fn donor(slots: &[Slot], shared: &[usize], receiver: usize, prompt: &[Token]) -> Option<Donor> {
    let others = (0..slots.len()).filter(|&index| index != receiver);
    let slot = others.max_by_key(|&index| (shared[index], held(slots, shared, index)))?;
    let tokens = usable(shared[slot], prompt);
    let (own, adapter) = (slots[receiver].common_prefix(prompt), slots[receiver].adapter());
    (tokens >= own + WORTH).then_some(Donor { slot, job: slots[slot].last_used, tokens, adapter })
}

/// Which slot has most of a prompt's beginning in its cells, and how many tokens that is; none where none has any.
pub fn holder(slots: &[Slot], shared: &[usize]) -> Option<(usize, usize)> {
    let all = (0..slots.len()).map(|index| (index, held(slots, shared, index)));
    all.max_by_key(|&(_, held)| held).filter(|&(_, held)| held > 0)
}

/// What a slot has by now of what it shares with a prompt.
fn held(slots: &[Slot], shared: &[usize], index: usize) -> usize {
    shared[index].min(slots[index].used())
}

/// What `donor` has of `prompt`.
pub fn offer(slots: &[Slot], donor: Donor, prompt: &[Token]) -> Offer {
    let slot = &slots[donor.slot];
    let common = if slot.adapter() == donor.adapter { slot.common_prefix(prompt) } else { 0 };
    let here = usable(common, prompt);
    let goes_on = slot.last_used == donor.job && slot.is_reading();
    match here < donor.tokens && goes_on {
        true => Offer::Later,
        false => Offer::Tokens(here),
    }
}

/// The last token has to be decoded in any case, for its logits.
fn usable(common: usize, prompt: &[Token]) -> usize {
    common.min(prompt.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::super::prefixes::Prefixes;
    use super::super::sequence::Sequence;
    use super::*;

    fn donor(slots: &[Slot], receiver: usize, prompt: &[Token]) -> Option<Donor> {
        let mut prefixes = Prefixes::default();
        prefixes.follow(slots);
        super::donor(slots, &prefixes.shared(prompt, slots[receiver].adapter()), receiver, prompt)
    }

    fn tokens(common: u32, own: u32) -> Vec<Token> {
        (0..common).chain(own..own + 10).collect()
    }

    fn reading(id: i32, start: &[Token], last_used: u64) -> Slot {
        let mut slot = Slot::empty(id);
        slot.last_used = last_used;
        slot.sequence = Some(Sequence::unread(start));
        slot
    }

    #[test]
    fn what_another_holds_is_copied_at_once_as_far_as_it_is_the_same() {
        let slots = [Slot::empty(0), Slot::holding(1, &tokens(100, 500)), Slot::holding(2, &tokens(50, 700))];
        let prompt = tokens(100, 900);
        let donor = donor(&slots, 0, &prompt).unwrap();
        assert_eq!(donor.slot, 1);
        assert_eq!(offer(&slots, donor, &prompt), Offer::Tokens(100));
    }

    #[test]
    fn what_another_is_about_to_read_is_waited_for_until_it_has_or_is_gone() {
        let mut slots = [Slot::empty(0), reading(1, &tokens(100, 500), 7)];
        let prompt = tokens(100, 900);
        let donor = donor(&slots, 0, &prompt).unwrap();
        assert_eq!(offer(&slots, donor, &prompt), Offer::Later);
        slots[1].fed(60);
        assert_eq!(offer(&slots, donor, &prompt), Offer::Later);
        slots[1].fed(45);
        assert_eq!(offer(&slots, donor, &prompt), Offer::Tokens(100));
        let mut gone = [Slot::empty(0), reading(1, &tokens(100, 500), 7)];
        gone[1].fed(60);
        gone[1].sequence = None;
        assert_eq!(offer(&gone, donor, &prompt), Offer::Tokens(60));
        gone[1] = reading(1, &tokens(3, 500), 8);
        assert_eq!(offer(&gone, donor, &prompt), Offer::Tokens(0), "another job is not waited for");
    }

    #[test]
    fn the_last_token_is_always_read() {
        let prompt = tokens(100, 500);
        let slots = [Slot::empty(0), Slot::holding(1, &prompt)];
        let donor = donor(&slots, 0, &prompt).unwrap();
        assert_eq!(offer(&slots, donor, &prompt), Offer::Tokens(prompt.len() - 1));
    }

    #[test]
    fn nothing_is_copied_that_was_computed_with_another_adapter() {
        let prompt = tokens(100, 500);
        let held = || Slot::holding(1, &prompt);
        assert_eq!(donor(&[Slot::empty(0), held().adapted(Adapter::at(0))], 0, &prompt), None);
        assert_eq!(donor(&[Slot::empty(0).adapted(Adapter::at(0)), held()], 0, &prompt), None);
        let alike = [Slot::empty(0).adapted(Adapter::at(0)), held().adapted(Adapter::at(0))];
        let donor = donor(&alike, 0, &prompt).unwrap();
        let given_away = [Slot::empty(0).adapted(Adapter::at(0)), held().adapted(Adapter::at(1))];
        assert_eq!(offer(&given_away, donor, &prompt), Offer::Tokens(0), "its slot went to another");
    }

    #[test]
    fn little_is_not_copied() {
        let prompt = tokens(100, 500);
        let few = [Slot::empty(0), Slot::holding(1, &tokens(WORTH as u32 - 1, 900))];
        assert_eq!(donor(&few, 0, &prompt), None);
        let own = [Slot::holding(0, &tokens(90, 800)), Slot::holding(1, &tokens(100, 900))];
        assert_eq!(donor(&own, 0, &prompt), None);
        assert_eq!(donor(&own[..1], 0, &prompt), None, "nobody else is there");
    }
}
