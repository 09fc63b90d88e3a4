//! One pool of two workers, another Arriero and a llama-server of another vendor: a worker is killed under twenty streams.

use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::Request;
use crate::llama_server::LlamaServer;

/// The nodes and texts of twenty streams. Each has a session, and with it a node; `disturb` is called once the worker `tiny-0` has begun
/// `first` of them.
fn twenty(server: &Server, temperature: f64, first: usize, disturb: impl FnOnce()) -> Vec<(String, String)> {
    let (begun, begins) = mpsc::channel();
    thread::scope(|scope| {
        let streams: Vec<_> = (0..20)
            .map(|seed| {
                let begun = begun.clone();
                scope.spawn(move || {
                    let options = json!({ "num_predict": 24, "seed": seed, "temperature": temperature });
                    let body = json!({ "model": "tiny", "prompt": format!("Tell {seed}"), "raw": true, "options": options });
                    let session = format!("session {seed}");
                    let request = Request::post("/api/generate", &body).header("X-Session-Id", &session);
                    let mut response = server.send(&request);
                    let first = response.line().expect("a stream").expect("a line");
                    let node = response.header("x-arriero-node").expect("a node").to_owned();
                    begun.send(node.clone()).expect("somebody waits");
                    let first: Value = serde_json::from_str(&first).expect("JSON");
                    let rest = response.ndjson().expect("NDJSON");
                    assert_eq!(rest.last().expect("an end")["done"], true, "{rest:?}");
                    let lines = [&first].into_iter().chain(&rest);
                    (node, lines.map(|line| line["response"].as_str().expect("text")).collect())
                })
            })
            .collect();
        drop(begun);
        assert_eq!(begins.iter().filter(|node| node == "tiny-0").take(first).count(), first);
        disturb();
        streams.into_iter().map(|stream| stream.join().expect("a text")).collect()
    })
}

#[test]
fn a_worker_killed_under_twenty_streams_changes_no_text() {
    let model = |settings: &str| model(Fixture::BenchLlama, settings);
    let far = Server::start(&format!("models: {{ tiny: {} }}", model("parallel: 10, context: 512")));
    let other = LlamaServer::start(Fixture::BenchLlama);
    let server = Server::start(&format!(
        "models: {{ tiny: {} }}\n\
         routing: {{ strategy: session_affinity, session_affinity: {{ bound: 100 }} }}\n\
         nodes:\n\
         - {{ name: far, url: \"http://{}\", protocol: arriero, models: [tiny], max_in_flight: 20 }}\n\
         - {{ name: other, url: \"{}\", protocol: openai, models: [tiny], max_in_flight: 20 }}\n",
        model("preload: true, replicas: 2, parallel: 10, context: 512"),
        far.data.host(),
        other.url,
    ));
    for temperature in [0.0, 0.8] {
        until_true("both workers serve", || server.metric("arriero_node_up", "tiny-") == 2.0);
        let expected = twenty(&server, temperature, 0, || ());
        for name in ["tiny-0", "tiny-1", "far", "other"] {
            assert!(expected.iter().any(|(node, _)| node == name), "{name} has no stream: {expected:?}");
        }
        assert!(expected.iter().all(|(_, text)| !text.is_empty()), "{expected:?}");
        let resumed = server.metric("arriero_resumed_total", "");
        // One that has not begun may go to a node that draws in another way.
        let all = expected.iter().filter(|(node, _)| node == "tiny-0").count();
        let found = twenty(&server, temperature, all, || {
            let worker = server.workers().into_iter().find(|worker| worker.spec.name == "tiny-0");
            worker.expect("it runs").signal(Signal::SIGKILL);
        });
        assert_eq!(found, expected, "at {temperature}");
        assert!(server.metric("arriero_resumed_total", "") > resumed);
    }
}
