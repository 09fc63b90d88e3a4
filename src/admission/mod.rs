//! Admission: who runs now, who waits, who is turned away. One [`Gate`] in front of each model: the most urgent first, then
//! first come first served; tenants will find their place here.

mod config;
mod idle;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

pub use config::QueueConfig;

use crate::error::Error;
use crate::generation::Priority;
use crate::units::line::Line;

/// The door in front of one model.
pub struct Gate {
    door: Arc<Door>,
    /// Requests that run and requests that wait.
    inside: Arc<AtomicUsize>,
}

/// A place in the line; dropping it (the client left) gives it up.
pub struct Ticket {
    door: Arc<Door>,
    priority: Priority,
    patience: Duration,
    counted: Inside,
}

/// The right to run; dropping it lets the next one in.
pub struct Place {
    _permit: Permit,
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
    /// Lets `places` requests run at once and `queue.depth` wait, each at most `queue.wait`.
    pub fn new(places: usize, queue: &QueueConfig) -> Self {
        let (queue, line) = (queue.clone(), Line::default());
        let waiting = Waiting { places, free: places, owed: 0, queue, line, watched: 0 };
        let door = Door { waiting: Mutex::new(waiting), changed: Notify::new() };
        Self { door: Arc::new(door), inside: Arc::default() }
    }

    /// Lets others join the line by these rules. Who is in it stays, and waits as long as it would have.
    pub fn configure(&self, queue: &QueueConfig) {
        self.door.lock().queue = queue.clone();
    }

    /// Lets `places` run at once from now on. Where that is fewer, who runs goes on, and nobody takes the place of as many.
    pub fn resize(&self, places: usize) {
        let mut waiting = self.door.lock();
        let before = std::mem::replace(&mut waiting.places, places);
        let fewer = before.saturating_sub(places);
        let taken = fewer.min(waiting.free);
        waiting.free -= taken;
        waiting.owed += fewer - taken;
        let more = places.saturating_sub(before);
        let forgiven = more.min(waiting.owed);
        waiting.owed -= forgiven;
        drop(waiting);
        // Each new place is let go at once, which hands it to who is next.
        for _ in forgiven..more {
            drop(Permit(Arc::clone(&self.door)));
        }
    }

    /// Joins the line; turned away at once when it is full.
    pub fn line_up(&self, priority: Priority) -> Result<Ticket, Error> {
        let ahead = self.inside.fetch_add(1, Ordering::AcqRel);
        let counted = Inside(Arc::clone(&self.inside));
        let (most, patience) = {
            let waiting = self.door.lock();
            (waiting.places.saturating_add(waiting.queue.depth), waiting.queue.wait)
        };
        if ahead >= most {
            return Err(Error::QueueFull { retry_after: Duration::from_secs(1) });
        }
        Ok(Ticket { door: Arc::clone(&self.door), priority, patience, counted })
    }
}

impl Ticket {
    /// Waits for a place, the most urgent first; turned away after `queue.wait`.
    pub async fn enter(self) -> Result<Place, Error> {
        let mut call = self.door.ask(self.priority);
        match tokio::time::timeout(self.patience, &mut call.0).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit, _counted: self.counted }),
            Ok(Err(_forgotten)) => Err(Error::internal("a place in the line was lost")),
            Err(_elapsed) => Err(Error::QueueTimeout { waited: self.patience }),
        }
    }
}

/// The places behind a gate and the line for them.
struct Door {
    waiting: Mutex<Waiting>,
    /// Woken when a place is free or somebody waits, where that is watched.
    changed: Notify,
}

struct Waiting {
    /// All there are.
    places: usize,
    free: usize,
    /// Those in use that there are no more.
    owed: usize,
    /// How many may wait beside the places, and how long.
    queue: QueueConfig,
    /// Nobody is in it while a place is free.
    line: Line<Priority, oneshot::Sender<Permit>>,
    /// How many want to know of changes.
    watched: usize,
}

/// One of the places; dropping it hands it to who is next.
struct Permit(Arc<Door>);

/// Waiting to be called; dropping it leaves the line.
struct Call<'a>(oneshot::Receiver<Permit>, &'a Door);

