//! [`PrefixIndex`]: which node has read which beginnings of prompts, as far as this proxy sent them.
//!
//! A radix tree whose edges are blocks, without pointers: the hash of a block is of everything before it too, so it names a path from the
//! root. An entry is a block and the nodes that have it. What was used least recently leaves first, leaves of the tree before what they
//! hang on. Approximate: nobody says what a node has thrown away, so it is taken to be what it last used before it read as many tokens as
//! it keeps; and unrelated prompts may share a hash.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::draw::mix;
use super::per_node::Identity;
use super::prefix::Prefix;
use super::{Candidate, NodeId};

/// Nodes that it tells apart; the one that got no request for the longest time makes room for another.
const MOST_NODES: usize = 8192;
/// What is set aside for telling them apart, generously.
const NODES_MEMORY: usize = MOST_NODES * 64;
/// Nodes of a block that are listed; more are a bit each.
const LISTED: usize = 4;

/// A number that is 0 for nothing, for indices and nodes alike.
type Number = u32;

struct Entry {
    hash: u64,
    /// The next entry with the same head.
    chained: Number,
    newer: Number,
    older: Number,
    holders: Holders,
}

enum Holders {
    /// In no order.
    Few([Holder; LISTED]),
    /// A bit per number. What so many have is used so often that nobody throws it away.
    Many(Box<[u64]>),
}

#[derive(Clone, Copy, Default)]
struct Holder {
    node: Number,
    /// What the node had read when it last used the block, in [`STRIDE`]s; wraps around.
    at: u32,
}

/// Tokens by which is counted what a node reads.
const STRIDE: u64 = 16;

/// See the module. It has all its memory from the start, so it never grows and no insertion is slow; pages that are not used yet
/// are not resident.
pub(super) struct PrefixIndex {
    /// First entry by the lower bits of a hash.
    heads: Vec<Number>,
    /// The first one is no entry but the place where newest and oldest meet.
    entries: Vec<Entry>,
    most: usize,
    nodes: Nodes,
    /// Bytes that are left for bits.
    bits_left: usize,
    /// Of the last look: who has anything, and how many blocks, by number.
    seen: Vec<u64>,
    depths: Vec<u16>,
}

