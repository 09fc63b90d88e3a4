//! Faults on purpose: `X-Arriero-Fault`, and what becomes of each.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::Request;
use crate::lab::{Api, Fault, Lab, tokens};

fn question(model: &str) -> Value {
    json!({"model": model, "prompt": "tell", "raw": true, "options": {"num_predict": 8, "seed": 3}})
}

fn asks(server: &Server, body: &Value, fault: &str) -> (u16, Option<u32>, Vec<Value>) {
    let response = server.send(&Request::post("/api/generate", body).header("X-Arriero-Fault", fault));
    let attempts = response.header("x-arriero-attempts").and_then(|count| count.parse().ok());
    match response.status {
        200 => (200, attempts, response.ndjson().expect("NDJSON")),
        status => (status, attempts, vec![response.json().expect("JSON")]),
    }
}

fn text(lines: &[Value]) -> String {
    lines.iter().filter_map(|line| line["response"].as_str()).collect()
}

#[test]
fn a_fault_before_the_first_byte_costs_an_attempt_and_nothing_else() {
    let nodes = [Lab::start(Api::Ollama, Fault::None), Lab::start(Api::OpenAi, Fault::None)];
    let entries = [nodes[0].entry("a"), nodes[1].entry("b")];
    let server = Server::start(&format!(
        "faults: {{ enabled: true }}\nnodes:\n  - {}\n  - {}\n",
        entries[0], entries[1]
    ));
    for (fault, reason) in [
        ("refuses", "connect"),
        ("resets", "broken"),
        ("stalls", "timeout"),
        ("dies; after=0", "broken"),
        ("500", "refused"),
        ("garbage", "broken"),
        ("lies", "declined"),
        ("busy; after=1", "rate_limited"),
    ] {
        let retries = || server.metric("arriero_retries_total", &format!("reason=\"{reason}\""));
        let before = retries();
        let (status, attempts, lines) = asks(&server, &question("m"), fault);
        assert_eq!((status, attempts, text(&lines)), (200, Some(2), tokens(8).concat()), "{fault}");
        assert_eq!(retries(), before + 1.0, "{fault}");
        // Those that were left alone for it are asked again.
        for node in ["a", "b"] {
            let reset = Request::post(&format!("/admin/v1/nodes/{node}/reset"), &json!({}));
            assert_eq!(reset.send(&server.admin).expect("an answer").status, 200);
        }
    }
    let (status, attempts, lines) = asks(&server, &question("m"), "never_closes");
    assert_eq!((status, attempts, text(&lines)), (200, Some(1), tokens(8).concat()));
}

#[test]
fn an_answer_of_a_worker_goes_on_exactly_where_it_was_broken_off() {
    let server = Server::start(&format!(
        "models: {{ tiny: {}, bert: {} }}\nfaults: {{ enabled: true }}",
        model(Fixture::TinyLlama, "replicas: 2"),
        model(Fixture::TinyBert, ""),
    ));
    let expected = server.generate(&question("tiny"));
    for fault in ["dies; after=3", "ends; after=5", "too_long"] {
        let resumed = server.metric("arriero_resumed_total", "");
        let (status, _, lines) = asks(&server, &question("tiny"), fault);
        assert_eq!((status, text(&lines)), (200, expected.clone()), "{fault}");
        until_true("it is counted", || server.metric("arriero_resumed_total", "") == resumed + 1.0);
    }
    let embed = json!({"model": "bert", "input": "x"});
    let response = server.send(&Request::post("/api/embed", &embed).header("X-Arriero-Fault", "resets"));
    assert_eq!((response.status, response.header("x-arriero-attempts")), (200, Some("2")));
}

#[test]
fn faults_open_breakers_like_real_ones() {
    let node = Lab::start(Api::Ollama, Fault::None);
    let server = Server::start(&format!(
        "faults: {{ enabled: true }}\nretry: {{ attempts: 0 }}\nnodes: [{}]",
        node.entry("box")
    ));
    for _ in 0..5 {
        assert_eq!(asks(&server, &question("m"), "500").0, 500);
    }
    assert_eq!(server.metric("arriero_breaker_state", "node=\"box\""), 1.0);
    assert_eq!(server.post("/api/generate", &question("m")).status, 503);
    assert_eq!(node.asked(), 0, "the node had no part in it");
}

#[test]
fn a_fault_that_nobody_knows_is_refused_with_those_there_are() {
    let server = Server::start("models: { demo: { path: \"builtin:demo\" } }\nfaults: { enabled: true }");
    let (status, _, lines) = asks(&server, &question("demo"), "sulks");
    assert_eq!(status, 400);
    let error = lines[0]["error"].as_str().expect("words");
    assert!(
        error.starts_with("X-Arriero-Fault must be one of refuses, resets, stalls, drips, dies"),
        "{error}"
    );
}

#[test]
fn without_the_switch_the_header_is_ignored() {
    let server = Server::demo();
    for fault in ["500", "sulks"] {
        let (status, attempts, _) = asks(&server, &question("demo"), fault);
        assert_eq!((status, attempts), (200, Some(1)), "{fault}");
    }
}
