//! What this process says about itself and its models: no node is asked, nothing waits but for the disk.

use std::sync::Arc;

use http::StatusCode;
use pingora::protocols::http::ServerSession;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{Context, Proxy, reply};
use crate::dialect::{Endpoint, ollama, openai};
use crate::dispatch::Dispatch;
use crate::error::Error;
use crate::node::Via;

/// A card in full can take some 100 MB until it is written down, so there is one at a time.
static FULL_CARD: Mutex<()> = Mutex::const_new(());

/// Answers an endpoint that needs no body.
pub(super) async fn serve(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    endpoint: &Endpoint,
) -> pingora::Result<()> {
    match endpoint {
        Endpoint::Root => {
            let head = reply::head(proxy, ctx, StatusCode::OK, reply::TEXT);
            return reply::whole(session, head, "Ollama is running").await;
        }
        Endpoint::Health => return health(proxy, session, ctx).await,
        Endpoint::Version => return reply::json(proxy, session, ctx, ollama::version()).await,
        _ => {}
    }
    let wanted = endpoint.clone();
    let path = session.req_header().uri.path().to_owned();
    let via = ctx.via.clone();
    let told = off_thread(proxy, move |dispatch| tell(dispatch, &wanted, path, &via)).await;
    reply_with(proxy, session, ctx, told).await
}

fn tell(dispatch: &Dispatch, endpoint: &Endpoint, path: String, via: &Via) -> Result<Vec<u8>, Error> {
    Ok(match endpoint {
        Endpoint::Tags => ollama::tags(&dispatch.cards(via)),
        Endpoint::Ps => ollama::ps(&dispatch.loaded(), &dispatch.arriving(), OffsetDateTime::now_utc()),
        Endpoint::Models => openai::models(&dispatch.cards(via)),
        Endpoint::ModelById(id) => openai::model(id, &*dispatch.card(id, false)?),
        _ => return Err(Error::NotImplemented { endpoint: path }),
    })
}

/// `POST /api/show`
pub(super) async fn show(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    body: &[u8],
) -> pingora::Result<()> {
    let shown = match ollama::parse_show(body) {
        Ok(show) => {
            let _turn = if show.verbose { Some(FULL_CARD.lock().await) } else { None };
            let tell = move |dispatch: &Dispatch| {
                Ok(ollama::show(&*dispatch.card(&show.model, show.verbose)?, &show))
            };
            off_thread(proxy, tell).await
        }
        Err(error) => Err(error),
    };
    reply_with(proxy, session, ctx, shown).await
}

/// Asks where waiting for the disk keeps no other request from being served.
async fn off_thread(
    proxy: &Proxy,
    ask: impl FnOnce(&Dispatch) -> Result<Vec<u8>, Error> + Send + 'static,
) -> Result<Vec<u8>, Error> {
    let dispatch = Arc::clone(&proxy.dispatch);
    tokio::task::spawn_blocking(move || ask(&dispatch)).await.map_err(Error::internal)?
}

async fn reply_with(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    answer: Result<Vec<u8>, Error>,
) -> pingora::Result<()> {
    match answer {
        Ok(body) => reply::json(proxy, session, ctx, body).await,
        Err(error) => reply::error(proxy, session, ctx, error).await,
    }
}

/// As llama-server has it: 503 while nothing can be served.
async fn health(proxy: &Proxy, session: &mut ServerSession, ctx: &mut Context) -> pingora::Result<()> {
    let (status, body) = match (proxy.readiness)() {
        Ok(()) => (StatusCode::OK, serde_json::json!({ "status": "ok" })),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            serde_json::json!({ "status": "unavailable", "reason": reason }),
        ),
    };
    let head = reply::head(proxy, ctx, status, reply::JSON);
    reply::whole(session, head, body.to_string()).await
}
