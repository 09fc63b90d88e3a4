//! [`Reader`]: follows a flight from its start.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Route;
use super::log::{Entry, Log};
use crate::error::Error;
use crate::generation::Event;

/// Follows a flight from its start. A clone starts over. Dropping the last one cancels the flight.
pub struct Reader {
    log: Arc<Log>,
    offset: usize,
}

impl Reader {
    pub(super) fn new(log: Arc<Log>) -> Self {
        log.readers.fetch_add(1, Ordering::AcqRel);
        Self { log, offset: 0 }
    }

    /// A reader of a flight that runs. `None`: it has ended, or the last reader has left, and whoever runs it may know already.
    pub(super) fn join(log: &Arc<Log>) -> Option<Self> {
        if log.has_ended() { None } else { Self::rejoin(log) }
    }

    /// The same of one that may have ended.
    pub(super) fn rejoin(log: &Arc<Log>) -> Option<Self> {
        let one_more = |readers: usize| (readers > 0).then(|| readers + 1);
        log.readers.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Self { log: Arc::clone(log), offset: 0 })
    }

    /// The next event; `None` after the last one of a complete answer. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Error> {
        // What is there already needs nobody to be woken.
        if let Some(ready) = ready(&self.log, &mut self.offset) {
            return ready;
        }
        loop {
            // Registered before the log is read, so that an append in between is not missed.
            let changed = self.log.changed.notified();
            if let Some(ready) = ready(&self.log, &mut self.offset) {
                return ready;
            }
            changed.await;
        }
    }

    /// Events read.
    pub fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// How the flight got where it runs; known once an event was read.
    pub fn route(&self) -> Option<&Route> {
        self.log.route.get()
    }
}

/// What comes after `offset` events, if it is there.
fn ready(log: &Log, offset: &mut usize) -> Option<Result<Option<Arc<Event>>, Error>> {
    match log.at(*offset) {
        Entry::Event(event) => {
            *offset += 1;
            Some(Ok(Some(event)))
        }
        Entry::End(end) => Some(end.map(|()| None)),
        Entry::NotYet => None,
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.log))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.log.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.log.abandoned.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flight;
    use crate::error::Error;
    use crate::generation::{Delta, Done, Event};

    fn delta(text: &str) -> Event {
        Event::Delta(Delta { text: text.into(), ..Delta::default() })
    }

    async fn text_of(mut reader: super::Reader) -> Result<String, Error> {
        let mut text = String::new();
        while let Some(event) = reader.next().await? {
            if let Event::Delta(delta) = &*event {
                text.push_str(&delta.text);
            }
        }
        Ok(text)
    }

    #[tokio::test]
    async fn every_reader_sees_the_whole_answer_whenever_it_joins() {
        let (writer, first) = flight();
        let early = tokio::spawn(text_of(first.clone()));
        writer.append(delta("a"));
        tokio::task::yield_now().await;
        writer.append(delta("b"));
        let middle = tokio::spawn(text_of(first.clone()));
        writer.append(Event::Done(Done::default()));
        let late = text_of(first.clone()).await;
        assert_eq!(early.await.unwrap(), Ok("ab".into()));
        assert_eq!(middle.await.unwrap(), Ok("ab".into()));
        assert_eq!(late, Ok("ab".into()));
    }

    #[tokio::test]
    async fn a_dropped_writer_is_an_error_and_never_a_short_answer() {
        let (writer, reader) = flight();
        writer.append(delta("half"));
        drop(writer);
        assert!(matches!(text_of(reader).await, Err(Error::Internal { .. })));
    }

    #[tokio::test]
    async fn nothing_follows_the_end() {
        let (writer, reader) = flight();
        writer.append(Event::Done(Done::default()));
        writer.append(delta("late"));
        writer.fail(Error::ShuttingDown);
        assert_eq!(text_of(reader).await, Ok(String::new()));
    }

    #[tokio::test]
    async fn the_last_reader_to_leave_abandons_the_flight_and_no_other_does() {
        let (writer, reader) = flight();
        let other = reader.clone();
        let abandoned = tokio::spawn(async move { writer.abandoned().await });
        tokio::task::yield_now().await;
        drop(reader);
        tokio::task::yield_now().await;
        assert!(!abandoned.is_finished());
        drop(other);
        abandoned.await.unwrap();
    }
}
