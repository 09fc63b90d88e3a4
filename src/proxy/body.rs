//! Reading the client's request body whole, up to a cap.

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use pingora_proxy::Session;

use crate::error::Error;

/// Why there is no body.
pub(super) enum NoBody {
    /// The request is at fault.
    Refused(Error),
    /// The connection broke; there is nobody to answer.
    Gone(Box<pingora::Error>),
}

/// The whole request body. Asks for it first where the client waits to be asked (`Expect: 100-continue`).
pub(super) async fn read(session: &mut Session, limit: u64) -> Result<Bytes, NoBody> {
    let announced = session.get_header("content-length").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(NoBody::Refused(Error::BodyTooLarge { limit }));
    }
    let waits =
        session.get_header(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let downstream = session.as_downstream_mut();
    if waits {
        downstream.write_continue_response().await.map_err(NoBody::Gone)?;
    }
    let Some(first) = downstream.read_request_body().await.map_err(NoBody::Gone)? else {
        return Ok(Bytes::new());
    };
    if announced == u64::try_from(first.len()).ok() {
        // The common case: it came in one piece and is not copied. The reader must still see the end of the body.
        let rest = downstream.read_request_body().await.map_err(NoBody::Gone)?;
        debug_assert!(rest.is_none_or(|rest| rest.is_empty()));
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    while let Some(chunk) = downstream.read_request_body().await.map_err(NoBody::Gone)? {
        let length = u64::try_from(body.len() + chunk.len()).unwrap_or(u64::MAX);
        if length > limit {
            return Err(NoBody::Refused(Error::BodyTooLarge { limit }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
