//! [`Deadline`]: when a client gives up by its own word, `X-Request-Timeout-Ms`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::protocols::http::ServerSession;

use super::header::REQUEST_TIMEOUT;
use crate::dispatch::Dispatch;
use crate::error::Error;

/// One request's.
pub(super) struct Deadline<'a> {
    at: Option<Instant>,
    dispatch: &'a Dispatch,
    model: Arc<str>,
}

impl<'a> Deadline<'a> {
    /// Of a request for `model` that arrived then.
    pub(super) fn of(
        session: &ServerSession,
        arrived: Instant,
        dispatch: &'a Dispatch,
        model: Arc<str>,
    ) -> Self {
        let given = || session.get_header(&REQUEST_TIMEOUT)?.to_str().ok()?.parse().ok();
        let at = given().and_then(|millis| arrived.checked_add(Duration::from_millis(millis)));
        Self { at, dispatch, model }
    }

    /// Resolves when it has passed; never where there is none. The model is looked at while the request still waits for it: one that nobody
    /// waits for is not on its way.
    pub(super) async fn passed(&self) -> Error {
        match self.at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
        Error::DeadlineExceeded { loading: self.dispatch.loading(&self.model) }
    }
}
