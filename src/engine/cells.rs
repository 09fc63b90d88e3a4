//! [`Pool`]: how many KV cells are taken; [`Row`]: what those of one sequence hold. A cell is counted for as long as a row has it,
//! so nobody has to remember to give one back.

use std::cell::Cell;
use std::rc::Rc;

use super::sampling::Token;

/// All cells of a context. Clones are the same pool.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    taken: Rc<Cell<usize>>,
    /// Cells that sequences share, and there are no more; `None`: each sequence has a stream of its own, as long as its context.
    shared: Option<usize>,
}

impl Pool {
    /// A pool of `shared` cells for all, or streams that never run out.
    pub fn new(shared: Option<usize>) -> Self {
        Self { taken: Rc::default(), shared }
    }

    /// Whether sequences share cells.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Cells that are taken; one that several sequences have counts once.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Cells that can be taken.
    pub fn free(&self) -> usize {
        self.shared.map_or(usize::MAX, |cells| cells.saturating_sub(self.taken()))
    }

    fn take(&self) -> Rc<Taken> {
        self.taken.set(self.taken.get() + 1);
        Rc::new(Taken(Rc::clone(&self.taken)))
    }
}

/// A cell on the count.
#[derive(Debug)]
struct Taken(Rc<Cell<usize>>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The cells of a sequence by position, mirroring llama.cpp's memory exactly.
#[derive(Debug, Default)]
pub struct Row {
    pool: Pool,
    tokens: Vec<Token>,
    cells: Vec<Rc<Taken>>,
}

impl Row {
    /// One without cells yet.
    pub fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), tokens: Vec::new(), cells: Vec::new() }
    }

    /// What they hold.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether sequences of its pool share cells.
    pub fn is_shared(&self) -> bool {
        self.pool.is_shared()
    }

    /// How many at its end nobody else has: what cutting them off would free.
    pub fn own(&self) -> usize {
        self.cells.iter().rev().take_while(|cell| Rc::strong_count(cell) == 1).count()
    }

    /// Takes a cell for each of `tokens`.
    pub fn extend(&mut self, tokens: &[Token]) {
        self.tokens.extend_from_slice(tokens);
        self.cells.resize_with(self.tokens.len(), || self.pool.take());
    }

    /// Has the first `count` cells of `other`, or as many copies of them, in place of its own.
    pub fn copy(&mut self, other: &Self, count: usize) {
        self.truncate(0);
        let count = count.min(other.len());
        if self.is_shared() {
            self.tokens.extend_from_slice(&other.tokens[..count]);
            self.cells.extend_from_slice(&other.cells[..count]);
        } else {
            self.extend(&other.tokens[..count]);
        }
    }

    /// Gives back those behind the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.tokens.truncate(count);
        self.cells.truncate(count);
    }

    /// Gives back those from `from` to `to` and closes the gap.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.tokens.drain(from..to);
        self.cells.drain(from..to);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shared_beginning_takes_its_cells_once_and_a_copy_as_often_as_there_are_copies() {
        for (shared, taken) in [(Some(100), 5), (None, 8)] {
            let pool = Pool::new(shared);
            let (mut one, mut other) = (Row::new(&pool), Row::new(&pool));
            one.extend(&[1, 2, 3, 4]);
            other.copy(&one, 3);
            other.extend(&[9]);
            assert_eq!((other.tokens(), pool.taken()), (&[1, 2, 3, 9][..], taken), "{shared:?}");
            drop(one);
            assert_eq!((other.own(), pool.taken()), (4, 4));
        }
    }

    proptest! {
        /// Against sets of numbered cells: what is taken is what the rows have, together.
        #[test]
        fn what_is_taken_is_what_rows_have(steps in prop::collection::vec((0..4usize, 0..4usize, 0..4u8, 0..9usize), 0..60)) {
            let pool = Pool::new(Some(1000));
            let mut rows: Vec<Row> = (0..4).map(|_| Row::new(&pool)).collect();
            let mut model: Vec<Vec<usize>> = vec![Vec::new(); 4];
            let mut numbers = 0..;
            for (row, other, step, count) in steps {
                match step {
                    0 => {
                        rows[row].extend(&vec![7; count]);
                        model[row].extend(numbers.by_ref().take(count));
                    }
                    1 if row != other => {
                        let [to, from] = rows.get_disjoint_mut([row, other]).unwrap();
                        to.copy(from, count);
                        model[row] = model[other].iter().copied().take(count).collect();
                    }
                    2 => {
                        rows[row].truncate(count);
                        model[row].truncate(count);
                    }
                    _ => {
                        let from = count.min(rows[row].len()) / 2;
                        let to = count.min(rows[row].len());
                        rows[row].cut(from, to);
                        model[row].drain(from..to);
                    }
                }
                let distinct: BTreeSet<usize> = model.iter().flatten().copied().collect();
                prop_assert_eq!(pool.taken(), distinct.len());
                prop_assert_eq!(pool.free(), 1000 - distinct.len());
                for (row, cells) in rows.iter().zip(&model) {
                    prop_assert_eq!(row.len(), cells.len());
                    let is_own = |cell: &&usize| model.iter().filter(|row| row.contains(cell)).count() == 1;
                    prop_assert_eq!(row.own(), cells.iter().rev().take_while(is_own).count());
                }
            }
        }
    }
}
