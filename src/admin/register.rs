//! Nodes that come and go by the admin port: `POST /admin/v1/nodes`, `PUT` and `DELETE /admin/v1/nodes/NAME`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::AdminState;
use super::router::refused;
use crate::error::Error;

/// An entry of `nodes` as it was sent.
pub type Entry = Map<String, Value>;

/// Keeps nodes that were registered, also when the process ends. Its calls wait for the disk.
pub trait Registrar: Send + Sync {
    /// Adds a node; its name.
    fn create(&self, entry: Entry) -> Result<String, NotRegistered>;
    /// Adds a node, or changes the registered one of this name; whether it is new.
    fn put(&self, name: &str, entry: Entry) -> Result<bool, NotRegistered>;
    /// Removes a node. What runs on it is finished.
    fn remove(&self, name: &str) -> Result<(), NotRegistered>;
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotRegistered {
    /// The entry has mistakes: all of them, in words.
    #[error("the entry has mistakes: {}", .0.join("; "))]
    Wrong(Vec<String>),
    /// It is there, and was to be added.
    #[error("node '{name}' is registered already; PUT changes it")]
    Taken {
        /// As it was written.
        name: String,
    },
    /// The configuration says what this node is.
    #[error("node '{name}' is in the configuration: change it there, and reload")]
    Configured {
        /// As it was written.
        name: String,
    },
    /// Nobody has registered a node of this name.
    #[error("node '{name}' not found")]
    NotFound {
        /// As it was written.
        name: String,
    },
    /// It could not be written down.
    #[error("registered nodes cannot be kept: {0}")]
    NotKept(String),
}

impl NotRegistered {
    fn status(&self) -> StatusCode {
        match self {
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::Taken { .. } | Self::Configured { .. } => StatusCode::CONFLICT,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::NotKept(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for NotRegistered {
    fn into_response(self) -> Response {
        let error = self.to_string();
        let body = match &self {
            Self::Wrong(problems) => json!({ "error": error, "problems": problems }),
            _ => json!({ "error": error }),
        };
        (self.status(), Json(body)).into_response()
    }
}

/// `POST /admin/v1/nodes` with an entry of `nodes`: 201 `{node}`; 400 `{error, problems}` for one with mistakes, 409 if it is there.
pub(super) async fn create(State(state): State<AdminState>, headers: HeaderMap, body: Bytes) -> Response {
    changed(&state, &headers, move |registrar| {
        let name = registrar.create(entry(&body)?)?;
        Ok((StatusCode::CREATED, name))
    })
    .await
}

/// `PUT /admin/v1/nodes/NAME` with an entry, which may leave its name out: 201 `{node}` if it is new, else 200.
pub(super) async fn put(
    State(state): State<AdminState>,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    changed(&state, &headers, move |registrar| {
        let is_new = registrar.put(&node, entry(&body)?)?;
        Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, node))
    })
    .await
}

/// `DELETE /admin/v1/nodes/NAME`: 200 `{node}`, 404 if it is not registered.
pub(super) async fn remove(
    State(state): State<AdminState>,
    Path(node): Path<String>,
    headers: HeaderMap,
) -> Response {
    changed(&state, &headers, move |registrar| {
        registrar.remove(&node)?;
        Ok((StatusCode::OK, node))
    })
    .await
}

/// Has the registrar change something, if who asks may.
async fn changed(
    state: &AdminState,
    headers: &HeaderMap,
    change: impl FnOnce(&dyn Registrar) -> Result<(StatusCode, String), NotRegistered> + Send + 'static,
) -> Response {
    if let Err(refusal) = state.access.check(headers) {
        return refused(&refusal);
    }
    let registrar = state.registrar.clone();
    match tokio::task::spawn_blocking(move || change(&*registrar)).await {
        Ok(Ok((status, node))) => (status, Json(json!({ "node": node }))).into_response(),
        Ok(Err(reason)) => reason.into_response(),
        Err(error) => refused(&Error::internal(error)),
    }
}

fn entry(body: &[u8]) -> Result<Entry, NotRegistered> {
    let wrong = |message: &str| NotRegistered::Wrong(vec![format!("request: {message}")]);
    match serde_json::from_slice(body) {
        Ok(Value::Object(entry)) => Ok(entry),
        Ok(_) => Err(wrong("expected a mapping")),
        Err(error) => Err(wrong(&error.to_string())),
    }
}
