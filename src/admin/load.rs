//! `POST /admin/v1/models/NAME/load` and `.../unload`: has a model come into memory or leave it, whoever asks for it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use super::AdminState;
use super::router::{error, refused};
use crate::dispatch::{Dispatch, Target};
use crate::error::Error;
use crate::units::KeepAlive;

/// What can have models come and go.
pub trait Loads: Send + Sync {
    /// Loads the model of this name, as if a request had asked for it that says how long it stays, and waits until it is there.
    fn load(&self, name: String, keep_alive: Option<KeepAlive>) -> BoxFuture<'_, Result<(), Error>>;
    /// Has the model of this name leave when nobody uses it.
    fn unload(&self, name: String) -> Result<(), Error>;
}

impl Loads for Dispatch {
    fn load(&self, name: String, keep_alive: Option<KeepAlive>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { Dispatch::load(self, &own(self, name)?, keep_alive).await })
    }

    fn unload(&self, name: String) -> Result<(), Error> {
        Dispatch::unload(self, &own(self, name)?);
        Ok(())
    }
}

/// What `name` means; that of another server is not this one's to load.
fn own(dispatch: &Dispatch, name: String) -> Result<Target, Error> {
    match dispatch.find(&name)? {
        Some(target) if target.model.is_some() => Ok(target),
        Some(_) => Err(Error::invalid(format!("model '{name}' is loaded by the node that serves it"))),
        None => Err(Error::ModelNotFound { name }),
    }
}

/// How it is loaded.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct How {
    keep_alive: Option<String>,
}

/// `POST /admin/v1/models/NAME/load?keep_alive=1h`: answers `{model}` when it takes requests, 503 or 500 if it cannot. Who leaves meanwhile
/// does not stop a load that has begun.
pub(super) async fn load(
    State(state): State<AdminState>,
    Path(model): Path<String>,
    how: Result<Query<How>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let keep_alive = match how {
        Ok(Query(how)) => how.keep_alive.map(|text| text.parse::<KeepAlive>()).transpose(),
        Err(rejection) => return error(rejection.status(), &rejection.body_text()),
    };
    let keep_alive = match keep_alive {
        Ok(keep_alive) => keep_alive,
        Err(fault) => return error(StatusCode::BAD_REQUEST, &format!("keep_alive: {fault}")),
    };
    match state.loads.load(model.clone(), keep_alive).await {
        Ok(()) => Json(json!({ "model": model })).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// `POST /admin/v1/models/NAME/unload`: answers `{model}` at once; it leaves when what runs has ended. What is pinned stays.
pub(super) async fn unload(
    State(state): State<AdminState>,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    match state.loads.unload(model.clone()) {
        Ok(()) => Json(json!({ "model": model })).into_response(),
        Err(refusal) => refused(&refusal),
    }
}
