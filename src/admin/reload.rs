//! `POST /admin/v1/reload`: takes a changed configuration while requests run.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::AdminState;
use super::router::refused;
use crate::config::Difference;

/// Puts the configuration in force that there is now, and tells what that changes.
pub type Reload = Arc<dyn Fn() -> Result<Vec<Difference>, NotReloaded> + Send + Sync>;

/// Why a configuration was not taken. Everything is as it was.
#[derive(Clone, Debug, PartialEq)]
pub enum NotReloaded {
    /// It has mistakes: all of them, in words.
    Wrong(Vec<String>),
    /// It changes what takes a restart.
    NeedsRestart(Vec<String>),
}

impl NotReloaded {
    fn lines(&self) -> &[String] {
        match self {
            Self::Wrong(lines) | Self::NeedsRestart(lines) => lines,
        }
    }
}

impl fmt::Display for NotReloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(lines) => write!(f, "the configuration has mistakes: {}", lines.join("; ")),
            Self::NeedsRestart(lines) => write!(f, "this takes a restart: {}", lines.join("; ")),
        }
    }
}

/// Answers `{changed: ["routing.strategy: ..."]}`; 400 with `{error, problems}` for a configuration with mistakes, 409 for one that takes a
/// restart.
pub(super) async fn reload(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    // It reads files.
    let reloaded = tokio::task::spawn_blocking(move || (state.reload)()).await;
    match reloaded.unwrap_or_else(|error| Err(NotReloaded::Wrong(vec![error.to_string()]))) {
        Ok(differences) => {
            let changed: Vec<_> = differences.iter().map(ToString::to_string).collect();
            Json(json!({ "changed": changed })).into_response()
        }
        Err(reason) => {
            let status = match reason {
                NotReloaded::Wrong(_) => StatusCode::BAD_REQUEST,
                NotReloaded::NeedsRestart(_) => StatusCode::CONFLICT,
            };
            let body = json!({ "error": reason.to_string(), "problems": reason.lines() });
            (status, Json(body)).into_response()
        }
    }
}