impl PrefixIndex {
    /// That never takes more than `memory` bytes, or a megabyte.
    pub(super) fn new(memory: u64) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX).max(1 << 20) - NODES_MEMORY;
        // Twice a head per entry, for their number is a power of two; a quarter is for bits.
        let most = memory / 4 * 3 / (size_of::<Entry>() + 2 * size_of::<Number>());
        let most = most.min(Number::MAX as usize / 2);
        let mut entries = Vec::with_capacity(most + 1);
        let holders = Holders::Few(Default::default());
        entries.push(Entry { hash: 0, chained: 0, newer: 0, older: 0, holders });
        Self {
            heads: vec![0; most.next_power_of_two()],
            entries,
            most,
            nodes: Nodes::default(),
            bits_left: memory / 4,
            seen: Vec::new(),
            depths: Vec::new(),
        }
    }

    /// Finds who has what of a prompt; [`Self::reuse`] tells it then.
    pub(super) fn look(&mut self, prefix: &Prefix) {
        let numbers = self.nodes.keys.len() + 1;
        self.depths.clear();
        self.depths.resize(numbers, 0);
        self.seen.clear();
        self.seen.resize(numbers.div_ceil(64), 0);
        // From the end, so that whoever is seen first has that much.
        for (block, hash) in prefix.hashes().iter().enumerate().rev() {
            let Some(entry) = self.find(*hash) else { continue };
            let depth = u16::try_from(block + 1).unwrap_or(u16::MAX);
            let (seen, depths) = (&mut self.seen, &mut self.depths);
            let mut see = |word: usize, bits: u64| {
                let Some(known) = seen.get_mut(word) else { return };
                let mut fresh = bits & !*known;
                *known |= bits;
                while fresh != 0 {
                    let number = word * 64 + fresh.trailing_zeros() as usize;
                    depths.get_mut(number).into_iter().for_each(|slot| *slot = depth);
                    fresh &= fresh - 1;
                }
            };
            match &self.entries[entry as usize].holders {
                Holders::Few(holders) => {
                    let holders = holders.iter().filter(|holder| self.nodes.still_has(holder));
                    holders.for_each(|Holder { node, .. }| see(*node as usize / 64, 1 << (node % 64)));
                }
                Holders::Many(words) => words.iter().enumerate().for_each(|(word, bits)| see(word, *bits)),
            }
        }
    }

    /// Part of the prompt that was looked for, 0 to 1, that `candidate` is believed to have.
    pub(super) fn share(&self, prefix: &Prefix, candidate: &Candidate) -> f32 {
        let depth = self.nodes.number(candidate).and_then(|number| self.depths.get(number as usize));
        depth.map_or(0.0, |depth| prefix.share(usize::from(*depth)))
    }

    /// `candidate` reads `unread` tokens of the prompt now, and has all of it then.
    pub(super) fn learn(&mut self, prefix: &Prefix, candidate: &Candidate, unread: u64) {
        let (number, was_another) = self.nodes.number_or_new(candidate);
        let holder = Holder { node: number, at: self.nodes.reads(number, unread) };
        if was_another {
            self.entries.iter_mut().for_each(|entry| entry.holders.remove(number));
        }
        // From the end, so that what others hang on is newer.
        for hash in prefix.hashes().iter().rev() {
            let entry = self.find(*hash).unwrap_or_else(|| self.insert(*hash));
            self.unlink(entry);
            self.link(entry);
            let room = (self.nodes.keys.len() + 1).div_ceil(64).next_power_of_two();
            self.entries[entry as usize].holders.add(holder, room, &mut self.bits_left);
        }
    }

    /// Bytes it takes, those that it has set aside included.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let bits = self.entries.iter().map(|entry| match &entry.holders {
            Holders::Few(_) => 0,
            Holders::Many(words) => size_of_val(&**words),
        });
        self.heads.capacity() * size_of::<Number>()
            + self.entries.capacity() * size_of::<Entry>()
            + bits.sum::<usize>()
            + NODES_MEMORY
    }

    fn head(&self, hash: u64) -> usize {
        // The number of heads is a power of two.
        mix(hash) as usize & (self.heads.len() - 1)
    }

    fn find(&self, hash: u64) -> Option<Number> {
        let mut at = self.heads[self.head(hash)];
        while at != 0 && self.entries[at as usize].hash != hash {
            at = self.entries[at as usize].chained;
        }
        (at != 0).then_some(at)
    }

    /// A new entry in place of the oldest, if there are as many as there may be.
    fn insert(&mut self, hash: u64) -> Number {
        let head = self.head(hash);
        let holders = Holders::Few(Default::default());
        let entry = Entry { hash, chained: self.heads[head], newer: 0, older: 0, holders };
        if self.entries.len() <= self.most {
            let at = self.entries.len() as Number;
            self.entries.push(entry);
            self.link(at);
            self.heads[head] = at;
            return at;
        }
        let at = self.entries[0].newer;
        self.unchain(at);
        self.unlink(at);
        if let Holders::Many(words) = &self.entries[at as usize].holders {
            self.bits_left += size_of_val(&**words);
        }
        // The head may have been the one that left.
        self.entries[at as usize] = Entry { chained: self.heads[head], ..entry };
        self.heads[head] = at;
        self.link(at);
        at
    }

    fn unchain(&mut self, gone: Number) {
        let (head, next) = (self.head(self.entries[gone as usize].hash), self.entries[gone as usize].chained);
        if self.heads[head] == gone {
            self.heads[head] = next;
            return;
        }
        let mut at = self.heads[head];
        while at != 0 && self.entries[at as usize].chained != gone {
            at = self.entries[at as usize].chained;
        }
        self.entries[at as usize].chained = next;
    }

    /// Makes it the newest.
    fn link(&mut self, at: Number) {
        let newest = self.entries[0].older;
        self.entries[at as usize].older = newest;
        self.entries[at as usize].newer = 0;
        self.entries[newest as usize].newer = at;
        self.entries[0].older = at;
    }

    fn unlink(&mut self, at: Number) {
        let (newer, older) = (self.entries[at as usize].newer, self.entries[at as usize].older);
        self.entries[newer as usize].older = older;
        self.entries[older as usize].newer = newer;
    }
}

