//! [`Prefixes`]: which sequences begin alike, those that run and those that rest: a radix tree over what they hold or are about
//! to read (as SGLang has one: Zheng et al., 2024, <https://arxiv.org/abs/2312.07104>). To look a prompt up it is read once,
//! however many sequences there are and however long they are.
//!
//! The tree says where to look; whoever takes cells compares them once more ([`Slot::common_prefix`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::adapters::Adapter;
use super::sampling::Token;
use super::slot::Slot;

/// The beginnings of all sequences of a context.
#[derive(Default)]
pub struct Prefixes {
    /// One for each adapter: cells that were computed with another are of no use.
    trees: Vec<(Option<Adapter>, Node)>,
    /// What is in them, by slot.
    known: Vec<Known>,
}

/// What stands in a tree for a slot.
#[derive(Default)]
struct Known {
    state: State,
    tokens: Vec<Token>,
}

/// What tells that a slot holds, or is about to hold, something else than before.
#[derive(Clone, Copy, PartialEq)]
struct State {
    job: u64,
    adapter: Option<Adapter>,
    shifted: Option<usize>,
    /// Its cells where it rests. Where it runs they only become more, of which nobody is told before the end.
    rests: Option<usize>,
}

/// Some tokens, and what goes on after them.
#[derive(Default)]
struct Node {
    /// Empty at the root only.
    run: Vec<Token>,
    /// Whose tokens end here.
    slots: Vec<usize>,
    /// By the first token.
    next: BTreeMap<Token, Node>,
}

impl Prefixes {
    /// Takes note of what has changed. What a sequence generates is known once it has ended.
    pub fn follow(&mut self, slots: &[Slot]) {
        self.known.resize_with(slots.len(), Known::default);
        for (index, slot) in slots.iter().enumerate() {
            let state = State::of(slot);
            if self.known[index].state == state {
                continue;
            }
            let tokens = promised(slot).to_vec();
            let before = std::mem::replace(&mut self.known[index], Known { state, tokens });
            self.tree(before.state.adapter).remove(&before.tokens, index);
            self.trees.retain(|(_, tree)| !tree.is_bare());
            if !self.known[index].tokens.is_empty() {
                let tokens = std::mem::take(&mut self.known[index].tokens);
                self.tree(state.adapter).insert(&tokens, index);
                self.known[index].tokens = tokens;
            }
        }
    }

    /// How many tokens of `prompt` each slot holds, computed with `adapter`, or will hold when it has read what it reads.
    pub fn shared(&self, prompt: &[Token], adapter: Option<Adapter>) -> Vec<usize> {
        let mut shared = vec![0; self.known.len()];
        // Those that go on like the prompt are told more further down.
        self.walk(prompt, adapter, |node, common| node.each_slot(&mut |slot| shared[slot] = common));
        shared
    }

    /// The most that one of them has.
    pub fn longest(&self, prompt: &[Token], adapter: Option<Adapter>) -> usize {
        let mut longest = 0;
        self.walk(prompt, adapter, |_, common| longest = common);
        longest
    }

    /// Visits the nodes along `prompt`, each with how many of its tokens all below it begin with.
    fn walk(&self, prompt: &[Token], adapter: Option<Adapter>, mut visit: impl FnMut(&Node, usize)) {
        let mut next = self.trees.iter().find(|(key, _)| *key == adapter).map(|(_, tree)| tree);
        let mut common = 0;
        while let Some(child) =
            next.and_then(|node| prompt.get(common).and_then(|token| node.next.get(token)))
        {
            let same = alike(&child.run, &prompt[common..]);
            common += same;
            visit(child, common);
            next = (same == child.run.len()).then_some(child);
        }
    }

    fn tree(&mut self, adapter: Option<Adapter>) -> &mut Node {
        let index = self.trees.iter().position(|(key, _)| *key == adapter).unwrap_or_else(|| {
            self.trees.push((adapter, Node::default()));
            self.trees.len() - 1
        });
        &mut self.trees[index].1
    }
}

impl Default for State {
    /// That of a slot which has held nothing yet.
    fn default() -> Self {
        Self { job: 0, adapter: None, shifted: None, rests: Some(0) }
    }
}

impl State {
    fn of(slot: &Slot) -> Self {
        let rests = slot.sequence.is_none().then(|| slot.used());
        Self { job: slot.last_used, adapter: slot.adapter(), shifted: slot.shifted(), rests }
    }
}

/// What a slot holds, or will when it has read what it reads.
fn promised(slot: &Slot) -> &[Token] {
    match &slot.sequence {
        // After a shift it has no more what it read.
        Some(sequence) if slot.shifted().is_none() => sequence.start(),
        _ => slot.cells(),
    }
}

