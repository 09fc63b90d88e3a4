//! Admission: who runs now, who waits, who is turned away. One [`Gate`] in front of each model, first come first served;
//! classes and tenants will find their place here.

mod config;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use config::QueueConfig;

use crate::error::Error;

/// The door in front of one model.
pub struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    depth: usize,
    patience: Duration,
}

/// The right to run; dropping it lets the next one in.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// One request in the queue; dropping it (the client left) takes it off the count.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// Lets `places` requests (as many as a semaphore can count) run at once and `queue.depth` wait, each at most `queue.wait`.
    pub fn new(places: usize, queue: &QueueConfig) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            depth: queue.depth,
            patience: queue.wait,
        }
    }

    /// Waits for a place. Turned away at once when the queue is full, and after `queue.wait` otherwise.
    pub async fn enter(&self) -> Result<Place, Error> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        if ahead >= self.depth {
            return Err(Error::QueueFull { retry_after: Duration::from_secs(1) });
        }
        match tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            Ok(Err(_closed)) => Err(Error::ShuttingDown),
            Err(_elapsed) => Err(Error::QueueTimeout { waited: self.patience }),
        }
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(places: usize, depth: usize) -> Arc<Gate> {
        Arc::new(Gate::new(places, &QueueConfig { depth, wait: Duration::from_secs(60) }))
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_first_come_first_served_and_bounded() {
        let gate = gate(1, 2);
        let running = gate.enter().await.unwrap();
        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        for name in ["first", "second"] {
            let (gate, order) = (Arc::clone(&gate), order.clone());
            tokio::spawn(async move {
                let _place = gate.enter().await.unwrap();
                order.send(name).unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.waiting(), 2);
        assert!(matches!(gate.enter().await, Err(Error::QueueFull { .. })));
        drop(running);
        assert_eq!(came.recv().await, Some("first"));
        assert_eq!(came.recv().await, Some("second"));
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn more_places_than_can_be_counted_are_as_many_as_can() {
        let _gate = gate(usize::MAX, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_turned_away_and_leaves_the_count() {
        let gate = gate(1, 2);
        let _running = gate.enter().await.unwrap();
        assert!(matches!(gate.enter().await, Err(Error::QueueTimeout { .. })));
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_queue_gives_its_place_in_it_back() {
        let gate = gate(1, 1);
        let running = gate.enter().await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await.map(drop) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!(gate.waiting(), 0);
        drop(running);
        assert!(gate.enter().await.is_ok());
    }
}
