//! More models than fit into memory, with real workers.

use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::Request;

const CLIENTS: usize = 20;
/// Of each client.
const REQUESTS: usize = 10;

/// Two models, and `memory` as the section says.
fn two_models(memory: &str) -> Server {
    let settings = "parallel: 4, context: 512";
    let (one, other) = (model(Fixture::TinyLlama, settings), model(Fixture::TinyPlane, settings));
    Server::start(&format!("models: {{ one: {one}, other: {other} }}\nmemory: {{ {memory} }}"))
}

fn ask(model: &str, number: usize) -> Value {
    json!({ "model": model, "prompt": format!("Story {number}"), "raw": true, "stream": false,
            "options": { "num_predict": 8, "seed": number } })
}

#[test]
fn clients_that_alternate_between_two_models_of_which_one_fits_are_all_served_with_few_loads() {
    // Either takes some 10 MiB.
    let server = two_models("budget: 16MiB, min_residency: 100ms, max_wait: 5s");
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                for number in 0..REQUESTS {
                    let name = ["one", "other"][(client + number) % 2];
                    let response = server.post("/api/generate", &ask(name, number));
                    let (status, text) = (response.status, response.text().expect("text"));
                    assert_eq!(status, 200, "{text}");
                    assert!(server.workers().len() <= 2, "one that comes, one that leaves");
                }
            });
        }
    });
    let loads = server.metric("arriero_model_load_seconds_count", "");
    let evictions = server.metric("arriero_model_evictions_total", "reason=\"memory\"");
    // A round of all clients for each turn; a swap is worth at least ten requests.
    assert!((2.0..=20.0).contains(&loads), "{loads} loads for {} requests", CLIENTS * REQUESTS);
    assert!((loads - evictions - 1.0).abs() < f64::EPSILON, "{loads} loads, {evictions} evictions");
    let swaps = server.metric("arriero_model_swaps_total", "");
    assert!((swaps - evictions).abs() < f64::EPSILON, "{swaps} swaps, {evictions} evictions");
    assert_eq!(server.metric("arriero_worker_restarts_total", ""), 0.0);
    assert_eq!(server.metric("arriero_memory_budget_bytes", "device=\"host\""), f64::from(16 << 20));
}

#[test]
fn a_model_that_can_never_fit_is_refused_in_words_and_nothing_is_started() {
    let server = two_models("budget: 1MiB");
    let response = server.post("/api/generate", &ask("one", 0));
    assert_eq!(response.status, 500);
    let text = response.text().expect("text");
    assert!(
        text.contains("model 'one' failed to load: it needs") && text.contains("the budget is 1.0 MiB"),
        "{text}"
    );
    assert!(server.workers().is_empty());
}

#[test]
fn what_was_in_memory_at_the_end_is_there_again_from_the_start_with_what_it_had_read_if_that_is_wanted() {
    let remembered = tempfile::tempdir().expect("a directory");
    let start = || {
        let settings = "parallel: 4, context: 1024";
        let (one, other) = (model(Fixture::TinyLlama, settings), model(Fixture::TinyPlane, settings));
        let dir = remembered.path().display();
        Server::start(&format!(
            "models: {{ one: {one}, other: {other} }}\nworkers: {{ warm_start: true, snapshots: {{ dir: \"{dir}/s\", \
             min_tokens: 32 }} }}\nmemory: {{ dir: \"{dir}\" }}"
        ))
    };
    let long = json!({ "model": "one", "prompt": "You carry salt over the pass. ".repeat(12), "raw": true,
        "stream": false, "options": { "num_predict": 4, "temperature": 0 } });
    let mut server = start();
    assert_eq!(server.post("/api/generate", &long).status, 200);
    server.signal(Signal::SIGTERM);
    assert!(server.exit().success());
    let server = start();
    server.ready_worker("one");
    assert!(server.workers().iter().all(|worker| worker.is_of("one")), "nobody had asked for the other");
    assert_eq!(server.post("/api/generate", &long).status, 200);
    until_true("its prompt comes from disk", || {
        server.metric("arriero_snapshot_restored_tokens_total", "model=\"one\"") > 0.0
    });
}

#[test]
fn what_workers_take_is_what_was_estimated_and_is_shown() {
    const MIB: f64 = (1 << 20) as f64;
    let fixtures = [
        ("llama", Fixture::TinyLlama, "context: 2048, parallel: 16"),
        ("bert", Fixture::TinyBert, ""),
        ("sliding", Fixture::TinySliding, "context: 2048, parallel: 16"),
        ("recurrent", Fixture::TinyRecurrent, "parallel: 16"),
        ("bench", Fixture::BenchLlama, "context: 2048, parallel: 2"),
    ];
    let models: Vec<_> = fixtures
        .iter()
        .map(|(name, fixture, settings)| {
            format!("{name}: {}", model(*fixture, &format!("preload: true, {settings}")))
        })
        .collect();
    let server = Server::start(&format!("models: {{ {} }}", models.join(", ")));
    for (name, ..) in fixtures {
        let worker = server.ready_worker(name);
        let (_, vitals) = worker.health().expect("an answer");
        let log = server.log();
        let weighed = |line: &&Value| line["model"] == name && line["private_bytes"].is_u64();
        let estimate =
            log.iter().find(weighed).expect("it was weighed")["private_bytes"].as_f64().expect("a number");
        let measured = vitals.private_bytes as f64;
        let error = (estimate - measured).abs();
        assert!(
            error <= (0.1 * measured).max(4.0 * MIB),
            "{name}: {:.1} MiB for {:.1} MiB",
            estimate / MIB,
            measured / MIB
        );
    }
    until_true("all are shown as they are", || {
        let shown = Request::get("/admin/v1/models").send(&server.admin).expect("an answer");
        let shown = shown.json().expect("JSON");
        let models = shown["models"].as_array().expect("a list");
        let is_there = |model: &Value| {
            let (bytes, load) = (&model["bytes"]["private"], &model["load_seconds"]);
            model["state"] == "resident" && bytes.as_u64() > Some(0) && load.as_f64() > Some(0.0)
        };
        models.len() == fixtures.len() && models.iter().all(is_there)
    });
}

#[test]
fn another_budget_takes_effect_at_once() {
    let settings = "parallel: 4, context: 512";
    let (one, other) = (model(Fixture::TinyLlama, settings), model(Fixture::TinyPlane, settings));
    let config = |memory: &str| format!("models: {{ one: {one}, other: {other} }}\nmemory: {{ {memory} }}");
    let server = Server::start(&config("budget: 64MiB"));
    for name in ["one", "other"] {
        assert_eq!(server.post("/api/generate", &ask(name, 0)).status, 200);
    }
    assert_eq!(server.metric("arriero_model_evictions_total", ""), 0.0);
    let reload = |memory: &str| {
        server.rewrite(&config(memory));
        Request::new("POST", "/admin/v1/reload").send(&server.admin).expect("an answer").status
    };
    assert_eq!(reload("budget: 16MiB, policy: lru"), 200);
    until_true("one has left", || {
        server.metric("arriero_model_evictions_total", "reason=\"memory\"") == 1.0
            && server.workers().len() == 1
    });
    assert_eq!(server.metric("arriero_memory_budget_bytes", "device=\"host\""), f64::from(16 << 20));
    assert_eq!(reload("budget: 16MiB, dir: /elsewhere"), 409, "that takes a restart");
}
