//! Models that do not fit into memory as they are configured.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model};
use crate::http::Request;

/// Most of what a worker takes with these settings is cells.
const LARGE: &str = "context: 2048, parallel: 16";

fn question() -> Value {
    json!({ "model": "m", "prompt": "Tell me a story", "raw": true, "stream": false,
            "options": { "num_predict": 12, "seed": 7 } })
}

fn answer(server: &Server) -> String {
    let answer: Value = server.post("/api/generate", &question()).json().expect("JSON");
    answer["response"].as_str().expect("a text").to_owned()
}

/// What `/admin/v1/models` says of `m`.
fn shown(server: &Server) -> Value {
    let shown: Value =
        Request::get("/admin/v1/models").send(&server.admin).and_then(|it| it.json()).expect("JSON");
    let models = shown["models"].as_array().expect("a list");
    models.iter().find(|model| model["name"] == "m").cloned().expect("the model")
}

/// What the model says when there is room for all of it, and three quarters of what it takes then.
fn undisturbed() -> (String, u64) {
    let server = Server::start(&format!("models: {{ m: {} }}", model(Fixture::TinyLlama, LARGE)));
    let text = answer(&server);
    let bytes = &shown(&server)["bytes"];
    let sum: u64 = ["mapped", "private", "reserved"].iter().filter_map(|kind| bytes[kind].as_u64()).sum();
    assert!(shown(&server)["rung"].is_null());
    (text, sum / 4 * 3)
}

#[test]
fn one_that_does_not_fit_decodes_fewer_sequences_and_every_answer_says_so() {
    let (expected, budget) = undisturbed();
    let models = format!("models: {{ m: {} }}", model(Fixture::TinyLlama, LARGE));
    let server = Server::start(&format!("{models}\nmemory: {{ budget: {budget} }}"));
    for attempt in 0..2 {
        let body = json!({ "model": "m", "prompt": attempt.to_string(), "max_tokens": 4 });
        let response = server.post("/v1/completions", &body);
        let rung = response.header("x-arriero-rung").expect("a rung").to_owned();
        assert_eq!(response.status, 200);
        assert!(rung.starts_with("sequences="), "{rung}");
        assert_eq!(shown(&server)["rung"], rung);
        let worker = server.ready_worker("m");
        assert_eq!(format!("sequences={}", worker.spec.parallel), rung);
    }
    assert_eq!(answer(&server), expected, "how many run together changes no answer");
    assert_eq!(server.metric("arriero_model_rungs_total", "model=\"m\",rung=\"sequences\""), 1.0);
}

#[test]
fn what_a_model_says_with_less_context_is_not_kept_as_what_it_says() {
    let (_, budget) = undisturbed();
    let settings = format!("{LARGE}, context_floor: 128");
    let models = format!("models: {{ m: {} }}", model(Fixture::TinyLlama, &settings));
    let server =
        Server::start(&format!("{models}\nmemory: {{ budget: {budget}, ladder: [evict, context] }}"));
    for _ in 0..2 {
        let response = server.post("/api/generate", &question());
        let rung = response.header("x-arriero-rung").expect("a rung");
        assert!(rung.starts_with("context="), "{rung}");
        assert_eq!((response.status, response.header("x-arriero-cache")), (200, Some("miss")));
    }
}

#[test]
fn the_sibling_answers_before_anything_behind_it_is_done() {
    let (_, budget) = undisturbed();
    let large = model(Fixture::TinyLlama, &format!("{LARGE}, sibling: small"));
    let small = model(Fixture::TinyLlama, "context: 256, parallel: 1");
    let ladder = "ladder: [evict, sibling, sequences]";
    let server = Server::start(&format!(
        "models: {{ m: {large}, small: {small} }}\nmemory: {{ budget: {budget}, {ladder} }}"
    ));
    let response = server.post("/api/generate", &question());
    assert_eq!((response.status, response.header("x-arriero-rung")), (200, Some("sibling")));
    assert_eq!(response.header("x-arriero-fallback"), Some("small"));
    assert!(server.workers().iter().all(|worker| worker.is_of("small")));
}
