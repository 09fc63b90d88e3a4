//! What this process says about itself and its models: no node is asked, nothing waits.

use std::sync::Arc;

use http::StatusCode;
use pingora_proxy::Session;
use time::OffsetDateTime;

use super::{Context, Proxy, reply};
use crate::dialect::{Endpoint, LoadedModel, ModelCard, ollama, openai};
use crate::dispatch::Dispatch;
use crate::error::Error;

/// Answers an endpoint that needs no body.
pub(super) async fn serve(
    proxy: &Proxy,
    session: &mut Session,
    ctx: &mut Context,
    endpoint: &Endpoint,
) -> pingora::Result<()> {
    let body = match endpoint {
        Endpoint::Root => {
            let head = reply::head(proxy, ctx, StatusCode::OK, reply::TEXT)?;
            return reply::whole(session, head, "Ollama is running").await;
        }
        Endpoint::Health => return health(proxy, session, ctx).await,
        Endpoint::Version => ollama::version(),
        Endpoint::Tags => ollama::tags(&proxy.dispatch.cards()),
        Endpoint::Ps => ollama::ps(&proxy.dispatch.loaded(), OffsetDateTime::now_utc()),
        Endpoint::Models => openai::models(&proxy.dispatch.cards()),
        Endpoint::ModelById(id) => match proxy.dispatch.card(id) {
            Ok(card) => openai::model(id, &card),
            Err(error) => return reply::error(proxy, session, ctx, error).await,
        },
        _ => {
            let endpoint = session.req_header().uri.path().to_owned();
            return reply::error(proxy, session, ctx, Error::NotImplemented { endpoint }).await;
        }
    };
    reply::json(proxy, session, ctx, body).await
}

/// `POST /api/show`
pub(super) async fn show(
    proxy: &Proxy,
    session: &mut Session,
    ctx: &mut Context,
    body: &[u8],
) -> pingora::Result<()> {
    let shown = ollama::parse_show(body)
        .and_then(|show| Ok(ollama::show(&*proxy.dispatch.card(&show.model)?, &show)));
    match shown {
        Ok(body) => reply::json(proxy, session, ctx, body).await,
        Err(error) => reply::error(proxy, session, ctx, error).await,
    }
}

/// As llama-server has it: 503 while nothing can be served.
async fn health(proxy: &Proxy, session: &mut Session, ctx: &mut Context) -> pingora::Result<()> {
    let (status, body) = match (proxy.readiness)() {
        Ok(()) => (StatusCode::OK, serde_json::json!({ "status": "ok" })),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            serde_json::json!({ "status": "unavailable", "reason": reason }),
        ),
    };
    let head = reply::head(proxy, ctx, status, reply::JSON)?;
    reply::whole(session, head, body.to_string()).await
}

impl Dispatch {
    /// What can be asked for. A model whose file cannot be read is left out: it cannot be asked for.
    fn cards(&self) -> Vec<ModelCard> {
        self.models().iter().filter_map(|model| Some(ModelCard::clone(&*model.card().ok()?))).collect()
    }

    fn card(&self, name: &str) -> Result<Arc<ModelCard>, Error> {
        let target = self.find(name)?.ok_or_else(|| Error::ModelNotFound { name: name.to_owned() })?;
        let model = target.model.ok_or_else(|| Error::ModelNotFound { name: name.to_owned() })?;
        model.card().map_err(|reason| Error::LoadFailed { model: model.name.clone(), reason })
    }

    fn loaded(&self) -> Vec<LoadedModel> {
        let loaded = self.supervisor().loaded().into_iter();
        loaded
            .filter_map(|loaded| {
                Some(LoadedModel {
                    card: ModelCard::clone(&*loaded.model.card().ok()?),
                    memory: loaded.memory,
                    device_memory: loaded.device_memory,
                    expires: loaded.expires.map(OffsetDateTime::from),
                    context: u64::from(loaded.context),
                })
            })
            .collect()
    }
}
