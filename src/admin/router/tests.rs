use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use tower::ServiceExt;

use super::*;
use crate::admin::register::Entry;
use crate::admin::{NotRegistered, NotReloaded};
use crate::dialect::Endpoint;
use crate::dispatch::Deed;
use crate::error::Error;
use crate::generation::seam::{Change, Saved, Settings};
use crate::units::KeepAlive;
use futures::future::BoxFuture;

const JSON: (&str, &str) = ("content-type", "application/json");

/// One node, `a`, and what was done to it.
struct One;

impl Nodes for One {
    fn list(&self) -> Value {
        json!([{ "name": "a" }])
    }

    fn show_shares(&self) {}

    fn act(&self, node: &str, deed: Deed, reason: &str) -> Result<(), Error> {
        assert_eq!((deed, reason), (Deed::Drain, "new memory"));
        if node == "a" { Ok(()) } else { Err(Error::NodeNotFound { name: node.to_owned() }) }
    }

    fn explain(&self, endpoint: &Endpoint, _: &[u8]) -> Result<Value, Error> {
        Ok(json!({ "endpoint": endpoint.as_str() }))
    }

    fn decisions(&self, count: usize) -> Value {
        json!([count])
    }
}

/// `a` is registered, and `fixed` is the configuration's.
struct Book;

impl Registrar for Book {
    fn create(&self, entry: Entry) -> Result<String, NotRegistered> {
        match entry.get("name").and_then(Value::as_str) {
            Some(name @ "a") => Err(NotRegistered::Taken { name: name.to_owned() }),
            Some(name) => Ok(name.to_owned()),
            None => Err(NotRegistered::Wrong(vec!["request: name: required, but missing".to_owned()])),
        }
    }

    fn put(&self, name: &str, _: Entry) -> Result<bool, NotRegistered> {
        match name {
            "fixed" => Err(NotRegistered::Configured { name: name.to_owned() }),
            "full" => Err(NotRegistered::NotKept("no space left".to_owned())),
            name => Ok(name != "a"),
        }
    }

    fn remove(&self, name: &str) -> Result<(), NotRegistered> {
        if name == "a" { Ok(()) } else { Err(NotRegistered::NotFound { name: name.to_owned() }) }
    }
}

/// `m` can be loaded, for an hour at most, and there is no room for `large`.
struct Shelf;

impl Loads for Shelf {
    fn load(&self, name: String, keep_alive: Option<KeepAlive>) -> BoxFuture<'_, Result<(), Error>> {
        let hour = KeepAlive::For(std::time::Duration::from_secs(3600));
        assert!(keep_alive.is_none_or(|asked| asked == hour));
        let loaded = match name.as_str() {
            "large" => {
                let (reason, eta) = ("it is large".to_owned(), std::time::Duration::from_secs(7));
                Err(Error::NoRoom { model: name, reason, eta })
            }
            _ => self.unload(name),
        };
        Box::pin(async { loaded })
    }

    fn unload(&self, name: String) -> Result<(), Error> {
        if name == "m" { Ok(()) } else { Err(Error::ModelNotFound { name }) }
    }
}

fn state(readiness: Result<(), String>) -> AdminState {
    let metrics = Arc::new(Metrics::new().unwrap());
    AdminState {
        registrar: Arc::new(Book),
        loads: Arc::new(Shelf),
        kept: cache::tests::nothing(&metrics),
        metrics,
        readiness: Arc::new(move || readiness.clone()),
        models: Arc::new(|| json!({ "models": [] })),
        status: Arc::new(|| json!({ "version": "1" })),
        access: Arc::new(Access::new(Vec::new(), [127, 0, 0, 1].into())),
        reload: Arc::new(|| Err(NotReloaded::NeedsRestart(vec!["listen: 1 -> 2".to_owned()]))),
        nodes: Arc::new(One),
        change_settings: Arc::new(|model, change| Box::pin(async move { changed(&model, change) })),
        save_snapshot: Arc::new(|name| {
            let known = name == "small/one";
            let saved = || vec![("one-0".into(), Saved { snapshots: 1, tokens: 2, bytes: 3 })];
            let answer = if known { Ok(saved()) } else { Err(Error::ModelNotFound { name }) };
            Box::pin(async { answer })
        }),
    }
}

/// A model `m` with a worker, and one that is not in memory.
fn changed(model: &str, change: Change) -> Result<Vec<(Arc<str>, Settings)>, Error> {
    match model {
        "m" => {
            Ok(vec![("m-0".into(), Settings { threads: change.threads.unwrap_or(2), ..Settings::default() })])
        }
        "idle" => Ok(Vec::new()),
        name => Err(Error::ModelNotFound { name: name.to_owned() }),
    }
}

