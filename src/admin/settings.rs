//! `POST /admin/v1/models/NAME/settings`: changes how a model is computed while it is, until its workers start again.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::AdminState;
use super::router::{error, refused};
use crate::dispatch::Dispatch;
use crate::error::Error;
use crate::generation::seam::{Change, Settings};

/// Changes the settings of the model of this name and tells those in force, by worker.
pub type ChangeSettings =
    Arc<dyn Fn(String, Change) -> BoxFuture<'static, Result<Vec<(Arc<str>, Settings)>, Error>> + Send + Sync>;

/// Changes what runs on the nodes of `dispatch`.
pub fn change_settings(dispatch: Arc<Dispatch>) -> ChangeSettings {
    Arc::new(move |name, change| {
        let dispatch = Arc::clone(&dispatch);
        Box::pin(async move {
            let target = dispatch.find(&name)?.ok_or(Error::ModelNotFound { name })?;
            dispatch.change(&target, &change).await
        })
    })
}

/// Takes a [`Change`], of which `{}` only asks; answers `{model, workers: {NAME: Settings}}`. 409 while the model is not in memory.
pub(super) async fn settings(
    State(state): State<AdminState>,
    Path(model): Path<String>,
    headers: HeaderMap,
    change: Result<Json<Change>, JsonRejection>,
) -> Response {
    // A page in somebody's browser must not change anything: it cannot send JSON unasked, nor under this machine's name.
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let change = match change {
        Ok(Json(change)) => change,
        Err(rejection) => return error(rejection.status(), &rejection.body_text()),
    };
    match (state.change_settings)(model.clone(), change).await {
        Ok(workers) if workers.is_empty() => {
            let message =
                format!("model '{model}' is not in memory: it starts with the settings of the config");
            error(StatusCode::CONFLICT, &message)
        }
        Ok(workers) => {
            let workers = workers.into_iter().map(|(name, settings)| (name.to_string(), json!(settings)));
            Json(json!({ "model": model, "workers": workers.collect::<Map<String, Value>>() }))
                .into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}
