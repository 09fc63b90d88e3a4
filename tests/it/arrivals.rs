//! Models on their way into memory: told to who waits, fetched by the admin port, and there before they are asked for.

use std::thread;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until, until_true};
use crate::http::{Request, Response};

/// Two models of some 10 MiB each, and more of the configuration.
fn two_models(settings: &str, more: &str) -> Server {
    let (one, other) = (model(Fixture::TinyLlama, settings), model(Fixture::TinyPlane, settings));
    Server::start(&format!("models: {{ one: {one}, other: {other} }}\n{more}"))
}

fn admin(server: &Server, method: &str, path: &str) -> Response {
    Request::new(method, path).send(&server.admin).expect("an answer")
}

fn shown(server: &Server) -> Value {
    admin(server, "GET", "/admin/v1/models").json().expect("JSON")
}

/// The state of a model as the admin port shows it; null: it is not there.
fn state(server: &Server, name: &str) -> Value {
    let shown = shown(server);
    let models = shown["models"].as_array().expect("a list");
    models.iter().find(|model| model["name"] == name).map_or(Value::Null, |model| model["state"].clone())
}

#[test]
fn who_gives_up_waiting_for_a_model_is_told_how_far_it_is_in_every_api() {
    let server = two_models("parallel: 2, context: 512", "memory: { budget: 16MiB, max_wait: 100s }");
    let endless = json!({ "model": "one", "prompt": "Once", "raw": true,
        "options": { "num_predict": 1_000_000, "temperature": 0 } });
    let mut stream = server.post("/api/generate", &endless);
    stream.line().expect("its first line");
    let message = json!([{ "role": "user", "content": "Hello" }]);
    let body = json!({ "model": "other", "messages": message, "stream": false });
    let ask = |path: &str, patience: &str| {
        server.send(&Request::post(path, &body).header("X-Request-Timeout-Ms", patience))
    };
    for path in ["/api/chat", "/v1/chat/completions"] {
        // Long enough for the header of the file to be read.
        let answer = ask(path, "3000");
        assert_eq!(answer.status, 504);
        let wait: u32 = answer.header("retry-after").expect("a time").parse().expect("a number");
        let body = answer.json().expect("JSON");
        let loading = if path == "/api/chat" { &body["loading"] } else { &body["error"]["loading"] };
        assert_eq!(loading["state"], "waiting", "{body}");
        let eta = loading["eta_seconds"].as_f64().expect("a time");
        assert!((80.0..=101.0).contains(&eta) && f64::from(wait) >= eta && wait <= 102, "{eta} {wait}");
    }
    thread::scope(|scope| {
        scope.spawn(|| ask("/api/chat", "5000"));
        until_true("it is listed beside what is in memory", || {
            let listed = server.get("/api/ps").json().expect("JSON");
            let loaded = listed["models"].as_array().expect("a list");
            assert!(loaded.iter().all(|model| model["name"] == "one:latest"), "{listed}");
            listed["loading"][0]["name"] == "other:latest" && listed["loading"][0]["state"] == "waiting"
        });
    });
    drop(stream);
}

#[test]
fn models_come_and_go_by_the_admin_port_and_it_is_told_what_has_happened() {
    let server = two_models("context: 512", "memory: { min_residency: 0s }");
    let done = admin(&server, "POST", "/admin/v1/models/one/load?keep_alive=1h");
    assert_eq!((done.status, done.text().expect("text").as_str()), (200, r#"{"model":"one"}"#));
    assert_eq!(state(&server, "one"), "resident");
    let unloaded = admin(&server, "POST", "/admin/v1/models/one/unload");
    assert_eq!(unloaded.status, 200);
    until_true("it has left", || state(&server, "one").is_null());
    assert_eq!(admin(&server, "POST", "/admin/v1/models/nobody/load").status, 404);
    let shown = shown(&server);
    let events = shown["events"].as_array().expect("a list").iter().rev();
    let mut events: Vec<_> = events.map(|event| event["event"].as_str().expect("text")).collect();
    events.retain(|event| *event != "loading");
    assert_eq!(events, ["load_begun", "ready", "evicted"]);
}

#[test]
fn a_model_that_follows_another_is_there_before_it_is_asked_for_if_that_is_wanted() {
    let preload = "memory: { min_residency: 0s, preload: { enabled: true, threshold: 0.5 } }";
    let server = two_models("context: 512, keep_alive: 0", preload);
    let ask = |name: &str| {
        let body = json!({ "model": name, "prompt": "Once", "raw": true, "stream": false, "options": { "num_predict": 1 } });
        assert_eq!(server.post("/api/generate", &body).status, 200);
    };
    for name in ["one", "other", "one", "other", "one"] {
        ask(name);
    }
    let preloads = |result: &str| server.metric("arriero_preloads_total", &format!("result=\"{result}\""));
    let there = until("the other one is there", || {
        let shown = shown(&server);
        let is_it = |model: &&Value| model["preloaded"] == true && model["state"] == "resident";
        let found = shown["models"].as_array()?.iter().find(is_it).cloned();
        found.map(|_| shown)
    });
    assert_eq!(there["next_victim"]["name"], "other", "{there}");
    assert_eq!(there["predictions"][0]["reason"], "it is asked for after 'one'", "{there}");
    assert!(preloads("begun") >= 1.0 && preloads("used") < preloads("begun"));
    ask("other");
    until_true("that it was used is counted", || preloads("used") >= 1.0);
}
