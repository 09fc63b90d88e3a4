//! [`Events`]: those of a log.

use std::ops::Deref;
use std::sync::Arc;

use crate::generation::Event;

/// The events of a log.
pub(super) enum Events {
    /// Of a flight that runs.
    Growing(Vec<Arc<Event>>),
    /// Of an answer that was kept, shared with whoever keeps it.
    Kept(Arc<[Arc<Event>]>),
}

impl Events {
    /// Appends one; a kept answer is whole.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        if let Self::Growing(events) = self {
            events.push(event);
        }
    }
}

impl Deref for Events {
    type Target = [Arc<Event>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Growing(events) => events,
            Self::Kept(events) => events,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::Growing(Vec::new())
    }
}
