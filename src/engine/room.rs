//! Who gives cells up when a pool runs short. Pure decisions; the scheduler carries them out.

use super::slot::Slot;

/// Cells that a prompt which is next must find at least to go on reading, and that are left beyond what a sequence needs to
/// start: with fewer it would be paused again at once.
pub const MARGIN: usize = 32;

/// A token this far behind the beginning takes about twice as long to compute as the first one: it attends to all before it.
const FAR: f64 = 4096.0;

/// Cells that the next step needs in any case: one for each sequence that generates, and some for a prompt that is ahead of
/// them all.
pub fn needed(slots: &[Slot]) -> usize {
    let running = || slots.iter().filter(|slot| slot.sequence.is_some() && !slot.waits());
    let generating = running().filter(|slot| !slot.is_reading()).count();
    let first = running().min_by_key(|slot| slot.turn).filter(|slot| slot.is_reading());
    generating + first.map_or(0, |slot| slot.unread().min(MARGIN))
}

/// The idle slot whose last cells are the least loss: what it costs to compute them again, over their number and over the time
/// they have not been used. `now` counts like [`Slot::last_used`]; `spared` keeps its cells.
pub fn cheapest(slots: &[Slot], now: u64, spared: Option<usize>) -> Option<usize> {
    let idle = slots
        .iter()
        .enumerate()
        .filter(|&(index, slot)| slot.sequence.is_none() && slot.used() > 0 && Some(index) != spared);
    let loss = |slot: &Slot| match slot.own() {
        // Another has all of it.
        0 => 0.0,
        _ => (1.0 + slot.used() as f64 / FAR) / (1.0 + now.saturating_sub(slot.last_used) as f64),
    };
    idle.min_by(|(_, one), (_, other)| loss(one).total_cmp(&loss(other))).map(|(index, _)| index)
}

/// The sequence that is paused first: the youngest of the least urgent. None where only one runs: it has all that there is.
pub fn last(slots: &[Slot]) -> Option<usize> {
    let running = || slots.iter().enumerate().filter(|(_, slot)| slot.sequence.is_some());
    let last = running().max_by_key(|(_, slot)| slot.turn)?;
    (running().count() > 1).then_some(last.0)
}

#[cfg(test)]
mod tests {
    use super::super::cells::Pool;
    use super::super::sampling::Token;
    use super::super::sequence::Sequence;
    use super::*;
    use crate::generation::Priority;
    use crate::units::line::{Line, Turn};

    fn idle(length: u32, first: u32, last_used: u64) -> Slot {
        let tokens: Vec<Token> = (first..first + length).collect();
        let mut slot = Slot::holding(0, &tokens);
        slot.last_used = last_used;
        slot
    }

    fn running(turn: Turn<Priority>, unread: u32) -> Slot {
        let tokens: Vec<Token> = (0..unread).collect();
        let mut slot = Slot::empty(0);
        slot.turn = turn;
        slot.sequence = Some(Sequence::unread(&tokens));
        slot
    }

    /// The turns of jobs of these priorities that came one after another.
    fn turns<const N: usize>(priorities: [&str; N]) -> [Turn<Priority>; N] {
        priorities.map({
            let mut line = Line::default();
            move |priority| {
                line.push(priority.parse().unwrap(), ());
                let next = line.next(|()| ()).unwrap().0;
                line.take(next).unwrap().0
            }
        })
    }

    #[test]
    fn the_longest_unused_goes_first_and_among_equals_the_shortest() {
        let slots = [idle(100, 0, 9), idle(100, 500, 3), idle(5000, 1000, 3)];
        assert_eq!(cheapest(&slots, 10, None), Some(1));
        assert_eq!(cheapest(&slots, 10, Some(1)), Some(2));
    }

    #[test]
    fn what_another_slot_holds_too_is_no_loss() {
        let pool = Pool::new(Some(1000));
        let (mut one, mut other) = (Slot::new(0, &pool), Slot::new(1, &pool));
        one.hold(&[1, 2, 3, 4]);
        other.share(&one, 2);
        (one.last_used, other.last_used) = (1, 9);
        assert_eq!(cheapest(&[one, other], 10, None), Some(1));
    }

    #[test]
    fn the_youngest_of_the_least_urgent_is_paused_and_never_the_only_one() {
        let [a, b, c, d] = turns(["normal", "low", "low", "high"]);
        let slots = [a, b, c, d].map(|turn| running(turn, 1));
        assert_eq!(last(&slots), Some(2));
        assert_eq!(last(&slots[..1]), None);
        assert_eq!(last(&[idle(9, 0, 0), running(a, 1)]), None);
    }

    #[test]
    fn a_prompt_that_is_first_finds_cells_and_one_that_is_not_may_wait() {
        let [a, b] = turns(["normal", "normal"]);
        let generating = |turn| {
            let mut slot = running(turn, 1);
            slot.sequence.as_mut().unwrap().has_read();
            slot
        };
        assert_eq!(needed(&[generating(a), running(b, 500)]), 1);
        assert_eq!(needed(&[running(a, 500), generating(b)]), 1 + MARGIN);
        assert_eq!(needed(&[running(a, 5), generating(b)]), 6);
    }
}
