//! `/admin/v1/cache`: what is kept of answers, throwing it away, and having answers made before anybody asks for them.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::AdminState;
use super::router::{error, refused};
use crate::cache::{Responses, Vectors, Which};
use crate::dispatch::{Dispatch, Warmed};

/// The largest file of entries, or of requests.
pub(super) const LARGEST: usize = 1 << 30;
/// Entries that are shown where nobody says how many, and at most.
const ENTRIES: usize = 100;
const MOST_ENTRIES: usize = 10_000;

/// What is kept, and the way to have more.
#[derive(Clone)]
pub struct Kept {
    /// Texts.
    pub responses: Arc<Responses>,
    /// Vectors.
    pub vectors: Arc<Vectors>,
    /// The name that a model's answers are kept under, by any name that means it.
    pub spelling: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Runs requests, one `{path, body}` a line, so that their answers are kept.
    pub warm: Arc<dyn Fn(Bytes) -> BoxFuture<'static, Warmed> + Send + Sync>,
}

/// What `dispatch` keeps.
pub fn kept(dispatch: &Arc<Dispatch>) -> Kept {
    let (warming, knowing) = (Arc::clone(dispatch), Arc::clone(dispatch));
    Kept {
        responses: Arc::clone(dispatch.responses()),
        vectors: Arc::clone(dispatch.vectors()),
        spelling: Arc::new(move |name| {
            let known = knowing.find(name).ok().flatten();
            known.map_or_else(|| name.to_owned(), |target| target.name.to_string())
        }),
        warm: Arc::new(move |lines| {
            let dispatch = Arc::clone(&warming);
            Box::pin(async move { dispatch.warm(&lines).await })
        }),
    }
}

/// `{tiers: [{tier, entries, bytes, budget, hits, misses, damaged, failures}], embeddings: {...}}`.
pub(super) async fn statistics(State(state): State<AdminState>) -> Json<Value> {
    #[derive(Serialize)]
    struct Embeddings {
        #[serde(flatten)]
        usage: crate::cache::Usage,
        #[serde(flatten)]
        statistics: crate::cache::Statistics,
    }
    let Kept { responses, vectors, .. } = &state.kept;
    let embeddings = Embeddings { usage: vectors.usage(), statistics: vectors.statistics() };
    Json(json!({ "tiers": responses.reports(), "embeddings": embeddings }))
}

/// Which entries.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Meant {
    model: Option<String>,
    tenant: Option<String>,
    key: Option<String>,
    limit: Option<usize>,
}

impl Meant {
    /// The models are meant by any spelling that means them.
    fn which(self, state: &AdminState) -> Result<Which, String> {
        let key = self.key.map(|key| key.parse()).transpose().map_err(|fault| format!("key {fault}"))?;
        let model = self.model.map(|name| (state.kept.spelling)(&name));
        Ok(Which { model, tenant: self.tenant, key })
    }
}

/// `{TIER: [{key, model, tenant, created, expires, bytes}]}`, for tiers that can tell.
pub(super) async fn entries(State(state): State<AdminState>, Query(meant): Query<Meant>) -> Response {
    let most = meant.limit.unwrap_or(ENTRIES).min(MOST_ENTRIES);
    match meant.which(&state) {
        Ok(which) => Json(json!(state.kept.responses.entries(&which, most))).into_response(),
        Err(fault) => error(StatusCode::BAD_REQUEST, &fault),
    }
}

/// Throws away; without parameters everything, embeddings too. `{purged: {TIER: COUNT}}`.
pub(super) async fn purge(
    State(state): State<AdminState>,
    Query(meant): Query<Meant>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let which = match meant.which(&state) {
        Ok(which) => which,
        Err(fault) => return error(StatusCode::BAD_REQUEST, &fault),
    };
    let purged = state.kept.responses.purge(&which).await;
    let mut purged: Map<String, Value> =
        purged.into_iter().map(|(tier, count)| (tier.to_owned(), count.into())).collect();
    if which.key.is_none() {
        purged.insert("embeddings".to_owned(), state.kept.vectors.purge(&which).into());
    }
    Json(json!({ "purged": purged })).into_response()
}

/// Takes lines of `{path, body}`; `{done, failed: [{line, error}]}` once all have been answered.
pub(super) async fn warm(State(state): State<AdminState>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    Json((state.kept.warm)(body).await).into_response()
}

/// Everything in memory, as a file for [`load`]. It has texts in it, so no page in somebody's browser gets it.
pub(super) async fn save(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let responses = Arc::clone(&state.kept.responses);
    match tokio::task::spawn_blocking(move || responses.save()).await {
        Ok(archive) => ([(header::CONTENT_TYPE, "application/octet-stream")], archive).into_response(),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, &cause.to_string()),
    }
}

/// Takes what [`save`] gave; `{loaded, expired, damaged}`.
pub(super) async fn load(State(state): State<AdminState>, headers: HeaderMap, archive: Bytes) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let responses = Arc::clone(&state.kept.responses);
    match tokio::task::spawn_blocking(move || responses.load(&archive, SystemTime::now())).await {
        Ok(told) => Json(told).into_response(),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, &cause.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    /// Nothing that is kept; names go by their lower case.
    pub(in crate::admin) fn nothing(metrics: &Arc<Metrics>) -> Kept {
        Kept {
            responses: Arc::new(Responses::new(&Default::default(), None, metrics).unwrap()),
            vectors: Arc::new(Vectors::new(&Default::default(), Arc::clone(metrics))),
            spelling: Arc::new(str::to_lowercase),
            warm: Arc::new(|lines| {
                let done = lines.split(|byte| *byte == b'\n').count();
                Box::pin(async move { Warmed { done, failed: Vec::new() } })
            }),
        }
    }
}
