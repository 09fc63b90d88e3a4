//! [`Choices`]: the answers to one request, one per choice, read as they come.

use std::sync::Arc;

use bytes::BytesMut;
use futures::future::select_all;

use crate::dialect::sse;
use crate::dispatch::Answer;
use crate::error::Error;
use crate::flight::{Route, Source};
use crate::generation::Event;

/// The answers to one request. Dropping it leaves all flights.
pub(super) struct Choices {
    answers: Vec<Option<Answer>>,
    open: usize,
    route: Option<Route>,
    source: Source,
}

impl Choices {
    pub(super) fn new(answers: Vec<Answer>) -> Self {
        let (open, answers) = (answers.len(), answers.into_iter().map(Some).collect());
        Self { answers, open, route: None, source: Source::default() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
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
        let (index, event) = match self.answers.as_mut_slice() {
            [Some(only)] => (0, only.next().await),
            answers => {
                let open = answers
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(index, answer)| Some((index, answer.as_mut()?)));
                let next = open.map(|(index, answer)| Box::pin(async move { (index, answer.next().await) }));
                select_all(next).await.0
            }
        };
        let event = event?.ok_or_else(|| Error::internal("a flight ended twice"))?;
        if let Some(Some(answer)) = self.answers.get(index) {
            self.source = answer.source();
        }
        if matches!(*event, Event::Done(_)) {
            let ended = self.answers.get_mut(index).and_then(Option::take);
            self.route = self.route.take().or_else(|| ended.and_then(|answer| answer.route().cloned()));
            self.open -= 1;
        }
        Ok(Some((index, event)))
    }

    /// Gives what was written for the last event its id, where the client asked for ids; what it has already is not written again.
    pub(super) fn place(&mut self, out: &mut BytesMut) {
        let [Some(only)] = self.answers.as_mut_slice() else { return };
        if only.is_known() {
            out.clear();
        } else if let Some(id) = only.event_id() {
            sse::identify(out, &id);
        }
    }

    /// Where the last event came from.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// How the first choice with an event got where it runs.
    pub(super) fn route(&self) -> Option<&Route> {
        self.route.as_ref().or_else(|| self.answers.iter().flatten().find_map(Answer::route))
    }
}
