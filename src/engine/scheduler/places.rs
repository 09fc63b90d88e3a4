//! Who gets a slot, and cells: starting, pausing and resuming sequences.

use super::Scheduler;
use crate::engine::adapters::Adapter;
use crate::engine::paused::Paused;
use crate::engine::queue::Waiting;
use crate::engine::sampling::Token;
use crate::engine::sequence::Sequence;
use crate::engine::slot::Slot;
use crate::engine::{room, sharing};
use crate::generation::Priority;
use crate::units::line::{Next, Turn};

impl Scheduler<'_> {
    /// Gives each that waits a slot for as long as there is a free one, and cells.
    pub(super) fn start_waiting(&mut self) {
        while self.running().count() < self.settings.parallel as usize {
            let Some(next) = self.admit() else { return };
            match self.queue.take(next) {
                Some((turn, Waiting::New(job, events))) => {
                    if let Some(sequence) = Sequence::new(self.model, *job, events) {
                        self.start(turn, sequence);
                    }
                }
                Some((turn, Waiting::Paused(paused))) => self.resume(turn, *paused),
                None => return,
            }
        }
    }

    /// Who is next, once there are cells for it.
    fn admit(&mut self) -> Option<Next> {
        self.prefixes.follow(&self.slots);
        let promised = |waiting: &Waiting| self.prefixes.longest(waiting.prompt(), waiting.adapter());
        let (next, waiting) = self.queue.next(promised)?;
        let running = self.running().count();
        if running > 0 && self.pool.is_shared() {
            let shared = self.prefixes.shared(waiting.prompt(), waiting.adapter());
            let (holder, common) = sharing::holder(&self.slots, &shared).unzip();
            let needs = match waiting {
                Waiting::New(job, _) => job.prompt.tokens.len() - promised(waiting),
                Waiting::Paused(paused) => paused.needs(common.unwrap_or(0)),
            };
            // With no more it would be paused at once.
            return self.free_cells(needs + running + room::MARGIN, holder).then_some(next);
        }
        Some(next)
    }

    fn start(&mut self, turn: Turn<Priority>, mut sequence: Sequence) {
        let shared = self.shared(sequence.start(), sequence.adapter());
        let Some(index) = choose(&self.slots, &shared) else { return };
        self.slots[index].adapt(&mut self.context, sequence.adapter());
        let cached = self.slots[index].reuse(&mut self.context, sequence.start());
        sequence.skip(cached);
        self.occupy(index, turn);
        self.slots[index].donor = sharing::donor(&self.slots, &shared, index, sequence.start());
        self.slots[index].sequence = Some(sequence);
        self.look_up(index);
    }

    fn resume(&mut self, turn: Turn<Priority>, paused: Paused) {
        if paused.is_unread() {
            return self.start(turn, paused.sequence);
        }
        let adapter = paused.sequence.adapter();
        let shared = self.shared(paused.tokens(), adapter);
        let Some(index) = choose(&self.slots, &shared) else { return };
        self.slots[index].adapt(&mut self.context, adapter);
        let holder = sharing::holder(&self.slots, &shared);
        if let Some((holder, common)) = holder
            && !paused.restores(common)
            && let Ok([slot, holder]) = self.slots.get_disjoint_mut([index, holder])
        {
            slot.copy(&mut self.context, holder, common);
        }
        let common = holder.map_or(0, |(_, common)| common);
        paused.resume(&mut self.context, &mut self.slots[index], common);
        self.occupy(index, turn);
    }

    /// How many tokens of `prompt` each slot has or will have.
    fn shared(&mut self, prompt: &[Token], adapter: Option<Adapter>) -> Vec<usize> {
        self.prefixes.follow(&self.slots);
        self.prefixes.shared(prompt, adapter)
    }

    fn occupy(&mut self, index: usize, turn: Turn<Priority>) {
        self.started += 1;
        let slot = &mut self.slots[index];
        slot.last_used = self.started;
        slot.turn = turn;
        (slot.donor, slot.is_restoring) = (None, false);
    }

    /// Sends a sequence back to those that wait, where it keeps its turn.
    pub(super) fn set_aside(&mut self, index: usize, turn: Turn<Priority>) {
        if let Some(paused) = self.slots[index].pause(&mut self.context, self.model.keeps_cells) {
            self.queue.put_back(turn, paused);
        }
    }

    /// Sees to it that the next step finds cells: idle slots give up theirs, then the last sequences are paused.
    pub(super) fn find_cells(&mut self) {
        if !self.pool.is_shared() {
            return;
        }
        while !self.free_cells(room::needed(&self.slots), None)
            && let Some(last) = room::last(&self.slots)
        {
            self.status.paused();
            // Each time it becomes more urgent, so that in the end it is paused no more.
            let mut turn = self.slots[last].turn;
            turn.priority = turn.priority.raised();
            self.set_aside(last, turn);
        }
        let unread = self.slots.iter().map(Slot::unread).sum::<usize>();
        self.free_cells(unread.min(self.settings.batch as usize), None);
    }

    /// Frees cells of idle slots until `count` are free, if that can be; whether so many are. `spared` keeps its cells.
    pub(super) fn free_cells(&mut self, count: usize, spared: Option<usize>) -> bool {
        while self.pool.free() < count {
            let Some(index) = room::cheapest(&self.slots, self.started, spared) else { return false };
            let missing = count - self.pool.free();
            let slot = &mut self.slots[index];
            match slot.own() {
                0 => slot.clear(&mut self.context),
                own => slot.shorten(&mut self.context, missing.min(own)),
            }
        }
        true
    }
}

/// The free slot that has most of a prompt, of which they have as many tokens as `shared`; among equals one next to a slot that
/// runs, and the one idle for longest. A slot that holds much else as well keeps it: from there the beginning is copied.
fn choose(slots: &[Slot], shared: &[usize]) -> Option<usize> {
    let runs = |index: usize| slots.get(index).is_some_and(|slot| slot.sequence.is_some());
    let free = (0..slots.len()).filter(|&index| !runs(index));
    free.max_by_key(|&index| {
        let is_beside = runs(index + 1) || index.checked_sub(1).is_some_and(runs);
        let slot = &slots[index];
        let is_most = 2 * shared[index] > slot.used();
        (if is_most { shared[index] } else { 0 }, is_beside, u64::MAX - slot.last_used)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_out_side_by_side_and_the_longest_idle_first() {
        let mut slots: Vec<Slot> = (0..5).map(Slot::empty).collect();
        for (slot, last_used) in slots.iter_mut().zip([5, 4, 1, 3, 2]) {
            slot.last_used = last_used;
        }
        let mut given = Vec::new();
        while let Some(index) = choose(&slots, &[0; 5]) {
            slots[index].sequence = Some(Sequence::unread(&[7]));
            given.push(index);
        }
        assert_eq!(given, [2, 3, 4, 1, 0]);
        slots[3].sequence = None;
        slots[0].sequence = None;
        assert_eq!(choose(&slots, &[0; 5]), Some(3), "both are beside one that runs");
    }

    #[test]
    fn a_slot_that_holds_much_else_keeps_it() {
        let mut slots = vec![Slot::holding(0, &[1, 2, 3, 4, 5, 6]), Slot::holding(1, &[9]), Slot::empty(2)];
        slots[1].last_used = 1;
        assert_eq!(
            choose(&slots, &[2, 0, 0]),
            Some(2),
            "two of six is little, and slot 2 has nothing to lose"
        );
        assert_eq!(choose(&slots, &[4, 0, 0]), Some(0));
    }
}
