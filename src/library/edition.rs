//! [`Edition`]: what a model's workers are made of, from one change of its section to the next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// One state of what a model's workers are made of. When that changes there is a new one, and for as long as requests hold the model
/// that they began with, workers of both run: an answer that was begun is gone on with by what began it.
#[derive(Debug)]
pub(super) struct Edition {
    number: u64,
    is_retired: AtomicBool,
}

impl Edition {
    /// A new one, with a number that no other has.
    pub(super) fn new() -> Self {
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), is_retired: AtomicBool::new(false) }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// No name means it any more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }
}