impl Door {
    fn ask(self: &Arc<Self>, priority: Priority) -> Call<'_> {
        let (caller, call) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.free == 0 {
            waiting.line.push(priority, caller);
            self.tell(&waiting);
        } else {
            waiting.free -= 1;
            drop(waiting);
            // Its receiver is in this function.
            caller.send(Permit(Arc::clone(self))).ok();
        }
        Call(call, self)
    }

    /// Who gets the place of one that left; if there is nobody, it is free.
    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut waiting = self.lock();
        if waiting.owed > 0 {
            waiting.owed -= 1;
            return None;
        }
        let next = waiting.line.next(|_| ()).map(|(next, _)| next);
        let called = next.and_then(|next| waiting.line.take(next)).map(|(_, caller)| caller);
        waiting.free += usize::from(called.is_none());
        self.tell(&waiting);
        called
    }

    fn tell(&self, waiting: &Waiting) {
        if waiting.watched > 0 {
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(caller) = self.0.next() {
            // If that one has left in this moment, what is not sent is dropped and goes on to the one after.
            caller.send(Permit(Arc::clone(&self.0))).ok();
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.1.lock().line.retain(|caller| !caller.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(text: &str) -> Priority {
        text.parse().unwrap()
    }

    async fn enter(gate: &Gate) -> Result<Place, Error> {
        gate.line_up(Priority::NORMAL)?.enter().await
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
        assert!(matches!(gate.line_up(Priority::NORMAL), Err(Error::QueueFull { .. })));
        drop(running);
        assert_eq!(came.recv().await, Some("first"));
        assert_eq!(came.recv().await, Some("second"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_grows_for_those_who_wait_and_shrinks_as_those_who_run_leave() {
        let gate = gate(1, 10);
        let first = enter(&gate).await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { enter(&gate).await.unwrap() }
        });
        tokio::task::yield_now().await;
        gate.resize(2);
        let second = waiting.await.unwrap();
        gate.resize(1);
        drop(first);
        let mut third = Box::pin(enter(&gate));
        assert!(futures::poll!(&mut third).is_pending(), "the place of the first is gone");
        drop(second);
        let third = third.await.unwrap();
        gate.resize(0);
        gate.resize(1);
        drop(third);
        drop(enter(&gate).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_in_line_when_the_rules_change_keeps_its_place() {
        let gate = gate(1, 1);
        let running = enter(&gate).await.unwrap();
        let mut waiting = Box::pin(enter(&gate));
        assert!(futures::poll!(&mut waiting).is_pending());
        gate.configure(&QueueConfig { depth: 0, wait: Duration::from_secs(1) });
        assert!(matches!(gate.line_up(Priority::NORMAL), Err(Error::QueueFull { .. })));
        tokio::time::sleep(Duration::from_secs(30)).await;
        gate.configure(&QueueConfig { depth: 2, wait: Duration::from_secs(1) });
        assert_eq!(enter(&gate).await.err(), Some(Error::QueueTimeout { waited: Duration::from_secs(1) }));
        drop(running);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_urgent_pass_those_that_wait_but_not_without_end() {
        let gate = gate(1, 100);
        let mut running = enter(&gate).await.unwrap();
        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        for name in std::iter::repeat_n("low", 20).chain(std::iter::repeat_n("high", 30)) {
            let (gate, order) = (Arc::clone(&gate), order.clone());
            tokio::spawn(async move {
                let place = gate.line_up(priority(name)).unwrap().enter().await.unwrap();
                order.send((name, place)).unwrap();
            });
            tokio::task::yield_now().await;
        }
        let mut names = Vec::new();
        for _ in 0..50 {
            drop(running);
            let (name, place) = came.recv().await.unwrap();
            names.push(name);
            running = place;
        }
        assert_eq!(names.iter().take(32).filter(|name| **name == "high").count(), 30);
        assert!(names[..20].contains(&"low"), "{names:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_turned_away_and_leaves_the_count() {
        let gate = gate(1, 2);
        let running = enter(&gate).await.unwrap();
        assert!(matches!(enter(&gate).await, Err(Error::QueueTimeout { .. })));
        drop(running);
        let tickets: Vec<_> = (0..3).map(|_| gate.line_up(Priority::NORMAL).unwrap()).collect();
        assert!(gate.line_up(Priority::NORMAL).is_err());
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
        drop(gate.line_up(Priority::NORMAL).unwrap());
        drop(running);
        assert!(enter(&gate).await.is_ok());
    }
}
