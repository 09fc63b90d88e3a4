//! Looking at a gate without standing in its line, for work that is done only while nobody else has any.

use std::sync::Arc;

use super::{Door, Gate};

/// Somebody who looks; while nobody does, nobody is told of changes.
struct Watch<'a>(&'a Arc<Door>);

impl<'a> Watch<'a> {
    fn new(door: &'a Arc<Door>) -> Self {
        door.lock().watched += 1;
        Self(door)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.lock().watched -= 1;
    }
}

impl Gate {
    /// Ready while a place is free, so that nobody waits for one.
    pub async fn idle(&self) {
        self.until(|free, _| free > 0).await;
    }

    /// Ready while somebody waits for a place.
    pub async fn crowded(&self) {
        self.until(|_, waiting| waiting > 0).await;
    }

    /// Ready once `is_so` is true of the places that are free and of those who wait.
    async fn until(&self, is_so: impl Fn(usize, usize) -> bool) {
        let _watch = Watch::new(&self.door);
        loop {
            // Registered before it is looked at, so that a change in between is not missed.
            let changed = self.door.changed.notified();
            {
                let waiting = self.door.lock();
                if is_so(waiting.free, waiting.line.len()) {
                    return;
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::QueueConfig;
    use crate::generation::Priority;

    #[tokio::test(start_paused = true)]
    async fn who_looks_learns_when_a_place_is_free_and_when_somebody_waits() {
        let gate = Gate::new(1, &QueueConfig { depth: 5, wait: Duration::from_secs(60) });
        gate.idle().await;
        let mut crowded = Box::pin(gate.crowded());
        assert!(futures::poll!(&mut crowded).is_pending());
        let running = gate.line_up(Priority::NORMAL).unwrap().enter().await.unwrap();
        assert!(futures::poll!(&mut crowded).is_pending());
        let mut idle = Box::pin(gate.idle());
        assert!(futures::poll!(&mut idle).is_pending());
        let mut next = Box::pin(gate.line_up(Priority::NORMAL).unwrap().enter());
        assert!(futures::poll!(&mut next).is_pending());
        crowded.await;
        drop(running);
        let running = next.await.unwrap();
        assert!(futures::poll!(&mut idle).is_pending());
        drop(running);
        idle.await;
        assert_eq!(gate.door.lock().watched, 0);
    }
}
