//! Streams that outlive their connections: whoever asks for event ids may lose its connection and come back.

use std::sync::Arc;

use super::Dispatch;
use super::answer::Answer;
use super::share::Request;
use crate::error::Error;
use crate::flight::{EventId, Handle, Ids, Reader};
use crate::generation::Identity;

/// What a stream needs to be come back to. Dropping it keeps the flight for the time of grace.
pub(super) struct Lasting {
    dispatch: Arc<Dispatch>,
    identity: Identity,
    /// Events that the client had when it came back.
    known: usize,
    /// From the first event that got an id.
    kept: Option<Kept>,
}

/// A flight with its name.
struct Kept {
    _reader: Reader,
    handle: Handle,
}

impl Dispatch {
    /// Has the request answered so that its client can come back, or goes on with the answer to which it has.
    pub(super) fn reconnectable(self: &Arc<Self>, mut request: Request, ids: Ids) -> Result<Answer, Error> {
        let terms = self.sharing.terms();
        if ids == Ids::New && terms.config.grace.is_zero() {
            return Ok(self.share(request));
        }
        let Some(identity) = self.identify(&mut request, &terms) else { return Ok(self.share(request)) };
        let (answer, known) = match ids {
            Ids::New => (self.share(request), 0),
            Ids::Behind(id) => {
                let reader = self.sharing.handles.find(id, &identity).ok_or(Error::StreamGone)?;
                (Answer::resumed(reader), id.offset)
            }
        };
        Ok(answer.lasting(Lasting { dispatch: Arc::clone(self), identity, known, kept: None }))
    }

    /// Keeps a flight until its client had time to come back.
    fn linger(&self, kept: Kept) {
        // There is none when the process ends, and nobody comes back then.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (grace, closing) = (self.sharing.terms().config.grace, self.sharing.closing.clone());
        let wait = async move {
            tokio::select! {
                () = tokio::time::sleep(grace) => {}
                () = closing.cancelled() => {}
            }
            drop(kept);
        };
        self.flights.spawn_on(wait, &runtime);
    }
}

impl Lasting {
    /// Events that the client had when it came back.
    pub(super) fn known(&self) -> usize {
        self.known
    }

    /// The id of the event that `reader` has read last. Whoever comes back gets a new name: the old connection may not be known to be lost.
    pub(super) fn event_id(&mut self, reader: &Reader) -> EventId {
        let kept = self.kept.get_or_insert_with(|| Kept {
            handle: self.dispatch.sharing.handles.issue(reader, self.identity.clone()),
            _reader: reader.clone(),
        });
        kept.handle.at(reader.offset())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.dispatch.linger(kept);
        }
    }
}
