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
    /// Requests that run and requests that wait.
    inside: Arc<AtomicUsize>,
    /// Most of them: the places and `queue.depth`.
    capacity: usize,
    patience: Duration,
}

/// A place in the line; dropping it (the client left) gives it up.
pub struct Ticket {
    places: Arc<Semaphore>,
    patience: Duration,
    counted: Inside,
}

/// The right to run; dropping it lets the next one in.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Inside,
}

/// One request on the count.
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// Lets `places` requests (as many as a semaphore can count) run at once and `queue.depth` wait, each at most `queue.wait`.
    pub fn new(places: usize, queue: &QueueConfig) -> Self {
        let places = places.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places)),
            inside: Arc::default(),
            capacity: places.saturating_add(queue.depth),
            patience: queue.wait,
        }
    }

    /// Joins the line; turned away at once when it is full.
    pub fn line_up(&self) -> Result<Ticket, Error> {
        let ahead = self.inside.fetch_add(1, Ordering::AcqRel);
        let counted = Inside(Arc::clone(&self.inside));
        if ahead >= self.capacity {
            return Err(Error::QueueFull { retry_after: Duration::from_secs(1) });
        }
        Ok(Ticket { places: Arc::clone(&self.places), patience: self.patience, counted })
    }
}

impl Ticket {
    /// Waits for a place, first come first served; turned away after `queue.wait`.
    pub async fn enter(self) -> Result<Place, Error> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout(self.patience, self.places.acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_closed)) => return Err(Error::ShuttingDown),
                Err(_elapsed) => return Err(Error::QueueTimeout { waited: self.patience }),
            },
        };
        Ok(Place { _permit: permit, _counted: self.counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn enter(gate: &Gate) -> Result<Place, Error> {
        gate.line_up()?.enter().await
    }

    fn gate(places: usize, depth: usize) -> Arc<Gate> {
        Arc::new(Gate::new(places, &QueueConfig { depth, wait: Duration::from_secs(60) }))
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_first_come_first_served_and_bounded() {
        let gate = gate(1, 2);
        let running = enter(&gate).await.unwrap();
        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        for name in ["first", "second"] {
            let (gate, order) = (Arc::clone(&gate), order.clone());
            tokio::spawn(async move {
                let _place = enter(&gate).await.unwrap();
                order.send(name).unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert!(matches!(gate.line_up(), Err(Error::QueueFull { .. })));
        drop(running);
        assert_eq!(came.recv().await, Some("first"));
        assert_eq!(came.recv().await, Some("second"));
    }

    #[test]
    fn more_places_than_can_be_counted_are_as_many_as_can() {
        let _gate = gate(usize::MAX, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_turned_away_and_leaves_the_count() {
        let gate = gate(1, 2);
        let running = enter(&gate).await.unwrap();
        assert!(matches!(enter(&gate).await, Err(Error::QueueTimeout { .. })));
        drop(running);
        let tickets: Vec<_> = (0..3).map(|_| gate.line_up().unwrap()).collect();
        assert!(gate.line_up().is_err());
        drop(tickets);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_queue_gives_its_place_in_it_back() {
        let gate = gate(1, 1);
        let running = enter(&gate).await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { enter(&gate).await.map(drop) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        drop(gate.line_up().unwrap());
        drop(running);
        assert!(enter(&gate).await.is_ok());
    }
}
