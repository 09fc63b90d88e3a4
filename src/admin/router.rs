//! The routes of the admin port.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::error::Error;
use crate::telemetry::Metrics;

/// What the admin port shows.
#[derive(Clone)]
pub struct AdminState {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`: `Err` says in words why requests should go elsewhere.
    pub readiness: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// For `/admin/v1/status`.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// For `/admin/v1/models/NAME/snapshot`.
    pub snapshot: Arc<dyn Fn(String) -> BoxFuture<'static, Result<Value, Error>> + Send + Sync>,
}

/// Every route of the admin port.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("index.html"))))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/admin/v1/status", get(status))
        .route("/admin/v1/models/{model}/snapshot", post(snapshot))
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || error(StatusCode::METHOD_NOT_ALLOWED, "not with this method"))
        .with_state(state)
}

async fn readyz(State(state): State<AdminState>) -> Response {
    match (state.readiness)() {
        Ok(()) => "ok".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, &cause.to_string()),
    }
}

async fn status(State(state): State<AdminState>) -> Json<Value> {
    Json((state.status)())
}

async fn snapshot(State(state): State<AdminState>, Path(model): Path<String>) -> Response {
    match (state.snapshot)(model).await {
        Ok(saved) => Json(saved).into_response(),
        Err(cause) => error(cause.status(), &cause.to_string()),
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    use super::*;

    fn state(readiness: Result<(), String>) -> AdminState {
        AdminState {
            metrics: Arc::new(Metrics::new().unwrap()),
            readiness: Arc::new(move || readiness.clone()),
            status: Arc::new(|| json!({ "version": "1" })),
            snapshot: Arc::new(|name| {
                let known = name == "small/one";
                let answer =
                    if known { Ok(json!({ "nodes": [] })) } else { Err(Error::ModelNotFound { name }) };
                Box::pin(async { answer })
            }),
        }
    }

    async fn call(state: AdminState, method: Method, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router(state).oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(path: &str) -> (StatusCode, String, String) {
        call(state(Ok(())), Method::GET, path).await
    }

    #[tokio::test]
    async fn liveness_and_readiness_say_ok() {
        for path in ["/livez", "/readyz"] {
            let (status, _, body) = get(path).await;
            assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"), "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_not_ready_says_why_but_lives() {
        let loading = || state(Err("loading demo".to_owned()));
        let (status, _, body) = call(loading(), Method::GET, "/readyz").await;
        assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "loading demo"));
        assert_eq!(call(loading(), Method::GET, "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let (status, kind, body) = get("/metrics").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/plain; version=0.0.4"));
        assert!(body.contains("arriero_build_info{"), "{body}");
    }

    #[tokio::test]
    async fn status_is_what_was_handed_in() {
        let (status, kind, body) = get("/admin/v1/status").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/json"));
        assert_eq!(body, r#"{"version":"1"}"#);
    }

    #[tokio::test]
    async fn snapshots_are_asked_for_by_the_name_of_a_model() {
        let save = async |path| {
            let (status, _, body) = call(state(Ok(())), Method::POST, path).await;
            (status, body)
        };
        let saved = save("/admin/v1/models/small%2Fone/snapshot").await;
        assert_eq!(saved, (StatusCode::OK, r#"{"nodes":[]}"#.to_owned()));
        let unknown = (StatusCode::NOT_FOUND, r#"{"error":"model 'other' not found"}"#.to_owned());
        assert_eq!(save("/admin/v1/models/other/snapshot").await, unknown);
        assert_eq!(get("/admin/v1/models/other/snapshot").await.0, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn the_first_page_links_to_every_route() {
        let (status, kind, body) = get("/").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
        for path in ["/livez", "/readyz", "/metrics", "/admin/v1/status"] {
            assert!(body.contains(&format!("href=\"{path}\"")), "{path}");
        }
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_errors_in_json() {
        let (status, kind, body) = get("/nothing").await;
        assert_eq!((status, kind.as_str()), (StatusCode::NOT_FOUND, "application/json"));
        assert_eq!(body, r#"{"error":"no such path"}"#);
        let (status, _, body) = call(state(Ok(())), Method::POST, "/metrics").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(body, r#"{"error":"not with this method"}"#);
    }
}
