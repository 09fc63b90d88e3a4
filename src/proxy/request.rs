//! One request that Arriero answers itself: access, endpoint, body, and then whoever answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, CONTENT_LENGTH, CONTENT_TYPE, VIA,
};
use http::{HeaderValue, Method, StatusCode};
use pingora::ErrorType;
use pingora::protocols::http::{ReusableHttpStream, ServerSession};

use super::body::{self, NoBody};
use super::{Context, Proxy, access, answer, header, info, journal, reply};
use crate::dialect::{Dialect, Endpoint, error_body};
use crate::error::Error;
use crate::node::Via;

/// Longest request id taken over from a client.
const ID_LIMIT: usize = 128;

/// Answers one request. Returns the connection if another can follow on it.
pub(super) async fn serve(proxy: &Proxy, mut session: Box<ServerSession>) -> Option<ReusableHttpStream> {
    let read = session.read_request().await;
    if let Ok(false) = read {
        // The client closed it between two requests.
        return None;
    }
    let mut ctx = Context::new(proxy.active.token());
    let answered = match &read {
        Ok(_) => answer(proxy, &mut session, &mut ctx).await,
        Err(error) => {
            malformed(&mut session, error, &mut ctx).await;
            Ok(())
        }
    };
    if let Err(error) = &answered {
        failed(proxy, &mut session, error, &mut ctx).await;
    }
    journal::write(proxy, &session, answered.as_ref().err().map(AsRef::as_ref), &mut ctx);
    if read.is_err() || answered.is_err() {
        session.shutdown().await;
        return None;
    }
    session.finish().await.ok().flatten()
}

/// Answers bytes that are no request, as far as somebody is there; which API they were meant for is not known.
async fn malformed(session: &mut ServerSession, error: &pingora::Error, ctx: &mut Context) {
    ctx.outcome = "cancelled";
    if !matches!(error.etype(), ErrorType::InvalidHTTPHeader) {
        return;
    }
    let answer = Error::invalid("not an HTTP/1.1 request");
    ctx.outcome = answer.code();
    let body = error_body(ctx.dialect, &answer);
    let mut head = reply::empty(answer.status());
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    // Whoever sent it may be gone by now.
    let _ = session.write_error_response(head.into(), body.into()).await;
    ctx.error = Some(answer);
}

async fn answer(proxy: &Proxy, session: &mut ServerSession, ctx: &mut Context) -> pingora::Result<()> {
    // Bytes of a next request on the connection are no sign that this client has left; they cost the chance to see it leave.
    session.set_pipelining_enabled(true);
    if !admit(proxy, session, ctx).await? {
        return Ok(());
    }
    let request = session.req_header();
    let endpoint = match Endpoint::of(&request.method, request.uri.path()) {
        Ok(endpoint) => endpoint,
        Err(error) => return reply::error(proxy, session, ctx, error).await,
    };
    ctx.endpoint = endpoint.as_str();
    answered(proxy, session, ctx, &endpoint).await
}

/// Notes who asks, and checks whether they may. False: they were answered.
pub(super) async fn admit(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
) -> pingora::Result<bool> {
    session.set_write_timeout(Some(proxy.limits.client_write));
    let request = session.req_header();
    ctx.dialect = Dialect::of(request.uri.path());
    ctx.id = request_id(request.headers.get(&header::REQUEST_ID));
    ctx.via = Via::read(request.headers.get_all(VIA).iter().filter_map(|field| field.to_str().ok()));
    let is_preflight = request.method == Method::OPTIONS;
    match proxy.access.check(&request.headers) {
        Ok(origin) => ctx.origin = origin,
        Err(error) => return reply::error(proxy, session, ctx, error).await.map(|()| false),
    }
    if is_preflight {
        return preflight(session, ctx).await.map(|()| false);
    }
    Ok(true)
}

/// The client or its connection is at fault for the end of a request. Tells it so, if it is there and was not told anything.
pub(super) async fn failed(
    proxy: &Proxy,
    session: &mut ServerSession,
    error: &pingora::Error,
    ctx: &mut Context,
) {
    let is_gone =
        matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed);
    if is_gone || session.response_written().is_some() {
        ctx.outcome = "cancelled";
        return;
    }
    let answer = Error::invalid("the request body cannot be read");
    session.set_keepalive(None);
    if let Err(error) = reply::error(proxy, session, ctx, answer).await {
        tracing::debug!(%error, "the client left before it could be told");
    }
}

async fn answered(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    endpoint: &Endpoint,
) -> pingora::Result<()> {
    if !endpoint.takes_body() {
        return info::serve(proxy, session, ctx, endpoint).await;
    }
    let body = match body::read(session, proxy.limits.body).await {
        Ok(body) => body,
        Err(NoBody::Refused(error)) => return reply::error(proxy, session, ctx, error).await,
        Err(NoBody::Gone(error)) => {
            ctx.outcome = "cancelled";
            return Err(error);
        }
    };
    match endpoint {
        Endpoint::Show => info::show(proxy, session, ctx, &body).await,
        _ => answer::serve(proxy, session, ctx, endpoint, body).await,
    }
}

async fn preflight(session: &mut ServerSession, ctx: &Context) -> pingora::Result<()> {
    let mut head = reply::empty(StatusCode::NO_CONTENT);
    head.headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(access::METHODS));
    head.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(access::HEADERS));
    reply::decorate(&mut head.headers, ctx, false);
    reply::begin(session, head).await
}

/// The client's id if it is printable and short, else a new one.
fn request_id(sent: Option<&http::HeaderValue>) -> String {
    let usable =
        |id: &&str| !id.is_empty() && id.len() <= ID_LIMIT && id.bytes().all(|byte| byte.is_ascii_graphic());
    match sent.and_then(|value| value.to_str().ok()).filter(usable) {
        Some(id) => id.to_owned(),
        None => hex(rand::random()),
    }
}

/// Sixteen digits. By hand, because every request has one.
fn hex(number: u64) -> String {
    let digit = |place: u32| char::from(b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xf]);
    let mut digits = String::with_capacity(16);
    digits.extend((0..16).rev().map(digit));
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_sixteen_digits() {
        for number in [0, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hex(number), format!("{number:016x}"));
        }
    }
}
