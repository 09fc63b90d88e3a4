//! What is late in beginning to be answered is asked of a second node too.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::{Request, Response};
use crate::lab::{Api, Fault, Lab, tokens};

fn server(nodes: &[&Lab], hedge: &str) -> Server {
    let entries =
        nodes.iter().enumerate().map(|(index, node)| format!("  - {}\n", node.entry(&format!("n{index}"))));
    let entries = entries.collect::<String>().replace("first_byte: 500ms", "first_byte: 60s");
    // In turn, so that the one that stalls is asked first.
    Server::start(&format!(
        "routing: {{ strategy: round_robin }}\nretry: {{ hedge: {hedge} }}\nnodes:\n{entries}"
    ))
}

fn question() -> Value {
    json!({"model": "m", "prompt": "tell", "options": {"num_predict": 6}})
}

fn hedges(server: &Server, result: &str) -> f64 {
    server.metric("arriero_hedges_total", &format!("result=\"{result}\""))
}

#[test]
fn a_node_that_stalls_costs_the_time_until_it_is_late_and_has_no_fault() {
    let (stalls, sound) = (Lab::start(Api::Ollama, Fault::Stalls), Lab::start(Api::OpenAi, Fault::None));
    let server = server(&[&stalls, &sound], "200ms");
    for _ in 0..4 {
        assert_eq!(server.generate(&question()), tokens(6).concat());
    }
    assert_eq!((hedges(&server, "won"), hedges(&server, "lost")), (2.0, 0.0), "every second one");
    assert_eq!((stalls.asked(), sound.asked()), (2, 4));
    assert_eq!(server.metric("arriero_breaker_transitions_total", ""), 0.0);
    assert_eq!(server.metric("arriero_retries_total", ""), 0.0);
}

#[test]
fn nothing_is_hedged_where_there_is_one_node_or_no_switch() {
    let slow = Lab::start(Api::Ollama, Fault::None);
    let alone = server(&[&slow], "1ms");
    assert_eq!(alone.generate(&question()), tokens(6).concat());
    assert_eq!(hedges(&alone, ""), 0.0);
    let pair = [Lab::start(Api::Ollama, Fault::None), Lab::start(Api::Ollama, Fault::None)];
    let off = server(&[&pair[0], &pair[1]], "off");
    (0..4).for_each(|_| assert_eq!(off.generate(&question()), tokens(6).concat()));
    assert_eq!((pair[0].asked() + pair[1].asked(), off.metric("arriero_hedges_total", "")), (4, 0.0));
}

#[test]
fn workers_race_for_answers_and_vectors_and_say_the_same() {
    let of = |fixture| model(fixture, "replicas: 2, preload: true");
    let models = format!("models: {{ tiny: {}, bert: {} }}", of(Fixture::TinyLlama), of(Fixture::TinyBert));
    let faults = "faults: { enabled: true }";
    let expected = Server::start(&models);
    let server = Server::start(&format!("{models}\n{faults}\nretry: {{ hedge: 100ms }}"));
    until_true("both are there", || server.metric("arriero_model_loaded", "") == 4.0);
    let ask = json!({"model": "tiny", "prompt": "tell", "options": {"num_predict": 8, "seed": 5, "temperature": 0.8}});
    let stalled = |path: &str, body: &Value| {
        server.send(&Request::post(path, body).header("X-Arriero-Fault", "stalls"))
    };
    let lines = stalled("/api/generate", &ask).ndjson().expect("NDJSON");
    let text: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
    assert_eq!(text, expected.generate(&ask));
    let embed = json!({"model": "bert", "input": "x"});
    let vectors = |answer: Response| {
        assert_eq!(answer.status, 200);
        answer.json().expect("JSON")["embeddings"].clone()
    };
    assert_eq!(vectors(stalled("/api/embed", &embed)), vectors(expected.post("/api/embed", &embed)));
    assert_eq!(hedges(&server, "won"), 2.0);
}
