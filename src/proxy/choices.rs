//! [`Choices`]: the readers of one request, one per choice, read as they come.

use std::sync::Arc;

use futures::future::select_all;

use crate::error::Error;
use crate::flight::{Reader, Route};
use crate::generation::Event;

/// The readers of one request. Dropping it leaves all flights.
pub(super) struct Choices {
    readers: Vec<Option<Reader>>,
    open: usize,
    route: Option<Route>,
}

impl Choices {
    pub(super) fn new(readers: Vec<Reader>) -> Self {
        Self { open: readers.len(), readers: readers.into_iter().map(Some).collect(), route: None }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.readers.len()
    }

    /// Whether all have given their last event.
    pub(super) fn are_complete(&self) -> bool {
        self.open == 0
    }

    /// The next event of any choice; `None` once all are complete. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Arc<Event>)>, Error> {
        if self.open == 0 {
            return Ok(None);
        }
        let (index, event) = match self.readers.as_mut_slice() {
            [Some(only)] => (0, only.next().await),
            readers => {
                let open = readers
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(index, reader)| Some((index, reader.as_mut()?)));
                let next = open.map(|(index, reader)| Box::pin(async move { (index, reader.next().await) }));
                select_all(next).await.0
            }
        };
        let event = event?.ok_or_else(|| Error::internal("a flight ended twice"))?;
        if matches!(*event, Event::Done(_)) {
            let ended = self.readers.get_mut(index).and_then(Option::take);
            self.route = self.route.take().or_else(|| ended.and_then(|reader| reader.route().cloned()));
            self.open -= 1;
        }
        Ok(Some((index, event)))
    }

    /// How the first choice with an event got where it runs.
    pub(super) fn route(&self) -> Option<&Route> {
        self.route.as_ref().or_else(|| self.readers.iter().flatten().find_map(Reader::route))
    }
}