async fn call(state: AdminState, method: Method, path: &str) -> (StatusCode, String, String) {
    send(state, Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

/// Sends a change of settings with these headers.
async fn change(model: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, String) {
    post_to(&format!("/admin/v1/models/{model}/settings"), headers, body).await
}

async fn post_to(path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, String) {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (status, _, body) = send(state(Ok(())), request.body(Body::from(body.to_owned())).unwrap()).await;
    (status, body)
}

async fn send(state: AdminState, request: Request<Body>) -> (StatusCode, String, String) {
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
async fn settings_are_changed_and_told_by_worker() {
    let (status, body) = change("m", &[JSON], r#"{"threads":1}"#).await;
    assert_eq!(status, StatusCode::OK);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["model"], &body["workers"]["m-0"]["threads"]), (&json!("m"), &json!(1)));
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused_in_words() {
    for (model, headers, body, status, words) in [
        ("idle", [JSON].as_slice(), "{}", StatusCode::CONFLICT, "not in memory"),
        ("nobody", &[JSON], "{}", StatusCode::NOT_FOUND, "model 'nobody' not found"),
        ("m", &[JSON], r#"{"colour":1}"#, StatusCode::UNPROCESSABLE_ENTITY, "unknown field `colour`"),
        (
            "m",
            &[("content-type", "text/plain")],
            "{}",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "application/json",
        ),
        ("m", &[JSON, ("host", "evil.example")], "{}", StatusCode::FORBIDDEN, "host not allowed"),
        ("m", &[JSON, ("origin", "http://evil.example")], "{}", StatusCode::FORBIDDEN, "origin not allowed"),
    ] {
        let (found, body) = change(model, headers, body).await;
        assert_eq!(found, status, "{body}");
        assert!(body.contains(words), "{body}");
    }
}

#[tokio::test]
async fn snapshots_are_asked_for_by_the_name_of_a_model() {
    let save = async |path, host| {
        let (status, body) = post_to(path, &[("host", host)], "").await;
        (status, body)
    };
    let saved = save("/admin/v1/models/small%2Fone/snapshot", "localhost").await;
    let told = r#"{"model":"small/one","workers":{"one-0":{"snapshots":1,"tokens":2,"bytes":3}}}"#;
    assert_eq!(saved, (StatusCode::OK, told.to_owned()));
    let unknown = (StatusCode::NOT_FOUND, r#"{"error":"model 'other' not found"}"#.to_owned());
    assert_eq!(save("/admin/v1/models/other/snapshot", "localhost").await, unknown);
    assert_eq!(save("/admin/v1/models/small/snapshot", "evil.example").await.0, StatusCode::FORBIDDEN);
    assert_eq!(get("/admin/v1/models/other/snapshot").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_name() {
    let send = async |path: &str, host| post_to(path, &[("host", host)], "").await;
    let done = (StatusCode::OK, r#"{"model":"m"}"#.to_owned());
    for path in ["load", "load?keep_alive=1h", "unload"] {
        assert_eq!(send(&format!("/admin/v1/models/m/{path}"), "localhost").await, done, "{path}");
        let others = send(&format!("/admin/v1/models/m/{path}"), "evil.example").await;
        assert_eq!(others.0, StatusCode::FORBIDDEN, "{path}");
        let unknown = send(&format!("/admin/v1/models/other/{path}"), "localhost").await;
        assert_eq!(unknown.0, StatusCode::NOT_FOUND, "{path}");
    }
    let (status, body) = send("/admin/v1/models/large/load", "localhost").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("it is large"), "{body}");
    for query in ["keep_alive=soon", "for=1h"] {
        let (status, body) = send(&format!("/admin/v1/models/m/load?{query}"), "localhost").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn nodes_are_shown_and_drained_by_name() {
    assert_eq!(get("/admin/v1/nodes").await.2, r#"{"nodes":[{"name":"a"}]}"#);
    assert_eq!(get("/admin/v1/decisions?count=3").await.2, r#"{"decisions":[3]}"#);
    let drain = async |path: &str, host| post_to(path, &[("host", host)], "").await.0;
    assert_eq!(drain("/admin/v1/nodes/a/drain?reason=new%20memory", "localhost").await, StatusCode::OK);
    assert_eq!(
        drain("/admin/v1/nodes/b/drain?reason=new%20memory", "localhost").await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(drain("/admin/v1/nodes/a/kick", "localhost").await, StatusCode::NOT_FOUND);
    assert_eq!(drain("/admin/v1/nodes/a/drain", "evil.example").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nodes_are_registered_changed_and_removed_by_name() {
    let sent = async |method, path: &str, host, body: &str| {
        let request = Request::builder().method(method).uri(path).header("host", host);
        let (status, _, body) = send(state(Ok(())), request.body(Body::from(body.to_owned())).unwrap()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&body).unwrap())
    };
    let (all, node) = ("/admin/v1/nodes", |name: &str| format!("/admin/v1/nodes/{name}"));
    let told = |name: &str| json!({ "node": name });
    let (new, empty) = (r#"{"name":"b"}"#, "{}");
    assert_eq!(sent(Method::POST, all, "localhost", new).await, (201, told("b")));
    assert_eq!(sent(Method::PUT, &node("a"), "localhost", empty).await, (200, told("a")));
    assert_eq!(sent(Method::PUT, &node("c%2Fd"), "localhost", empty).await, (201, told("c/d")));
    assert_eq!(sent(Method::DELETE, &node("a"), "localhost", "").await, (200, told("a")));
    for (method, path, body, status, words) in [
        (Method::POST, all, empty, 400, "request: name: required, but missing"),
        (Method::POST, all, "[]", 400, "request: expected a mapping"),
        (Method::POST, all, "{", 400, "request: EOF while parsing"),
        (Method::POST, all, r#"{"name":"a"}"#, 409, "node 'a' is registered already; PUT changes it"),
        (Method::PUT, &node("fixed"), empty, 409, "node 'fixed' is in the configuration"),
        (Method::PUT, &node("full"), empty, 500, "no space left"),
        (Method::DELETE, &node("b"), "", 404, "node 'b' not found"),
    ] {
        let (found, answer) = sent(method, path, "localhost", body).await;
        assert_eq!(found, status, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
        assert!(status != 400 || answer["problems"][0].as_str().unwrap().starts_with("request: "));
    }
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(sent(method, &node("a"), "evil.example", empty).await.0, 403);
    }
    assert_eq!(sent(Method::POST, all, "evil.example", new).await.0, 403);
}

#[tokio::test]
async fn what_is_kept_is_shown_and_thrown_away_from_this_machine_alone() {
    let (_, _, told) = get("/admin/v1/cache").await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["tiers"][0]["tier"], &told["embeddings"]["entries"]), (&json!("memory"), &json!(0)));
    assert_eq!(get("/admin/v1/cache/entries?model=M&limit=1").await.2, r#"{"memory":[]}"#);
    assert_eq!(get("/admin/v1/cache/entries?key=1").await.0, StatusCode::BAD_REQUEST);
    let purge = async |path: &str, host| {
        let request = Request::delete(path).header("host", host).body(Body::empty()).unwrap();
        let (status, _, body) = send(state(Ok(())), request).await;
        (status, body)
    };
    let nothing = r#"{"purged":{"memory":0,"embeddings":0}}"#.to_owned();
    assert_eq!(purge("/admin/v1/cache", "localhost").await, (StatusCode::OK, nothing));
    assert_eq!(purge("/admin/v1/cache", "evil.example").await.0, StatusCode::FORBIDDEN);
    let warmed = post_to("/admin/v1/cache/warm", &[("host", "localhost")], "{}\n{}").await;
    assert_eq!(warmed, (StatusCode::OK, r#"{"done":2,"failed":[]}"#.to_owned()));
    let save = Request::get("/admin/v1/cache/save").header("host", "localhost").body(Body::empty());
    let (status, kind, archive) = send(state(Ok(())), save.unwrap()).await;
    assert_eq!((status, kind.as_str(), archive.as_str()), (StatusCode::OK, "application/octet-stream", ""));
    let loaded = post_to("/admin/v1/cache/load", &[("host", "localhost")], "no entry").await;
    assert_eq!(loaded, (StatusCode::OK, r#"{"loaded":0,"expired":0,"damaged":1}"#.to_owned()));
    assert_eq!(
        post_to("/admin/v1/cache/load", &[("host", "evil.example")], "").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        post_to("/admin/v1/cache/warm", &[("host", "evil.example")], "").await.0,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn what_cannot_be_reloaded_is_told() {
    let (status, body) = post_to("/admin/v1/reload", &[], "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let expected = r#"{"error":"this takes a restart: listen: 1 -> 2","problems":["listen: 1 -> 2"]}"#;
    assert_eq!(body, expected);
    let host = [("host", "evil.example")];
    assert_eq!(post_to("/admin/v1/reload", &host, "").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_request_is_explained_as_one_to_the_path_that_it_fits() {
    for (path, body, endpoint) in [
        ("/admin/v1/route/explain", r#"{"messages":[]}"#, "/api/chat"),
        ("/admin/v1/route/explain", r#"{"prompt":"x"}"#, "/api/generate"),
        ("/admin/v1/route/explain?path=/v1/completions", "{}", "/v1/completions"),
    ] {
        let (status, told) = post_to(path, &[], body).await;
        assert_eq!((status, told), (StatusCode::OK, json!({ "endpoint": endpoint }).to_string()));
    }
    assert_eq!(post_to("/admin/v1/route/explain?path=/nowhere", &[], "{}").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_first_page_links_to_every_route() {
    let (status, kind, body) = get("/").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/admin/v1/status",
        "/admin/v1/nodes",
        "/admin/v1/decisions",
        "/admin/v1/cache",
    ] {
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
    assert_eq!(body, r#"{"error":"method not allowed"}"#);
}
