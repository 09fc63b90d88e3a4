//! Response heads, and answers that are one piece.

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, AGE, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY, VIA};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::{Context, Proxy, body, header};
use crate::dialect::{Dialect, refusal_body};
use crate::error::Error;

/// As Ollama has it.
pub(super) const JSON: &str = "application/json; charset=utf-8";
/// As Ollama has it for `GET /`.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// As many headers as most answers have, Pingora's two included.
const HEADERS: usize = 12;

/// Puts in what every response carries: the request's id, CORS for an allowed origin, and where the answer came from.
pub(super) fn decorate(headers: &mut HeaderMap, ctx: &Context, arriero_headers: bool) {
    let mut put = |name: &HeaderName, value| drop(headers.insert(name, value));
    put(&header::REQUEST_ID, text(&ctx.id));
    if let Some(origin) = &ctx.origin {
        put(&ACCESS_CONTROL_ALLOW_ORIGIN, text(origin));
        put(&VARY, HeaderValue::from_static("Origin"));
    }
    let Some(route) = &ctx.route else { return };
    if let Some(age) = route.age {
        put(&AGE, age.as_secs().into());
    }
    if !arriero_headers {
        return;
    }
    put(&header::NODE, text(&route.node));
    if let Some(model) = &route.fallback {
        put(&header::FALLBACK, text(model));
    }
    if let Some(rung) = route.rung() {
        put(&header::RUNG, text(&rung));
    }
    put(&header::CACHE, HeaderValue::from_static(ctx.source.as_str()));
    if let Some(similarity) = route.similarity {
        put(&header::SIMILARITY, text(&format!("{similarity:.3}")));
    }
    put(&header::ATTEMPTS, route.attempts.into());
    put(&header::QUEUE_MS, u64::try_from(route.queued.as_millis()).unwrap_or(u64::MAX).into());
}

/// A value; what cannot be one, a name with control characters in it, is empty.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

/// A response head with a content type. Not Pingora's own: names that it is given as text are parsed, kept twice and looked up twice.
pub(super) fn head(proxy: &Proxy, ctx: &Context, status: StatusCode, content_type: &'static str) -> Parts {
    let mut head = empty(status);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    decorate(&mut head.headers, ctx, proxy.headers);
    if !ctx.via.is_empty() {
        // Whoever sent it is an Arriero too, and must know whom it has asked.
        head.headers.insert(VIA, text(&proxy.dispatch.via()));
    }
    head
}

/// One without headers, with room for those that most answers have.
pub(super) fn empty(status: StatusCode) -> Parts {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    head.headers.reserve(HEADERS);
    head
}

/// Sends a head.
pub(super) async fn begin(session: &mut ServerSession, head: Parts) -> pingora::Result<()> {
    session.write_response_header(Box::new(ResponseHeader::from(head))).await
}

/// Answers with one piece.
pub(super) async fn whole(
    session: &mut ServerSession,
    mut head: Parts,
    body: impl Into<Bytes>,
) -> pingora::Result<()> {
    let body = body.into();
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    let is_head = session.req_header().method == Method::HEAD;
    begin(session, head).await?;
    if !is_head && !body.is_empty() {
        session.write_response_body(body, true).await?;
    }
    Ok(())
}

/// Answers 200 with JSON.
pub(super) async fn json(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &Context,
    body: Vec<u8>,
) -> pingora::Result<()> {
    let head = head(proxy, ctx, StatusCode::OK, JSON);
    whole(session, head, body).await
}

/// Answers with an error in the caller's dialect and notes it for the journal. Who has waited for a model on its way is told how far that is.
pub(super) async fn error(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    error: Error,
) -> pingora::Result<()> {
    ctx.outcome = error.code();
    if !session.is_body_done() {
        body::discard(session).await;
    }
    let model = ctx.model.as_ref().filter(|_| error.may_be_for_a_load());
    let loading = error.loading().or_else(|| proxy.dispatch.loading(model?));
    let (content_type, body) = match (&error, ctx.dialect) {
        // Ollama's router answers these in plain text.
        (Error::NoSuchPath | Error::MethodNotAllowed, Dialect::Ollama) => {
            ("text/plain", error.to_string().into_bytes())
        }
        _ => ("application/json", refusal_body(ctx.dialect, &error, loading.as_ref())),
    };
    let mut head = head(proxy, ctx, error.status(), content_type);
    let after = loading.and_then(|loading| loading.retry_after());
    if let Some(after) = after.or_else(|| error.retry_after()) {
        head.headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
    }
    ctx.error = Some(error);
    whole(session, head, body).await
}
