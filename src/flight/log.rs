//! The log of a flight and the [`Writer`] that owns its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Reader;
use super::events::Events;
use super::flights::Berth;
use crate::error::Error;
use crate::generation::Event;
use crate::generation::seam::Cut;

/// What a log may hold. An answer of a million tokens is about 100 MiB with its log probabilities; more than that is a
/// runaway, and the flight fails rather than eat the machine.
const CAPACITY: usize = 128 << 20;

/// How a flight got where it runs; known when its first event is.
#[derive(Clone, Debug)]
pub struct Route {
    /// The node that answered.
    pub node: Arc<str>,
    /// The model that answered, if it is not the one that was asked for.
    pub fallback: Option<Arc<str>>,
    /// Whether that is its smaller sibling, because it found no room in memory.
    pub is_sibling: bool,
    /// What the worker that answered does without, because all of it found no room.
    pub cut: Cut,
    /// Exchanges started, 1 when nothing failed.
    pub attempts: u32,
    /// Waiting for a place to run.
    pub queued: Duration,
    /// Waiting for the model to be loaded.
    pub loading: Duration,
    /// Waiting for the node's first event.
    pub upstream: Duration,
    /// How old the answer is; `None`: it was not kept but made.
    pub age: Option<Duration>,
    /// How similar the question is that it was kept of; `None`: it is the same one.
    pub similarity: Option<f32>,
}

impl Route {
    /// That of an answer which `node` gave `age` ago.
    pub fn kept(node: Arc<str>, age: Duration) -> Self {
        let nothing = Duration::ZERO;
        Self {
            node,
            attempts: 0,
            queued: nothing,
            loading: nothing,
            upstream: nothing,
            age: Some(age),
            similarity: None,
            fallback: None,
            is_sibling: false,
            cut: Cut::default(),
        }
    }

    /// Whether this is what the model says that was asked for, as it is configured.
    pub fn is_its_own(&self) -> bool {
        self.fallback.is_none() && !self.cut.changes_answers()
    }

    /// What was done because memory is short, for people; `None`: nothing.
    pub fn rung(&self) -> Option<String> {
        match (self.is_sibling, self.cut.is_none()) {
            (false, true) => None,
            (true, true) => Some("sibling".to_owned()),
            (false, false) => Some(self.cut.to_string()),
            (true, false) => Some(format!("sibling, {}", self.cut)),
        }
    }
}

/// The part that writer and readers share.
#[derive(Default)]
pub(super) struct Log {
    state: Mutex<State>,
    /// Woken after every change of `state`.
    pub(super) changed: Notify,
    pub(super) readers: AtomicUsize,
    /// Woken when the last reader leaves.
    pub(super) abandoned: Notify,
    pub(super) route: OnceLock<Route>,
}

#[derive(Default)]
struct State {
    events: Events,
    /// When the first event came.
    begun: Option<Instant>,
    /// Of each event, microseconds since the first; more than an hour is an hour.
    times: Vec<u32>,
    bytes: usize,
    end: Option<Result<(), Error>>,
}

/// What a reader finds at an offset.
pub(super) enum Entry {
    Event(Arc<Event>),
    End(Result<(), Error>),
    NotYet,
}

impl Log {
    pub(super) fn at(&self, offset: usize) -> Entry {
        let state = self.lock();
        match (state.events.get(offset), &state.end) {
            (Some(event), _) => Entry::Event(Arc::clone(event)),
            (None, Some(end)) => Entry::End(end.clone()),
            (None, None) => Entry::NotYet,
        }
    }

    /// Whether nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed: every change is one push or one store.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends to a log. Owned by the task that runs the generation; dropping it ends the flight.
pub struct Writer {
    log: Arc<Log>,
    /// Gets the whole answer.
    keep: Mutex<Option<Box<Keep>>>,
    /// Where others find the flight; gone with the writer.
    _berth: Option<Berth>,
}

/// Gets all events of an answer, when each of them came, from the first, and how it got where it ran.
pub type Keep = dyn FnOnce(Arc<[Arc<Event>]>, Arc<[Duration]>, Option<&Route>) + Send;

/// A new flight that nobody can join: its writer and its first reader.
pub fn flight() -> (Writer, Reader) {
    let log = Arc::new(Log::default());
    (Writer::new(Arc::clone(&log), None), Reader::new(log))
}

/// The first reader of an answer that was kept: a flight that has ended. The events are shared, not copied.
pub fn replay(events: Arc<[Arc<Event>]>, route: Route) -> Reader {
    let state = State { events: Events::Kept(events), end: Some(Ok(())), ..State::default() };
    Reader::new(Arc::new(Log { state: Mutex::new(state), route: OnceLock::from(route), ..Log::default() }))
}

impl Writer {
    pub(super) fn new(log: Arc<Log>, berth: Option<Berth>) -> Self {
        Self { log, keep: Mutex::default(), _berth: berth }
    }

