//! Response heads, and answers that are one piece.

use bytes::Bytes;
use http::header::VIA;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::{Context, Proxy, body};
use crate::dialect::{Dialect, refusal_body};
use crate::error::Error;

/// As Ollama has it.
pub(super) const JSON: &str = "application/json; charset=utf-8";
/// As Ollama has it for `GET /`.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Adds what every response carries: the request's id, CORS for an allowed origin, and where the answer came from.
pub(super) fn decorate(
    head: &mut ResponseHeader,
    ctx: &Context,
    arriero_headers: bool,
) -> pingora::Result<()> {
    head.insert_header("X-Request-Id", &ctx.id)?;
    if let Some(origin) = &ctx.origin {
        head.insert_header("Access-Control-Allow-Origin", origin)?;
        head.append_header("Vary", "Origin")?;
    }
    if let Some(age) = ctx.route.as_ref().and_then(|route| route.age) {
        head.insert_header("Age", age.as_secs().to_string())?;
    }
    if let (true, Some(route)) = (arriero_headers, &ctx.route) {
        head.insert_header("X-Arriero-Node", &*route.node)?;
        if let Some(model) = &route.fallback {
            head.insert_header("X-Arriero-Fallback", &**model)?;
        }
        if let Some(rung) = route.rung() {
            head.insert_header("X-Arriero-Rung", rung)?;
        }
        head.insert_header("X-Arriero-Cache", ctx.source.as_str())?;
        if let Some(similarity) = route.similarity {
            head.insert_header("X-Arriero-Similarity", format!("{similarity:.3}"))?;
        }
        head.insert_header("X-Arriero-Attempts", route.attempts)?;
        head.insert_header("X-Arriero-Queue-Ms", route.queued.as_millis().to_string())?;
    }
    Ok(())
}

/// A response head with a content type.
pub(super) fn head(
    proxy: &Proxy,
    ctx: &Context,
    status: StatusCode,
    content_type: &str,
) -> pingora::Result<Box<ResponseHeader>> {
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header("Content-Type", content_type)?;
    decorate(&mut head, ctx, proxy.headers)?;
    if !ctx.via.is_empty() {
        // Whoever sent it is an Arriero too, and must know whom it has asked.
        head.insert_header(VIA, proxy.dispatch.via())?;
    }
    Ok(Box::new(head))
}

/// Answers with one piece.
pub(super) async fn whole(
    session: &mut ServerSession,
    mut head: Box<ResponseHeader>,
    body: impl Into<Bytes>,
) -> pingora::Result<()> {
    let body = body.into();
    head.insert_header("Content-Length", body.len().to_string())?;
    let is_head = session.req_header().method == Method::HEAD;
    session.write_response_header(head).await?;
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
    let head = head(proxy, ctx, StatusCode::OK, JSON)?;
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
    let mut head = head(proxy, ctx, error.status(), content_type)?;
    let after = loading.and_then(|loading| loading.retry_after());
    if let Some(after) = after.or_else(|| error.retry_after()) {
        head.insert_header("Retry-After", after.as_secs().max(1).to_string())?;
    }
    ctx.error = Some(error);
    whole(session, head, body).await
}
