//! [`PrefixIndex`]: which node has read which beginnings of prompts, as far as this proxy sent them.
//!
//! A radix tree whose edges are blocks, without pointers: the hash of a block is of everything before it too, so it names a path from the
//! root. An entry is a block and the nodes that have it. What was used least recently leaves first, leaves of the tree before what they
//! hang on. Approximate: nobody says what a node has thrown away, so it is taken to be what it last used before it read as many tokens as
//! it keeps; and unrelated prompts may share a hash.

use super::draw::mix;
use super::per_node::Numbers;
use super::prefix::Prefix;
use super::{Candidate, NodeId};

/// Nodes that it tells apart; the one that got no request for the longest time makes room for another.
const MOST_NODES: usize = 8192;
/// What is set aside for telling them apart, generously.
const NODES_MEMORY: usize = MOST_NODES * 96;
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
    /// Of the last look: who has anything, and what part of the prompt, by number.
    seen: Vec<u64>,
    shares: Vec<f32>,
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
            shares: Vec::new(),
        }
    }

    /// Finds who has what of a prompt; [`Self::share`] tells it then.
    pub(super) fn look(&mut self, prefix: &Prefix) {
        let numbers = self.nodes.keys.len() + 1;
        self.shares.clear();
        self.shares.resize(numbers, 0.0);
        self.seen.clear();
        self.seen.resize(numbers.div_ceil(64), 0);
        // From the end, so that whoever is seen first has that much.
        for (block, hash) in prefix.hashes().iter().enumerate().rev() {
            let Some(entry) = self.find(*hash) else { continue };
            let share = prefix.share(block + 1);
            let (seen, shares) = (&mut self.seen, &mut self.shares);
            let mut see = |word: usize, bits: u64| {
                let Some(known) = seen.get_mut(word) else { return };
                let mut fresh = bits & !*known;
                *known |= bits;
                while fresh != 0 {
                    let number = word * 64 + fresh.trailing_zeros() as usize;
                    shares.get_mut(number).into_iter().for_each(|slot| *slot = share);
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

    /// Part of the prompt that was looked for, 0 to 1, that `candidate`, the one at `place`, is believed to have.
    pub(super) fn share(&mut self, place: usize, candidate: &Candidate) -> f32 {
        let number = self.nodes.numbers.at(place, Nodes::key(candidate));
        number.and_then(|number| self.shares.get(number as usize)).copied().unwrap_or(0.0)
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
    numbers: Numbers,
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
        if let Some(number) = self.numbers.get(key) {
            let known = &mut self.keys[number as usize - 1];
            (known.at, known.keeps) = (self.clock, candidate.keeps);
            return (number, false);
        }
        let is_full = self.keys.len() >= MOST_NODES;
        let known = Known { key, at: self.clock, read: 0, keeps: candidate.keeps };
        let oldest = self.keys.iter().enumerate().min_by_key(|(_, known)| known.at);
        let place = match oldest.filter(|_| is_full) {
            Some((place, old)) => {
                self.numbers.remove(old.key);
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
mod tests;
