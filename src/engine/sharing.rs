//! Prefixes that are computed once: a sequence whose prompt begins like what another slot holds, or is about to read, copies
//! those cells instead of reading the same tokens again. Pure decisions; the scheduler carries them out.
//!
//! Each sequence has a stream of cells of its own, which llama.cpp copies whole: tens of megabytes, some milliseconds. The other
//! way, one pool of cells that sequences share, costs nothing to share but lets every token attend over everybody's cells.

use super::sampling::Token;
use super::slot::Slot;

/// A copy takes about as long as reading this many tokens; for fewer it is not worth it.
const WORTH: usize = 32;

/// Where a sequence gets the beginning of its prompt from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Donor {
    /// Index of the slot.
    pub slot: usize,
    /// Which of its jobs, as counted by [`Slot::last_used`].
    job: u64,
    /// Tokens of the prompt that it holds or will hold.
    tokens: usize,
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
/// are there already win over those that are still to be read.
pub fn donor(slots: &[Slot], receiver: usize, prompt: &[Token]) -> Option<Donor> {
    let own = slots[receiver].common_prefix(prompt);
    let others = slots.iter().enumerate().filter(|&(index, _)| index != receiver);
    let best = others.max_by_key(|(_, slot)| (slot.promised_prefix(prompt), slot.common_prefix(prompt)));
    let (index, slot) = best?;
    let tokens = usable(slot.promised_prefix(prompt), prompt);
    (tokens >= own + WORTH).then_some(Donor { slot: index, job: slot.last_used, tokens })
}

/// What `donor` has of `prompt`.
pub fn offer(slots: &[Slot], donor: Donor, prompt: &[Token]) -> Offer {
    let slot = &slots[donor.slot];
    let here = usable(slot.common_prefix(prompt), prompt);
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
    use super::super::sequence::Sequence;
    use super::*;

    fn tokens(common: u32, own: u32) -> Vec<Token> {
        (0..common).chain(own..own + 10).collect()
    }

    fn reading(id: i32, start: &[Token], last_used: u64) -> Slot {
        let mut slot = Slot::new(id);
        slot.last_used = last_used;
        slot.sequence = Some(Sequence::unread(start));
        slot
    }

    #[test]
    fn what_another_holds_is_copied_at_once_as_far_as_it_is_the_same() {
        let slots = [Slot::new(0), Slot::holding(1, &tokens(100, 500)), Slot::holding(2, &tokens(50, 700))];
        let prompt = tokens(100, 900);
        let donor = donor(&slots, 0, &prompt).unwrap();
        assert_eq!(donor.slot, 1);
        assert_eq!(offer(&slots, donor, &prompt), Offer::Tokens(100));
    }

    #[test]
    fn what_another_is_about_to_read_is_waited_for_until_it_has_or_is_gone() {
        let mut slots = [Slot::new(0), reading(1, &tokens(100, 500), 7)];
        let prompt = tokens(100, 900);
        let donor = donor(&slots, 0, &prompt).unwrap();
        assert_eq!(offer(&slots, donor, &prompt), Offer::Later);
        slots[1].fed(60);
        assert_eq!(offer(&slots, donor, &prompt), Offer::Later);
        slots[1].fed(45);
        assert_eq!(offer(&slots, donor, &prompt), Offer::Tokens(100));
        let mut gone = [Slot::new(0), reading(1, &tokens(100, 500), 7)];
        gone[1].fed(60);
        gone[1].sequence = None;
        assert_eq!(offer(&gone, donor, &prompt), Offer::Tokens(60));
        gone[1] = reading(1, &tokens(3, 500), 8);
        assert_eq!(offer(&gone, donor, &prompt), Offer::Tokens(0), "another job is not waited for");
    }

    #[test]
    fn the_last_token_is_always_read() {
        let prompt = tokens(100, 500);
        let slots = [Slot::new(0), Slot::holding(1, &prompt)];
        let donor = donor(&slots, 0, &prompt).unwrap();
        assert_eq!(offer(&slots, donor, &prompt), Offer::Tokens(prompt.len() - 1));
    }

    #[test]
    fn little_is_not_copied() {
        let prompt = tokens(100, 500);
        let few = [Slot::new(0), Slot::holding(1, &tokens(WORTH as u32 - 1, 900))];
        assert_eq!(donor(&few, 0, &prompt), None);
        let own = [Slot::holding(0, &tokens(90, 800)), Slot::holding(1, &tokens(100, 900))];
        assert_eq!(donor(&own, 0, &prompt), None);
        assert_eq!(donor(&own[..1], 0, &prompt), None, "nobody else is there");
    }
}