impl Holders {
    /// Adds a node. A list that is full becomes bits if `bits_left` has room for `words` of them, else one of its nodes is forgotten.
    fn add(&mut self, new: Holder, words: usize, bits_left: &mut usize) {
        let (word, bit) = (new.node as usize / 64, 1_u64 << (new.node % 64));
        match self {
            Self::Few(holders) => {
                let same = holders.iter().position(|holder| holder.node == new.node);
                if let Some(place) = same.or_else(|| holders.iter().position(|holder| holder.node == 0)) {
                    holders[place] = new;
                } else if *bits_left >= words * size_of::<u64>() {
                    *bits_left -= words * size_of::<u64>();
                    let mut bits = vec![0; words].into_boxed_slice();
                    for Holder { node, .. } in holders.iter().chain([&new]) {
                        bits[*node as usize / 64] |= 1 << (node % 64);
                    }
                    *self = Self::Many(bits);
                } else {
                    holders.rotate_left(1);
                    holders[LISTED - 1] = new;
                }
            }
            Self::Many(bits) if word < bits.len() => bits[word] |= bit,
            Self::Many(bits) => {
                let more = (words - bits.len()) * size_of::<u64>();
                if *bits_left >= more {
                    *bits_left -= more;
                    let mut wider = std::mem::take(bits).into_vec();
                    wider.resize(words, 0);
                    wider[word] |= bit;
                    *bits = wider.into_boxed_slice();
                }
            }
        }
    }

    fn remove(&mut self, number: Number) {
        match self {
            Self::Few(holders) => {
                let holder = holders.iter_mut().find(|holder| holder.node == number);
                holder.into_iter().for_each(|holder| *holder = Holder::default());
            }
            Self::Many(words) => {
                let word = words.get_mut(number as usize / 64);
                word.into_iter().for_each(|word| *word &= !(1 << (number % 64)));
            }
        }
    }
}

/// The numbers of nodes, from 1.
#[derive(Default)]
struct Nodes {
    numbers: HashMap<NodeId, Number, BuildHasherDefault<Identity>>,
    /// By number less one.
    keys: Vec<Known>,
    clock: u64,
}

struct Known {
    key: NodeId,
    /// When it was last sent something.
    at: u64,
    /// Tokens that it has read.
    read: u64,
    /// Tokens that it keeps.
    keeps: Option<u64>,
}

impl Nodes {
    /// A process that was replaced has taken what it knew along.
    fn key(candidate: &Candidate) -> NodeId {
        NodeId(candidate.id.0 ^ mix(candidate.incarnation))
    }

    fn number(&self, candidate: &Candidate) -> Option<Number> {
        self.numbers.get(&Self::key(candidate)).copied()
    }

    /// The node with this number reads so many tokens more; what it has read then.
    fn reads(&mut self, number: Number, tokens: u64) -> u32 {
        let known = &mut self.keys[number as usize - 1];
        known.read += tokens;
        (known.read / STRIDE) as u32
    }

    fn still_has(&self, holder: &Holder) -> bool {
        let Some(known) = (holder.node as usize).checked_sub(1).and_then(|place| self.keys.get(place)) else {
            return false;
        };
        let since = u64::from(((known.read / STRIDE) as u32).wrapping_sub(holder.at)) * STRIDE;
        known.keeps.is_none_or(|keeps| since < keeps)
    }

