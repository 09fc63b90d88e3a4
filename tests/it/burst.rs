//! The promise of the product: a worker that dies costs a client that has not received a byte nothing.

use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::Request;

#[test]
fn two_models_of_one_configuration_both_answer_at_once() {
    let tiny = model(Fixture::TinyLlama, "");
    let server = Server::start(&format!("models: {{ demo: {{ path: \"builtin:demo\" }}, tiny: {tiny} }}"));
    thread::scope(|scope| {
        for name in ["demo", "tiny"] {
            let ask = json!({ "model": name, "prompt": "Hello", "options": { "num_predict": 16 } });
            let server = &server;
            scope.spawn(move || assert!(!server.generate(&ask).is_empty(), "{name} says something"));
        }
    });
}

#[test]
fn killing_a_worker_during_a_burst_of_50_requests_without_a_byte_is_seen_by_no_client() {
    const BURST: usize = 50;
    let demo = "demo: { path: \"builtin:demo\", parallel: 4 }";
    let tiny = model(Fixture::TinyLlama, "parallel: 4");
    let server = Server::start(&format!("models: {{ {demo}, tiny: {tiny} }}"));
    server.generate(&json!({ "model": "tiny", "prompt": "Hello", "options": { "num_predict": 1 } }));

    // A stopped worker takes requests and answers none, so all of the burst is waiting when it is killed.
    let worker = server.ready_worker("tiny");
    worker.freeze();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..BURST)
            .map(|number| {
                let ask = json!({ "model": "tiny", "prompt": format!("Request {number}"),
                                  "options": { "num_predict": 8, "seed": number } });
                let address = server.data.clone();
                scope.spawn(move || Request::post("/api/generate", &ask).send(&address)?.ndjson())
            })
            .collect();
        until_true("the whole burst is inside", || {
            let waiting = server.metric("arriero_queue_depth", "model=\"tiny\"");
            let running = server.metric("arriero_inflight", "node=\"tiny");
            (waiting + running) as usize == BURST
        });
        worker.signal(Signal::SIGKILL);
        for (number, client) in clients.into_iter().enumerate() {
            let lines = client.join().expect("the client ends").expect("the client sees no error");
            let last = lines.last().expect("a line");
            assert_eq!(last["done"], true, "request {number}: {lines:?}");
        }
    });
    assert!(server.metric("arriero_worker_restarts_total", "") >= 1.0);
    assert!(server.metric("arriero_retries_total", "") >= 4.0, "those that ran when it died ran again");
    assert_ne!(server.ready_worker("tiny").pid, worker.pid);
}
