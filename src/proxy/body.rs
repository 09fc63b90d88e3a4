//! Reading the client's request body whole, up to a cap.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora::protocols::http::ServerSession;

use crate::error::Error;

/// Most of a refused body that is read and thrown away.
const DISCARDED: usize = 1 << 20;
/// And for how long.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Why there is no body.
pub(super) enum NoBody {
    /// The request is at fault.
    Refused(Error),
    /// The connection broke; there is nobody to answer.
    Gone(Box<pingora::Error>),
}

/// The whole request body. Asks for it first where the client waits to be asked (`Expect: 100-continue`).
pub(super) async fn read(session: &mut ServerSession, limit: u64) -> Result<Bytes, NoBody> {
    let announced = session.get_header(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(NoBody::Refused(Error::BodyTooLarge { limit }));
    }
    let waits =
        session.get_header(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if waits {
        session.write_continue_response().await.map_err(NoBody::Gone)?;
    }
    let Some(first) = session.read_request_body().await.map_err(NoBody::Gone)? else {
        return Ok(Bytes::new());
    };
    if announced == u64::try_from(first.len()).ok() {
        // The common case: it came in one piece and is not copied. The reader must still see the end of the body.
        let rest = session.read_request_body().await.map_err(NoBody::Gone)?;
        debug_assert!(rest.is_none_or(|rest| rest.is_empty()));
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    let too_large = |length: usize| u64::try_from(length).is_ok_and(|length| length > limit);
    if too_large(body.len()) {
        return Err(NoBody::Refused(Error::BodyTooLarge { limit }));
    }
    while let Some(chunk) = session.read_request_body().await.map_err(NoBody::Gone)? {
        if too_large(body.len() + chunk.len()) {
            return Err(NoBody::Refused(Error::BodyTooLarge { limit }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads what the client still sends, within limits, so that an early answer is not lost to a connection reset: closing a
/// socket with unread bytes throws away what was written to it.
pub(super) async fn discard(session: &mut ServerSession) {
    if waits_to_be_asked(session) {
        return;
    }
    let mut left = DISCARDED;
    let reading = async {
        while let Ok(Some(chunk)) = session.read_request_body().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whoever sends for longer will see the connection close; there is nothing to be told about it here.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

fn waits_to_be_asked(session: &ServerSession) -> bool {
    session.get_header(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
