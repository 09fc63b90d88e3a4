//! [`Index`]: what is on disk, in memory, so that a miss costs no reading and the budget is known. Pure state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::generation::Key;

/// What is known of an entry without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub model: Arc<str>,
    pub tenant: Arc<str>,
    /// Milliseconds since 1970.
    pub created: u64,
    /// The same.
    pub expires: u64,
    /// What it takes in the file.
    pub cost: u64,
}

/// What is on disk, and in what order it was used.
#[derive(Default)]
pub(super) struct Index {
    rows: HashMap<Key, (Row, u64)>,
    /// By turns, the least recently used first.
    order: BTreeMap<u64, Key>,
    /// By when they expire, the first first.
    expiring: BTreeSet<(u64, Key)>,
    turn: u64,
    cost: u64,
    /// One text each, however many entries have it.
    names: BTreeSet<Arc<str>>,
}

impl Index {
    pub(super) fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key).map(|(row, _)| row)
    }

    /// Adds or replaces.
    pub(super) fn insert(&mut self, key: Key, mut row: Row) {
        self.remove(&key);
        row.model = self.name(row.model);
        row.tenant = self.name(row.tenant);
        self.turn += 1;
        self.cost += row.cost;
        self.order.insert(self.turn, key);
        self.expiring.insert((row.expires, key));
        self.rows.insert(key, (row, self.turn));
    }

    /// Has been used: it leaves last.
    pub(super) fn touch(&mut self, key: &Key) {
        if let Some((_, turn)) = self.rows.get_mut(key) {
            self.order.remove(turn);
            self.turn += 1;
            *turn = self.turn;
            self.order.insert(self.turn, *key);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Row> {
        let (row, turn) = self.rows.remove(key)?;
        self.order.remove(&turn);
        self.expiring.remove(&(row.expires, *key));
        self.cost -= row.cost;
        Some(row)
    }

    /// Takes out what was not used for the longest until the rest costs at most `limit`.
    pub(super) fn shrink(&mut self, limit: u64) -> Vec<Key> {
        let mut gone = Vec::new();
        while self.cost > limit {
            let Some((_, key)) = self.order.pop_first() else { break };
            self.remove(&key);
            gone.push(key);
        }
        gone
    }

    /// Takes out what has expired at `now`, in milliseconds since 1970.
    pub(super) fn expire(&mut self, now: u64) -> Vec<Key> {
        let mut gone = Vec::new();
        while let Some((_, key)) = self.expiring.first().filter(|(expires, _)| *expires <= now).copied() {
            self.remove(&key);
            gone.push(key);
        }
        gone
    }

    /// Takes out what `is_meant`.
    pub(super) fn take(&mut self, is_meant: impl Fn(&Key, &Row) -> bool) -> Vec<Key> {
        let meant = self.rows.iter().filter(|(key, (row, _))| is_meant(key, row));
        let gone: Vec<_> = meant.map(|(key, _)| *key).collect();
        for key in &gone {
            self.remove(key);
        }
        gone
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows.iter().map(|(key, (row, _))| (key, row))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What all of it takes in the file.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    fn name(&mut self, name: Arc<str>) -> Arc<str> {
        if let Some(known) = self.names.get(&name) {
            return Arc::clone(known);
        }
        // Names of models are few; tenants may be many, and those that are gone are forgotten now and then.
        if self.names.len() >= 2 * self.rows.len() + 64 {
            self.names.retain(|name| Arc::strong_count(name) > 1);
        }
        self.names.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Key {
        Key::from_bytes([number; 32])
    }

    fn row(cost: u64) -> Row {
        Row { model: "m".into(), tenant: "t".into(), created: 0, expires: 0, cost }
    }

    #[test]
    fn what_was_not_used_for_the_longest_leaves_first() {
        let mut index = Index::default();
        for number in 0..4 {
            index.insert(key(number), row(10));
        }
        index.touch(&key(0));
        assert_eq!(index.shrink(25), [key(1), key(2)]);
        assert_eq!((index.len(), index.cost()), (2, 20));
        assert_eq!(index.shrink(0), [key(3), key(0)]);
    }

    #[test]
    fn what_has_expired_leaves_and_nothing_else() {
        let mut index = Index::default();
        for number in 0..4 {
            index.insert(key(number), Row { expires: 10 - u64::from(number), ..row(10) });
        }
        assert_eq!(index.expire(6), []);
        assert_eq!(index.expire(8), [key(3), key(2)]);
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn names_that_nobody_has_any_more_are_forgotten() {
        let mut index = Index::default();
        for number in 0..1_000 {
            index.insert(key(0), Row { tenant: number.to_string().into(), ..row(1) });
        }
        assert!(index.names.len() < 100, "{}", index.names.len());
    }

    proptest! {
        #[test]
        fn the_cost_is_always_that_of_the_rows(steps in prop::collection::vec((0u8..6, 0u8..4, 1u64..50), 0..80)) {
            let mut index = Index::default();
            for (number, step, cost) in steps {
                match step {
                    0 | 1 => index.insert(key(number), row(cost)),
                    2 => { index.remove(&key(number)); }
                    _ => index.touch(&key(number)),
                }
                prop_assert_eq!(index.cost(), index.iter().map(|(_, row)| row.cost).sum::<u64>());
                prop_assert_eq!((index.order.len(), index.expiring.len()), (index.len(), index.len()));
            }
            let gone = index.take(|key, _| key.as_bytes()[0] % 2 == 0);
            prop_assert!(gone.iter().all(|key| index.get(key).is_none()));
        }
    }
}
