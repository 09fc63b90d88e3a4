//! The log of a flight and the [`Writer`] that owns its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::Reader;
use super::flights::Berth;
use crate::error::Error;
use crate::generation::Event;

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
    /// Exchanges started, 1 when nothing failed.
    pub attempts: u32,
    /// Waiting for a place to run.
    pub queued: Duration,
    /// Waiting for the model to be loaded.
    pub loading: Duration,
    /// Waiting for the node's first event.
    pub upstream: Duration,
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
    events: Vec<Arc<Event>>,
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
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Appends to a log. Owned by the task that runs the generation; dropping it ends the flight.
pub struct Writer {
    log: Arc<Log>,
    /// Where others find the flight; gone with the writer.
    _berth: Option<Berth>,
}

/// A new flight that nobody can join: its writer and its first reader.
pub fn flight() -> (Writer, Reader) {
    let log = Arc::new(Log::default());
    (Writer::new(Arc::clone(&log), None), Reader::new(log))
}

impl Writer {
    pub(super) fn new(log: Arc<Log>, berth: Option<Berth>) -> Self {
        Self { log, _berth: berth }
    }

    /// Appends an event. `Done` ends the flight well; `Error` must be given to [`Writer::fail`] instead, converted.
    pub fn append(&self, event: Event) {
        let done = matches!(event, Event::Done(_));
        {
            let mut state = self.log.lock();
            if state.end.is_some() {
                return;
            }
            state.bytes += size(&event);
            state.events.push(Arc::new(event));
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

/// Bytes an event occupies, roughly: text, tokens, log probabilities.
fn size(event: &Event) -> usize {
    match event {
        Event::Delta(delta) => {
            let alternatives: usize = delta.logprobs.iter().map(|l| 64 + 64 * l.top.len()).sum();
            96 + delta.text.len() + delta.thinking.len() + 4 * delta.tokens.len() + alternatives
        }
        // A call is as long as the text of its tokens.
        Event::ToolCall { tokens, .. } => 512 + 16 * tokens.len(),
        Event::Done(done) => 128 + 4 * done.context.len(),
        Event::Error(_) => 128,
    }
}
