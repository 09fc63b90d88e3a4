//! [`Context`]: what the phases of one request hand on to each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::dialect::Dialect;
use crate::flight::{Route, Source};
use crate::generation::Done;

/// One request. Every field says which phase writes it.
pub struct Context {
    /// Arrival.
    pub arrived: Instant,
    /// From `X-Request-Id`, or made here; written by `request_filter`.
    pub id: String,
    /// Written by `request_filter`.
    pub dialect: Dialect,
    /// The endpoint's label; written by `request_filter`.
    pub endpoint: &'static str,
    /// The configured model, once its name is known to mean one.
    pub model: Option<Arc<str>>,
    /// An allowed `Origin`, to be echoed.
    pub origin: Option<String>,
    /// How the answer came to be; written with its first event.
    pub route: Option<Route>,
    /// Where the answer came from; written with its first event.
    pub source: Source,
    /// Arrival to the first event handed to the client.
    pub first_event: Option<Duration>,
    /// Counts of the answer's end, all choices together.
    pub done: Option<Done>,
    /// How many choices [`Context::done`] sums.
    pub choices: u64,
    /// `ok`, `cancelled`, or an error's code.
    pub outcome: &'static str,
    /// What went wrong, for the log.
    pub error: Option<crate::error::Error>,
    /// Keeps a stop waiting while this request runs.
    _active: TaskTrackerToken,
}

impl Context {
    pub(super) fn new(active: TaskTrackerToken) -> Self {
        Self {
            arrived: Instant::now(),
            id: String::new(),
            dialect: Dialect::Ollama,
            endpoint: "unknown",
            model: None,
            origin: None,
            route: None,
            source: Source::default(),
            first_event: None,
            done: None,
            choices: 0,
            outcome: "ok",
            error: None,
            _active: active,
        }
    }

    /// Adds the counts of one choice.
    pub(super) fn count(&mut self, done: &Done) {
        self.choices += 1;
        let sum = self.done.get_or_insert_with(Done::default);
        sum.prompt_tokens += done.prompt_tokens;
        sum.cached_tokens += done.cached_tokens;
        sum.completion_tokens += done.completion_tokens;
        sum.guessed_tokens += done.guessed_tokens;
        sum.accepted_tokens += done.accepted_tokens;
        sum.prompt_duration += done.prompt_duration;
        sum.completion_duration = sum.completion_duration.max(done.completion_duration);
    }
}
