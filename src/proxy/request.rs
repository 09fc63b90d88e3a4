//! The `request_filter` phase: access, endpoint, body, and then whoever answers.

use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::body::{self, NoBody};
use super::{Context, Proxy, access, answer, info, passthrough, reply};
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;

/// Longest request id taken over from a client.
const ID_LIMIT: usize = 128;

/// Answers the request, or returns false to send it down the native path.
pub(super) async fn filter(proxy: &Proxy, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
    let request = session.req_header();
    ctx.dialect = Dialect::of(request.uri.path());
    ctx.id = request_id(request.headers.get("x-request-id"));
    let endpoint = Endpoint::of(&request.method, request.uri.path());
    let allowed = proxy.access.check(&request.headers);
    let is_preflight = request.method == Method::OPTIONS;
    // Bytes of a next request on the connection are no sign that this client has left; they cost the chance to see it leave.
    session.as_downstream_mut().set_pipelining_enabled(true);
    session.as_downstream_mut().set_write_timeout(Some(proxy.limits.client_write));
    match allowed {
        Ok(origin) => ctx.origin = origin,
        Err(error) => return reply::error(proxy, session, ctx, error).await.map(|()| true),
    }
    if is_preflight {
        return preflight(session, ctx).await.map(|()| true);
    }
    let endpoint = match endpoint {
        Ok(Endpoint::Unbuilt) | Err(Error::NoSuchPath | Error::MethodNotAllowed)
            if proxy.passthrough.is_some() =>
        {
            ctx.endpoint = passthrough::ENDPOINT;
            return Ok(false);
        }
        Ok(endpoint) => endpoint,
        Err(error) => return reply::error(proxy, session, ctx, error).await.map(|()| true),
    };
    ctx.endpoint = endpoint.as_str();
    answered(proxy, session, ctx, &endpoint).await.map(|()| true)
}

async fn answered(
    proxy: &Proxy,
    session: &mut Session,
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
        _ => answer::serve(proxy, session, ctx, endpoint, &body).await,
    }
}

async fn preflight(session: &mut Session, ctx: &Context) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(4))?;
    head.insert_header("Access-Control-Allow-Methods", access::METHODS)?;
    head.insert_header("Access-Control-Allow-Headers", access::HEADERS)?;
    reply::decorate(&mut head, ctx, false)?;
    session.write_response_header(Box::new(head), true).await
}

/// The client's id if it is printable and short, else a new one.
fn request_id(sent: Option<&http::HeaderValue>) -> String {
    let usable =
        |id: &&str| !id.is_empty() && id.len() <= ID_LIMIT && id.bytes().all(|byte| byte.is_ascii_graphic());
    match sent.and_then(|value| value.to_str().ok()).filter(usable) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", rand::random::<u64>()),
    }
}
