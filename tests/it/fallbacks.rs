//! Another model answers when no node of the one that was asked for can.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::lab::{Api, Fault, Lab};

/// A node that fails in every request for its model `m`, and `tiny`, which answers in its place.
fn server(node: &Lab) -> Server {
    Server::start(&format!(
        "models: {{ tiny: {}, bert: {} }}\nnodes: [{}]\nretry: {{ fallbacks: {{ m: [bert, tiny] }} }}",
        model(Fixture::TinyLlama, ""),
        model(Fixture::TinyBert, ""),
        node.entry("box"),
    ))
}

fn question(model: &str) -> Value {
    json!({"model": model, "prompt": "Tell", "options": {"num_predict": 6, "seed": 3}})
}

#[test]
fn a_model_whose_nodes_all_fail_is_answered_for_by_the_first_that_can() {
    for fault in [Fault::Refuses, Fault::Answers500, Fault::Busy(60), Fault::DiesAfter(0)] {
        let node = Lab::start(Api::Ollama, fault);
        let server = server(&node);
        let expected = server.generate(&question("tiny"));
        let response = server.post("/api/generate", &question("m"));
        assert_eq!(response.header("x-arriero-fallback"), Some("tiny"), "{fault:?}: bert cannot generate");
        assert_eq!(response.header("x-arriero-node"), Some("tiny-0"), "{fault:?}");
        let lines = response.ndjson().expect("NDJSON");
        let text: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
        assert_eq!(text, expected, "{fault:?}");
        assert!(lines.iter().all(|line| line["model"] == "m"), "the model is what was asked for: {lines:?}");
        assert_eq!(server.metric("arriero_fallbacks_total", "model=\"m\",to=\"tiny\""), 1.0);
        until_true("the log says so", || {
            server.log().iter().any(|line| line["message"] == "request" && line["fallback"] == "tiny")
        });
    }
}

#[test]
fn a_model_that_works_answers_itself() {
    let node = Lab::start(Api::Ollama, Fault::None);
    let server = server(&node);
    let response = server.post("/api/generate", &question("m"));
    assert_eq!((response.status, response.header("x-arriero-fallback")), (200, None));
    assert_eq!(server.metric("arriero_fallbacks_total", ""), 0.0);
}

#[test]
fn vectors_are_never_another_models() {
    let node = Lab::start(Api::Ollama, Fault::Refuses);
    let server = server(&node);
    let response = server.post("/api/embed", &json!({"model": "m", "input": "x"}));
    assert!((500..504).contains(&response.status), "{}", response.status);
}

#[test]
fn an_answer_that_has_begun_stays_with_its_model() {
    let node = Lab::start(Api::Ollama, Fault::DiesAfter(2));
    let server = server(&node);
    let lines =
        server.post("/api/chat", &json!({"model": "m", "messages": [{"role": "user", "content": "q"}]}));
    let lines = lines.ndjson().expect("NDJSON");
    assert!(lines.last().expect("a line")["error"].is_string(), "{lines:?}");
    assert_eq!(server.metric("arriero_fallbacks_total", ""), 0.0);
}

#[test]
fn a_model_that_cannot_be_loaded_is_answered_for_and_its_own_error_stays_if_nobody_can() {
    let mut broken = tempfile::NamedTempFile::new().expect("a file");
    broken.write_all(b"GGUF, but not really").expect("it can be written");
    let server = Server::start(&format!(
        "models:\n  broken: {{ path: \"{0}\", fallbacks: [alone, tiny] }}\n  alone: {{ path: \"{0}\", fallbacks: [broken] }}\n  \
         tiny: {1}\n",
        broken.path().display(),
        model(Fixture::TinyLlama, ""),
    ));
    let response = server.post(
        "/v1/chat/completions",
        &json!({"model": "broken", "max_tokens": 4,
        "messages": [{"role": "user", "content": "q"}]}),
    );
    assert_eq!((response.status, response.header("x-arriero-fallback")), (200, Some("tiny")));
    assert_eq!(response.json().expect("JSON")["model"], "broken");
    let refused = server.post("/api/generate", &question("alone"));
    assert_eq!(refused.status, 500);
    let error = refused.json().expect("JSON")["error"].to_string();
    assert!(error.contains("model 'alone' failed to load"), "{error}");
}
