//! `POST /admin/v1/models/NAME/snapshot`: has a model's workers save to disk what they hold.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::AdminState;
use super::router::refused;
use crate::dispatch::Dispatch;
use crate::error::Error;
use crate::generation::seam::Saved;

/// Has the workers of the model of this name save what they hold, and tells what each has written.
pub type SaveSnapshot =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<(Arc<str>, Saved)>, Error>> + Send + Sync>;

/// Saves what the nodes of `dispatch` hold.
pub fn save_snapshot(dispatch: Arc<Dispatch>) -> SaveSnapshot {
    Arc::new(move |name| {
        let dispatch = Arc::clone(&dispatch);
        Box::pin(async move { dispatch.snapshot(&name).await })
    })
}

/// Answers `{model, workers: {NAME: {snapshots, tokens, bytes}}}`; what was on disk already is not written again.
pub(super) async fn snapshot(
    State(state): State<AdminState>,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Response {
    // A page in somebody's browser must not have anything written.
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    match (state.save_snapshot)(model.clone()).await {
        Ok(workers) => {
            let workers = workers.into_iter().map(|(name, saved)| (name.to_string(), json!(saved)));
            Json(json!({ "model": model, "workers": workers.collect::<Map<String, Value>>() }))
                .into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}