    /// The number, and whether it was another node's until now.
    fn number_or_new(&mut self, candidate: &Candidate) -> (Number, bool) {
        self.clock += 1;
        let key = Self::key(candidate);
        if let Some(number) = self.numbers.get(&key) {
            let known = &mut self.keys[*number as usize - 1];
            (known.at, known.keeps) = (self.clock, candidate.keeps);
            return (*number, false);
        }
        let is_full = self.keys.len() >= MOST_NODES;
        let known = Known { key, at: self.clock, read: 0, keeps: candidate.keeps };
        let oldest = self.keys.iter().enumerate().min_by_key(|(_, known)| known.at);
        let place = match oldest.filter(|_| is_full) {
            Some((place, old)) => {
                self.numbers.remove(&old.key);
                self.keys[place] = known;
                place
            }
            None => {
                self.keys.push(known);
                self.keys.len() - 1
            }
        };
        let number = place as Number + 1;
        self.numbers.insert(key, number);
        (number, is_full)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn node(number: usize) -> Candidate {
        Candidate::new(format!("n{number}"), 1)
    }

    fn share(index: &mut PrefixIndex, prefix: &Prefix, node: &Candidate) -> f32 {
        index.look(prefix);
        index.share(prefix, node)
    }

    #[test]
    fn a_node_has_what_its_prompts_began_with_until_it_is_replaced() {
        let mut index = PrefixIndex::new(0);
        let text = vec![1; 1024];
        let mut other = text.clone();
        other[600] = 2;
        let (prefix, other) = (Prefix::of("m", &text), Prefix::of("m", &other));
        let a = node(0);
        index.learn(&prefix, &a, 256);
        assert_eq!(share(&mut index, &prefix, &a), 1.0);
        assert_eq!(share(&mut index, &other, &a), 0.5);
        assert_eq!(share(&mut index, &other, &node(1)), 0.0);
        let replaced = Candidate { incarnation: 1, ..a };
        assert_eq!(share(&mut index, &prefix, &replaced), 0.0);
    }

    #[test]
    fn a_node_has_thrown_away_what_it_used_before_it_read_all_that_it_keeps() {
        let mut index = PrefixIndex::new(0);
        let [a, b, c] = [1, 2, 3].map(|text| Prefix::of("m", &[text; 256]));
        let keeps = Candidate { keeps: Some(1000), ..node(0) };
        index.learn(&a, &keeps, 400);
        index.learn(&b, &keeps, 400);
        // Used, not read again.
        index.learn(&a, &keeps, 0);
        index.learn(&c, &keeps, 700);
        index.learn(&a, &keeps, 0);
        assert_eq!([&a, &b, &c].map(|prefix| share(&mut index, prefix, &keeps)), [1.0, 1.0, 1.0]);
        index.learn(&c, &keeps, 310);
        assert_eq!([&a, &b, &c].map(|prefix| share(&mut index, prefix, &keeps)), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn all_of_many_nodes_are_known_to_have_what_all_of_them_have() {
        let mut index = PrefixIndex::new(4 << 20);
        let prefix = Prefix::of("m", &[1; 512]);
        for number in 0..300 {
            index.learn(&prefix, &node(number), 256);
            assert!(
                (0..300).all(|other| (share(&mut index, &prefix, &node(other)) == 1.0) == (other <= number))
            );
        }
    }

    #[test]
    fn a_number_that_is_given_again_brings_nothing_along() {
        let mut index = PrefixIndex::new(8 << 20);
        let prefix = Prefix::of("m", &[1; 256]);
        index.learn(&prefix, &node(0), 256);
        let nothing = Prefix::default();
        (1..=MOST_NODES).for_each(|number| index.learn(&nothing, &node(number), 256));
        assert_eq!(index.nodes.keys.len(), MOST_NODES);
        assert_eq!(share(&mut index, &prefix, &node(MOST_NODES)), 0.0);
        assert_eq!(share(&mut index, &prefix, &node(0)), 0.0);
    }

    #[test]
    fn it_never_takes_more_than_it_may_and_the_latest_is_what_it_keeps() {
        let memory = 1 << 20;
        let mut index = PrefixIndex::new(memory);
        let prompt = |number: u32| Prefix::of("m", &number.to_le_bytes().repeat(512));
        for number in 0..5_000 {
            index.learn(&prompt(number), &node(number as usize % 200), 256);
            index.learn(&prompt(0), &node(number as usize % 200), 256);
            if number % 100 == 0 {
                assert!(index.memory() <= memory as usize, "{}", index.memory());
            }
        }
        assert_eq!(index.entries.len(), index.most + 1, "it was full");
        assert_eq!(share(&mut index, &prompt(4_999), &node(199)), 1.0);
        assert_eq!(share(&mut index, &prompt(0), &node(3)), 1.0);
        assert_eq!(share(&mut index, &prompt(1), &node(1)), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// While nothing has to leave, it says what a list of all prompts would.
        #[test]
        fn it_knows_what_a_list_of_all_prompts_knows(
            sent in prop::collection::vec((prop::collection::vec(0..3_u8, 0..6), 0..12_usize), 1..60),
            asked in prop::collection::vec(0..3_u8, 0..6),
        ) {
            let prefix = |blocks: &[u8]| Prefix::of("m", &blocks.iter().flat_map(|b| [*b; 256]).collect::<Vec<_>>());
            let mut index = PrefixIndex::new(4 << 20);
            let mut reference: HashMap<usize, usize> = HashMap::new();
            for (blocks, at) in &sent {
                index.learn(&prefix(blocks), &node(*at), 256);
                let equal = blocks.iter().zip(&asked).take_while(|(a, b)| a == b).count();
                let best = reference.entry(*at).or_default();
                *best = equal.max(*best);
            }
            let asked = prefix(&asked);
            for at in 0..12 {
                let expected = asked.share(reference.get(&at).copied().unwrap_or_default());
                prop_assert_eq!(share(&mut index, &asked, &node(at)), expected);
            }
        }
    }
}
