//! [`Handles`]: names by which a client that lost its connection comes back to its stream.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::log::Log;
use super::reader::Reader;
use crate::generation::Identity;

/// The streams that can be come back to.
#[derive(Clone, Debug, Default)]
pub struct Handles(Arc<Mutex<HashMap<u128, Entry>>>);

struct Entry {
    /// What the stream answers; whoever comes back asks for the same.
    identity: Identity,
    log: Weak<Log>,
}

/// A stream's name, known as long as this lives. It keeps no flight running; a reader does.
#[derive(Debug)]
pub struct Handle {
    handles: Handles,
    id: u128,
}

/// A place in a stream, as the `id` of its events has it: 32 hexadecimal digits that cannot be guessed, a dot, and how many events of the
/// flight lie before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    stream: u128,
    /// Events before it.
    pub offset: usize,
}

/// What a client wants of event ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// To get some.
    New,
    /// What comes behind an event that it has.
    Behind(EventId),
}

/// A text that is no [`EventId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEventId;

impl Handles {
    /// Gives the flight of `reader`, which answers `identity`, a new name.
    pub fn issue(&self, reader: &Reader, identity: Identity) -> Handle {
        let id = rand::random();
        self.lock().insert(id, Entry { identity, log: Arc::downgrade(reader.log()) });
        Handle { handles: self.clone(), id }
    }

    /// Goes on with a stream from its start. `None`: it is not known any more, or answers something else.
    pub fn find(&self, id: EventId, identity: &Identity) -> Option<Reader> {
        let handles = self.lock();
        let entry = handles.get(&id.stream).filter(|entry| entry.identity == *identity)?;
        Reader::rejoin(&entry.log.upgrade()?)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Entry>> {
        // A panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// The place behind `offset` events.
    pub fn at(&self, offset: usize) -> EventId {
        EventId { stream: self.id, offset }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.handles.lock().remove(&self.id);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{}", self.stream, self.offset)
    }
}

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let (stream, offset) = text.split_once('.').ok_or(NoEventId)?;
        let stream = u128::from_str_radix(stream, 16).map_err(|_| NoEventId)?;
        Ok(Self { stream, offset: offset.parse().map_err(|_| NoEventId)? })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::flight;
    use super::*;
    use crate::generation::{Delta, Done, Event, Generation, Scope};

    fn identity(prompt: &str) -> Identity {
        let request = serde_json::json!({ "model": "m", "input": { "kind": "raw", "prompt": prompt } });
        let generation: Generation = serde_json::from_value(request).unwrap();
        Identity::of(&generation, Scope::default()).unwrap()
    }

    #[test]
    fn a_stream_is_found_by_its_name_as_long_as_somebody_reads_it() {
        let (handles, (writer, reader)) = (Handles::default(), flight());
        let handle = handles.issue(&reader, identity("a"));
        writer.append(Event::Delta(Delta::default()));
        let id: EventId = handle.at(1).to_string().parse().unwrap();
        assert_eq!(id, handle.at(1));
        let mut again = handles.find(id, &identity("a")).unwrap();
        assert!(again.next().now_or_never().unwrap().unwrap().is_some());
        assert!(handles.find(id, &identity("b")).is_none(), "another request");
        writer.append(Event::Done(Done::default()));
        assert!(handles.find(id, &identity("a")).is_some(), "also when it has ended");
        drop((reader, again));
        assert!(handles.find(id, &identity("a")).is_none(), "nobody kept it");
    }

    #[test]
    fn names_cannot_be_guessed_and_go_with_their_handle() {
        let (handles, (_writer, reader)) = (Handles::default(), flight());
        let (one, other) = (handles.issue(&reader, identity("a")), handles.issue(&reader, identity("a")));
        assert_ne!(one.at(0), other.at(0));
        let id = one.at(0);
        drop(one);
        assert!(handles.find(id, &identity("a")).is_none());
        assert!(handles.find(other.at(7), &identity("a")).is_some());
    }

    #[test]
    fn what_no_stream_has_said_is_no_event_id() {
        for text in
            ["", "5", ".", "12.", ".3", "xyz.3", "12.-3", "12.3.4", "0123456789abcdef0123456789abcdef0.1"]
        {
            assert_eq!(text.parse::<EventId>(), Err(NoEventId), "{text}");
        }
    }
}
