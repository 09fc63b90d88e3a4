//! The routes of the admin port.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::cache::{self, Kept};
use super::load::{self, Loads};
use super::nodes::{self, Nodes};
use super::register::{self, Registrar};
use super::reload::{self, Reload};
use super::settings::{ChangeSettings, settings};
use super::snapshot::{SaveSnapshot, snapshot};
use crate::error::Error;
use crate::proxy::Access;
use crate::telemetry::Metrics;

/// What the admin port shows.
#[derive(Clone)]
pub struct AdminState {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`: `Err` says in words why requests should go elsewhere.
    pub readiness: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// For `/admin/v1/models`.
    pub models: Arc<dyn Fn() -> Value + Send + Sync>,
    /// For `/admin/v1/status`.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Who may change something.
    pub access: Arc<Access>,
    /// For `/admin/v1/models/NAME/settings`.
    pub change_settings: ChangeSettings,
    /// For `/admin/v1/reload`.
    pub reload: Reload,
    /// For `/admin/v1/cache` and what is below.
    pub kept: Kept,
    /// For `/admin/v1/nodes` and what is about them.
    pub nodes: Arc<dyn Nodes>,
    /// For nodes that come and go there.
    pub registrar: Arc<dyn Registrar>,
    /// For `/admin/v1/models/NAME/snapshot`.
    pub save_snapshot: SaveSnapshot,
    /// For `/admin/v1/models/NAME/load` and `unload`.
    pub loads: Arc<dyn Loads>,
}

/// Every route of the admin port.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("index.html"))))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/admin/v1/status", get(status))
        .route("/admin/v1/reload", post(reload::reload))
        .route("/admin/v1/nodes", get(nodes::nodes).post(register::create))
        .route("/admin/v1/nodes/{node}", put(register::put).delete(register::remove))
        .route("/admin/v1/nodes/{node}/{deed}", post(nodes::act))
        .route("/admin/v1/route/explain", post(nodes::explain))
        .route("/admin/v1/cache", get(cache::statistics).delete(cache::purge))
        .route("/admin/v1/cache/entries", get(cache::entries))
        .route("/admin/v1/cache/warm", post(cache::warm).layer(DefaultBodyLimit::max(cache::LARGEST)))
        .route("/admin/v1/cache/save", get(cache::save))
        .route("/admin/v1/cache/load", post(cache::load).layer(DefaultBodyLimit::max(cache::LARGEST)))
        .route("/admin/v1/decisions", get(nodes::decisions))
        .route("/admin/v1/models", get(models))
        .route("/admin/v1/models/{model}/load", post(load::load))
        .route("/admin/v1/models/{model}/unload", post(load::unload))
        .route("/admin/v1/models/{model}/settings", post(settings))
        .route("/admin/v1/models/{model}/snapshot", post(snapshot))
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"))
        .with_state(state)
}

async fn readyz(State(state): State<AdminState>) -> Response {
    match (state.readiness)() {
        Ok(()) => "ok".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    state.nodes.show_shares();
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, &cause.to_string()),
    }
}

async fn models(State(state): State<AdminState>) -> Json<Value> {
    Json((state.models)())
}

async fn status(State(state): State<AdminState>) -> Json<Value> {
    Json((state.status)())
}

pub(super) fn refused(refusal: &Error) -> Response {
    error(refusal.status(), &refusal.to_string())
}

pub(super) fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

#[cfg(test)]
mod tests;
