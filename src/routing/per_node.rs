//! [`PerNode`]: what a strategy remembers of each node. Nodes come and go, so it is bounded. And [`Numbers`], which find it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::NodeId;

/// Nodes that are remembered: more than any pool has, and few enough that what is remembered of them stays a few megabytes.
const MOST: usize = 16_384;

/// State by node. When there are too many, the half that was not touched for the longest time is forgotten.
pub(super) struct PerNode<T> {
    numbers: Numbers,
    states: Vec<T>,
    /// Whose each state is, and when it was touched last; apart, for a decision reads the states of a thousand nodes.
    touched: Vec<(NodeId, u64)>,
    clock: u64,
}

impl<T> Default for PerNode<T> {
    fn default() -> Self {
        Self { numbers: Numbers::default(), states: Vec::new(), touched: Vec::new(), clock: 0 }
    }
}

impl<T: Default> PerNode<T> {
    pub(super) fn get(&self, node: NodeId) -> Option<&T> {
        let number = self.numbers.get(node)?;
        self.states.get(number as usize)
    }

    /// The same, of the candidate at `place`; see [`Numbers::at`].
    pub(super) fn at(&mut self, place: usize, node: NodeId) -> Option<&T> {
        let number = self.numbers.at(place, node)?;
        self.states.get(number as usize)
    }

    /// To be changed; made if it is not there.
    pub(super) fn touch(&mut self, node: NodeId) -> &mut T {
        let number = self.numbers.get(node).unwrap_or_else(|| self.add(node));
        self.clock += 1;
        self.touched[number as usize].1 = self.clock;
        &mut self.states[number as usize]
    }

    /// All, to be changed.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut T> {
        self.states.iter_mut()
    }

    fn add(&mut self, node: NodeId) -> u32 {
        if self.states.len() >= MOST {
            self.forget_half();
        }
        let number = self.states.len() as u32;
        self.states.push(T::default());
        self.touched.push((node, 0));
        self.numbers.insert(node, number);
        number
    }

    fn forget_half(&mut self) {
        let mut times: Vec<u64> = self.touched.iter().map(|(_, at)| *at).collect();
        let (_, median, _) = times.select_nth_unstable(MOST / 2);
        let median = *median;
        let mut at = self.touched.iter().map(|(_, at)| *at);
        self.states.retain(|_| at.next().is_some_and(|at| at >= median));
        self.touched.retain(|(_, at)| *at >= median);
        self.numbers = Numbers::default();
        (0..).zip(&self.touched).for_each(|(number, (node, _))| self.numbers.insert(*node, number));
    }
}

/// A number for each node, under which a strategy keeps what it knows of it.
#[derive(Default)]
pub(super) struct Numbers {
    known: HashMap<NodeId, u32, BuildHasherDefault<Identity>>,
    /// Who was looked up for the candidate at each place, and what was found.
    places: Vec<(NodeId, Option<u32>)>,
}

impl Numbers {
    pub(super) fn get(&self, node: NodeId) -> Option<u32> {
        self.known.get(&node).copied()
    }

    /// The number of `node`, the candidate at `place`. Candidates hardly change from one decision to the next, so each is nearly
    /// always found where it was found last: one row after the other, which costs a tenth of a table's leaps.
    pub(super) fn at(&mut self, place: usize, node: NodeId) -> Option<u32> {
        match self.places.get(place) {
            Some((known, number)) if *known == node => *number,
            _ => self.look_up(place, node),
        }
    }

    #[cold]
    fn look_up(&mut self, place: usize, node: NodeId) -> Option<u32> {
        let number = self.get(node);
        if place == self.places.len() {
            self.places.push((node, number));
        } else if let Some(found) = self.places.get_mut(place) {
            *found = (node, number);
        }
        number
    }

    pub(super) fn insert(&mut self, node: NodeId, number: u32) {
        self.places.clear();
        self.known.insert(node, number);
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        self.places.clear();
        self.known.remove(&node);
    }
}

/// Node ids are hashes already.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for keys that are not a single number, of which there are none.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nodes_that_were_touched_last_are_kept() {
        let mut states = PerNode::<u64>::default();
        for node in 0..3 * MOST as u64 {
            *states.touch(NodeId(node)) = node;
            *states.touch(NodeId(0)) += 1;
            assert!(states.states.len() <= MOST && states.states.len() == states.numbers.known.len());
        }
        assert_eq!(states.get(NodeId(0)), Some(&(3 * MOST as u64)));
        assert_eq!(states.get(NodeId(1)), None);
        assert_eq!(states.get(NodeId(3 * MOST as u64 - 1)), Some(&(3 * MOST as u64 - 1)));
    }

    proptest! {
        #[test]
        fn a_place_says_what_the_table_says(
            steps in prop::collection::vec((any::<bool>(), 0..8_usize, 0..12_u64), 0..200),
        ) {
            let mut numbers = Numbers::default();
            for (count, (changes, place, node)) in (0..).zip(steps) {
                let node = NodeId(node);
                match numbers.get(node) {
                    Some(_) if changes => numbers.remove(node),
                    None if changes => numbers.insert(node, count),
                    known => prop_assert_eq!(numbers.at(place, node), known),
                }
            }
        }
    }
}