    /// Appends an event. `Done` ends the flight well; `Error` must be given to [`Writer::fail`] instead, converted.
    pub fn append(&self, event: Event) {
        self.share(Arc::new(event));
    }

    /// The same for an event that others have too.
    pub fn share(&self, event: Arc<Event>) {
        let done = matches!(*event, Event::Done(_));
        if done {
            self.end_well(&event);
        }
        {
            let mut state = self.log.lock();
            if state.end.is_some() {
                return;
            }
            state.bytes += event.size();
            state.events.push(event);
            let begun = *state.begun.get_or_insert_with(Instant::now);
            state.times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
            if done {
                state.end = Some(Ok(()));
            } else if state.bytes > CAPACITY {
                state.end = Some(Err(Error::internal("the answer outgrew the flight's log")));
            }
        }
        self.log.changed.notify_waiters();
    }

    /// Ends the flight with an error. Does nothing if it has ended.
    pub fn fail(&self, error: Error) {
        self.log.lock().end.get_or_insert(Err(error));
        self.log.changed.notify_waiters();
    }

    /// Tells readers how the flight got where it runs; before the first event.
    pub fn routed(&self, route: Route) {
        // A second call is a bug of no consequence: the first route stands.
        let _ = self.log.route.set(route);
    }

    /// Whether readers have something of an answer.
    pub fn has_begun(&self) -> bool {
        !self.log.lock().events.is_empty()
    }

    /// Has `keep` get the whole answer just before readers see its end; never for one that fails.
    pub fn before_end(&self, keep: Box<Keep>) {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(keep);
    }

    fn end_well(&self, done: &Arc<Event>) {
        let Some(keep) = self.keep.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (events, times) = {
            let state = self.log.lock();
            if state.end.is_some() {
                return;
            }
            let events = state.events.iter().chain([done]).cloned();
            let times = state.times.iter().map(|time| Duration::from_micros((*time).into()));
            let now = state.begun.map(|begun| begun.elapsed()).unwrap_or_default();
            (events.collect(), times.chain([now]).collect())
        };
        keep(events, times, self.log.route.get());
    }

    /// The text so far, and the number of pieces it came in.
    pub fn text(&self) -> (String, usize) {
        let state = self.log.lock();
        let texts = state.events.iter().filter_map(|event| match &**event {
            Event::Delta(delta) if !delta.text.is_empty() => Some(delta.text.as_str()),
            _ => None,
        });
        let texts: Vec<_> = texts.collect();
        (texts.concat(), texts.len())
    }

    /// Ready once no reader is left: a flight without readers is of use to nobody. Never ready once the flight has ended,
    /// for what is left to do then (counting, giving the connection back) is short and has to be done.
    pub async fn abandoned(&self) {
        loop {
            // Registered before the count is read, so that a leave in between is not missed.
            let left = self.log.abandoned.notified();
            if self.log.readers.load(Ordering::Acquire) == 0 && self.log.lock().end.is_none() {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.fail(Error::internal("the generation was given up"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::generation::{Delta, Done};

    #[tokio::test]
    async fn what_a_flight_has_recorded_is_replayed() {
        let (writer, _reader) = flight();
        let (told, recorded) = mpsc::channel();
        writer.before_end(Box::new(move |events, times, _| told.send((events, times)).unwrap()));
        writer.append(Event::Delta(Delta { text: "a".into(), ..Delta::default() }));
        assert!(recorded.try_recv().is_err());
        writer.append(Event::Done(Done::default()));
        writer.append(Event::Done(Done::default()));
        let (events, times) = recorded.try_recv().unwrap();
        assert_eq!((events.len(), times.len(), times[0]), (2, 2, Duration::ZERO));
        let mut reader = replay(Arc::clone(&events), Route::kept("n".into(), Duration::ZERO));
        for event in &*events {
            assert!(Arc::ptr_eq(&reader.next().await.unwrap().unwrap(), event));
        }
        assert_eq!(reader.next().await, Ok(None));
        assert!(reader.route().unwrap().age.is_some());
    }

    #[test]
    fn an_answer_that_fails_is_not_recorded() {
        let (writer, _reader) = flight();
        writer.before_end(Box::new(|_, _, _| panic!("it failed")));
        writer.append(Event::Delta(Delta::default()));
        writer.fail(Error::ShuttingDown);
        writer.append(Event::Done(Done::default()));
    }
}
