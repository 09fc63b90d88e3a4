//! [`Answer`]: an answer on its way to one client.

use std::sync::Arc;

use super::Dispatch;
use super::reconnect::Lasting;
use super::share::Request;
use crate::error::Error;
use crate::flight::{EventId, Reader, Route, Source, flight};
use crate::generation::Event;

/// An answer on its way to one client. Dropping it leaves the flight, which goes on if others read it.
pub struct Answer {
    reader: Reader,
    source: Source,
    /// A follower's own request, until the flight has an event for it.
    own: Option<Box<Own>>,
    /// Where its client may lose the connection and come back.
    lasting: Option<Box<Lasting>>,
}

/// What a follower starts over with if the leader fails for a reason of its own.
struct Own {
    dispatch: Arc<Dispatch>,
    request: Request,
}

impl Answer {
    /// That of a flight that was started for it.
    pub(super) fn leader(reader: Reader) -> Self {
        Self { reader, source: Source::Miss, own: None, lasting: None }
    }

    /// That of a flight which answers an equal request.
    pub(super) fn follower(reader: Reader, dispatch: Arc<Dispatch>, request: Request) -> Self {
        let own = Some(Box::new(Own { dispatch, request }));
        Self { reader, source: Source::Coalesced, own, lasting: None }
    }

    /// One that was kept.
    pub(super) fn kept(reader: Reader) -> Self {
        Self { reader, source: Source::Hit, own: None, lasting: None }
    }

    /// None.
    pub(super) fn refused(error: Error) -> Self {
        let (writer, reader) = flight();
        writer.fail(error);
        Self::leader(reader)
    }

    /// The same, for a client that takes none that was kept.
    pub(super) fn bypassing(self) -> Self {
        Self { source: Source::Bypass, ..self }
    }

    /// That of a flight whose client has come back.
    pub(super) fn resumed(reader: Reader) -> Self {
        Self { reader, source: Source::Coalesced, own: None, lasting: None }
    }

    /// The same, for a client that may lose its connection.
    pub(super) fn lasting(self, lasting: Lasting) -> Self {
        Self { lasting: Some(Box::new(lasting)), ..self }
    }

    /// The next event; `None` after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Error> {
        loop {
            let next = self.reader.next().await;
            let Some(own) = self.own.take() else { return next };
            match next {
                Err(error) if is_the_leaders_own(&error) => {
                    *self = Self { lasting: self.lasting.take(), ..own.start_over() };
                }
                Err(error) => return Err(error),
                Ok(event) => {
                    own.dispatch.let_in(&own.request.target, &own.request.claim);
                    return Ok(event);
                }
            }
        }
    }

    /// The id of the event that was read last; `None`: it gets none.
    pub fn event_id(&mut self) -> Option<EventId> {
        self.lasting.as_mut().map(|lasting| lasting.event_id(&self.reader))
    }

    /// Whether the client had the event that was read last before it came back.
    pub fn is_known(&self) -> bool {
        self.lasting.as_ref().is_some_and(|lasting| self.reader.offset() <= lasting.known())
    }

    /// How the flight got where it runs; known once an event was read.
    pub fn route(&self) -> Option<&Route> {
        self.reader.route()
    }

    /// Where the answer comes from.
    pub fn source(&self) -> Source {
        // Its flight may have found it where it takes a while to look.
        match self.route() {
            Some(route) if route.similarity.is_some() => Source::Semantic,
            Some(route) if route.age.is_some() => Source::Hit,
            _ => self.source,
        }
    }
}

impl Own {
    /// Once: of the next leader's failure it gets its part, so that nobody waits in line for ever.
    fn start_over(self) -> Answer {
        let answer = self.dispatch.share(self.request);
        Answer { own: None, ..answer }
    }
}

/// Whether the error says something of the leader alone: it was too late in the line, or waited in it too long. (Its deadline is the
/// client's, and ends no flight that others read.)
fn is_the_leaders_own(error: &Error) -> bool {
    matches!(error, Error::QueueFull { .. } | Error::QueueTimeout { .. })
}
