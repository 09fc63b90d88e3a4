//! [`PerNode`]: what a strategy remembers of each node. Nodes come and go, so it is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::NodeId;

/// Nodes that are remembered: more than any pool has, and few enough that what is remembered of them stays a few megabytes.
const MOST: usize = 16_384;

/// State by node. When there are too many, the half that was not touched for the longest time is forgotten.
pub(super) struct PerNode<T> {
    states: HashMap<NodeId, Touched<T>, BuildHasherDefault<Identity>>,
    clock: u64,
}

struct Touched<T> {
    state: T,
    at: u64,
}

impl<T> Default for PerNode<T> {
    fn default() -> Self {
        Self { states: HashMap::default(), clock: 0 }
    }
}

impl<T: Default> PerNode<T> {
    pub(super) fn get(&self, node: NodeId) -> Option<&T> {
        self.states.get(&node).map(|touched| &touched.state)
    }

    /// To be changed; made if it is not there.
    pub(super) fn touch(&mut self, node: NodeId) -> &mut T {
        if self.states.len() >= MOST && !self.states.contains_key(&node) {
            self.forget_half();
        }
        self.clock += 1;
        let touched = self.states.entry(node).or_insert_with(|| Touched { state: T::default(), at: 0 });
        touched.at = self.clock;
        &mut touched.state
    }

    fn forget_half(&mut self) {
        let mut times: Vec<u64> = self.states.values().map(|touched| touched.at).collect();
        let (_, median, _) = times.select_nth_unstable(MOST / 2);
        let median = *median;
        self.states.retain(|_, touched| touched.at >= median);
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
    use super::*;

    #[test]
    fn the_nodes_that_were_touched_last_are_kept() {
        let mut states = PerNode::<u64>::default();
        for node in 0..3 * MOST as u64 {
            *states.touch(NodeId(node)) = node;
            *states.touch(NodeId(0)) += 1;
            assert!(states.states.len() <= MOST);
        }
        assert_eq!(states.get(NodeId(0)), Some(&(3 * MOST as u64)));
        assert_eq!(states.get(NodeId(1)), None);
        assert_eq!(states.get(NodeId(3 * MOST as u64 - 1)), Some(&(3 * MOST as u64 - 1)));
    }
}
