//! [`Budget`]: how many retries there may be, so that they cannot multiply the load of nodes that fail under it.
//! (As in Finagle, <https://twitter.github.io/finagle/guide/Clients.html#retries>: a share of the requests, and a reserve.)

use std::sync::atomic::{AtomicU64, Ordering};

/// Retries are counted in thousandths.
const WHOLE: u64 = 1000;
/// Retries that are there from the start, and most that are saved up: all that may run on a node that dies.
const RESERVE: u64 = 128;

/// Retries that are left.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    /// What each request adds.
    share: u64,
}

impl Budget {
    /// As many retries as `share` of the requests, 0 to 1.
    pub(super) fn new(share: f64) -> Self {
        Self { left: AtomicU64::new(RESERVE * WHOLE), share: (share.clamp(0.0, 1.0) * WHOLE as f64) as u64 }
    }

    /// Counts a request.
    pub(super) fn deposit(&self) {
        let add = |left: u64| Some((left + self.share).min(RESERVE * WHOLE));
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }

    /// Takes one retry, if there is one.
    pub(super) fn withdraw(&self) -> bool {
        let take = |left: u64| left.checked_sub(WHOLE);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_long_run_retries_are_a_fifth_of_the_requests() {
        let budget = Budget::new(0.2);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            retries += u64::from(budget.withdraw());
        }
        assert_eq!(retries, RESERVE + 10_000 / 5 - 1);
    }

    #[test]
    fn no_more_is_saved_up_than_a_node_can_lose_at_once() {
        let budget = Budget::new(1.0);
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!((0..10_000).filter(|_| budget.withdraw()).count() as u64, RESERVE);
    }
}