/// How many tokens two sequences begin with alike.
pub fn alike(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Node {
    fn insert(&mut self, tokens: &[Token], slot: usize) {
        let Some(&first) = tokens.first() else {
            self.slots.push(slot);
            return;
        };
        match self.next.entry(first) {
            Entry::Vacant(place) => {
                place.insert(Self { run: tokens.to_vec(), slots: vec![slot], next: BTreeMap::new() });
            }
            Entry::Occupied(child) => {
                let child = child.into_mut();
                let same = alike(&child.run, tokens);
                child.split(same);
                child.insert(&tokens[same..], slot);
            }
        }
    }

    /// Has what comes after the first `count` tokens of its run in a node of its own.
    fn split(&mut self, count: usize) {
        let run = self.run.split_off(count);
        if let Some(&first) = run.first() {
            let (slots, next) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.next));
            self.next.insert(first, Self { run, slots, next });
        }
    }

    /// Takes a slot out whose `tokens` these are.
    fn remove(&mut self, tokens: &[Token], slot: usize) {
        let Some(first) = tokens.first() else {
            self.slots.retain(|&other| other != slot);
            return;
        };
        let Some(child) = self.next.get_mut(first) else { return };
        let Some(rest) = tokens.strip_prefix(child.run.as_slice()) else { return };
        child.remove(rest, slot);
        if child.is_bare() {
            self.next.remove(first);
        } else {
            child.join();
        }
    }

    /// Takes the only node that follows into this one, where nobody's tokens end between them.
    fn join(&mut self) {
        if self.slots.is_empty()
            && self.next.len() == 1
            && let Some((_, only)) = self.next.pop_first()
        {
            self.run.extend(only.run);
            (self.slots, self.next) = (only.slots, only.next);
        }
    }

    fn is_bare(&self) -> bool {
        self.slots.is_empty() && self.next.is_empty()
    }

    fn each_slot(&self, visit: &mut impl FnMut(usize)) {
        self.slots.iter().for_each(|&slot| visit(slot));
        self.next.values().for_each(|node| node.each_slot(visit));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sequence::Sequence;
    use super::*;

    fn shared(prefixes: &mut Prefixes, slots: &[Slot], prompt: &[Token]) -> Vec<usize> {
        prefixes.follow(slots);
        prefixes.shared(prompt, None)
    }

    #[test]
    fn what_runs_is_known_by_what_it_reads_and_what_rests_by_its_cells() {
        let mut prefixes = Prefixes::default();
        let mut slots = [Slot::empty(0), Slot::holding(1, &[1, 2, 3]), Slot::holding(2, &[1, 9])];
        slots[0].sequence = Some(Sequence::unread(&[1, 2, 3, 4, 5]));
        assert_eq!(shared(&mut prefixes, &slots, &[1, 2, 3, 4, 8]), [4, 3, 1]);
        assert_eq!(prefixes.longest(&[1, 2, 3, 4, 8], None), 4);
        slots[0].fed(2);
        assert_eq!(shared(&mut prefixes, &slots, &[1, 2, 3, 4, 8]), [4, 3, 1], "it goes on reading");
        slots[0].sequence = None;
        assert_eq!(shared(&mut prefixes, &slots, &[1, 2, 3, 4, 8]), [2, 3, 1]);
        assert_eq!(shared(&mut prefixes, &slots, &[7]), [0, 0, 0]);
        assert_eq!(prefixes.longest(&[], None), 0);
    }

    #[test]
    fn every_adapter_has_beginnings_of_its_own() {
        let slots = [Slot::holding(0, &[1, 2, 3]), Slot::holding(1, &[1, 2, 3, 4]).adapted(Adapter::at(0))];
        let mut prefixes = Prefixes::default();
        prefixes.follow(&slots);
        assert_eq!(prefixes.shared(&[1, 2, 3, 4], None), [3, 0]);
        assert_eq!(prefixes.shared(&[1, 2, 3, 4], Some(Adapter::at(0))), [0, 4]);
        assert_eq!(prefixes.longest(&[1, 2, 3, 4], Some(Adapter::at(1))), 0);
    }

    /// Every node but the root says something, and none could be one with the next.
    fn is_tight(node: &Node) -> bool {
        node.next.iter().all(|(first, child)| {
            child.run.first() == Some(first)
                && (!child.slots.is_empty() || child.next.len() > 1)
                && is_tight(child)
        })
    }

    fn tokens() -> impl Strategy<Value = Vec<Token>> {
        prop::collection::vec(0..3u32, 0..8)
    }

    proptest! {
        /// Against comparing with every slot.
        #[test]
        fn a_look_up_says_what_comparing_with_all_does(
            steps in prop::collection::vec((0..5usize, any::<bool>(), tokens(), tokens()), 1..40),
        ) {
            let mut prefixes = Prefixes::default();
            let mut slots: Vec<Slot> = (0..5).map(Slot::empty).collect();
            for (job, (index, runs, held, prompt)) in (1..).zip(steps) {
                slots[index] = if runs { Slot::empty(0) } else { Slot::holding(0, &held) };
                slots[index].sequence = runs.then(|| Sequence::unread(&held));
                slots[index].last_used = job;
                let expected: Vec<usize> =
                    slots.iter().map(|slot| alike(promised(slot), &prompt)).collect();
                prop_assert_eq!(&shared(&mut prefixes, &slots, &prompt), &expected);
                prop_assert_eq!(prefixes.longest(&prompt, None), expected.into_iter().max().unwrap_or(0));
                prop_assert!(prefixes.trees.iter().all(|(_, tree)| is_tight(tree)));
            }
        }
    }
}
