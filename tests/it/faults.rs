//! Real faults: workers killed at every moment of their lives, clients that leave, files that are broken, queues that are
//! full, and the end of the process itself.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, Worker, model, until, until_true};
use crate::http::{Address, Request, Response};

fn hello(model: &str) -> Value {
    json!({ "model": model, "prompt": "Hello", "options": { "num_predict": 4, "seed": 1 } })
}

/// Asks for more than the bench llama can say while a test runs, and returns once the first line is there.
fn endless(server: &Server) -> Response {
    let ask =
        json!({ "model": "tiny", "prompt": "Hello", "raw": true, "options": { "num_predict": 100_000 } });
    let mut response = server.post("/api/generate", &ask);
    assert_eq!(response.status, 200);
    assert!(response.line().expect("a stream").is_some());
    response
}

fn busy(worker: &Worker) -> usize {
    worker.health().expect("the worker answers").1.busy
}

#[test]
fn a_worker_killed_while_idle_is_replaced() {
    let server = Server::with_fixture(Fixture::TinyLlama, "");
    server.generate(&hello("tiny"));
    let first = server.ready_worker("tiny");
    first.signal(Signal::SIGKILL);
    until_true("the worker is gone", || !first.runs());
    server.generate(&hello("tiny"));
    assert_ne!(server.ready_worker("tiny").pid, first.pid);
    assert_eq!(server.metric("arriero_worker_restarts_total", ""), 1.0);
}

#[test]
fn a_worker_killed_while_it_loads_costs_the_client_nothing() {
    let server = Server::with_fixture(Fixture::BenchLlama, "context: 512, parallel: 1");
    thread::scope(|scope| {
        let client = scope.spawn(|| server.generate(&hello("tiny")));
        let loading = until("a worker is started", || server.workers().pop());
        loading.signal(Signal::SIGKILL);
        assert!(!client.join().expect("the client sees no error").is_empty());
    });
}

#[test]
fn a_worker_killed_before_the_first_byte_costs_the_client_nothing() {
    let server = Server::with_fixture(Fixture::TinyLlama, "");
    let expected = server.generate(&hello("tiny"));
    let worker = server.ready_worker("tiny");
    worker.freeze();
    thread::scope(|scope| {
        let client = scope.spawn(|| server.post("/api/generate", &hello("tiny")));
        until_true("the request is at the worker", || {
            server.metric("arriero_inflight", "node=\"tiny") == 1.0
        });
        worker.signal(Signal::SIGKILL);
        let response = client.join().expect("an answer");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x-arriero-attempts"), Some("2"));
        let lines = response.ndjson().expect("NDJSON");
        let text: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
        assert_eq!(text, expected);
    });
}

#[test]
fn a_worker_that_stands_still_in_the_middle_of_a_stream_is_replaced_and_the_answer_goes_on() {
    let server = Server::with_fixture(Fixture::BenchLlama, "context: 1024, parallel: 2");
    let story = json!({ "model": "tiny", "prompt": "Once", "raw": true, "options": { "num_predict": 60, "seed": 5 } });
    let expected = server.generate(&story);
    let worker = server.ready_worker("tiny");
    let mut response = server.post("/api/generate", &story);
    assert!(response.line().expect("a stream").is_some());
    let wedge = worker.wedge();
    let (status, _) = worker.health().expect("it answers all the same");
    assert_eq!(status, 200);
    let mut lines = response.ndjson().expect("the rest");
    let last = lines.pop().expect("an end");
    assert_eq!(last["done"], true, "{last}");
    let rest: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
    assert!(!rest.is_empty() && expected.ends_with(&rest), "{rest}");
    wedge.join().expect("the thread is gone");
    assert_eq!(server.metric("arriero_worker_restarts_total", "unresponsive"), 1.0);
}

#[test]
fn a_worker_killed_in_the_middle_of_a_stream_costs_the_client_nothing_but_a_pause() {
    let server = Server::with_fixture(Fixture::BenchLlama, "context: 1024, parallel: 2");
    let story =
        json!({"model": "tiny", "prompt": "Tell me of the pass.", "options": {"num_predict": 80, "seed": 4}});
    let last = server.generate_despite_a_kill(&story);
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &json!(80)), "{last}");
}

#[test]
fn where_no_attempt_is_left_a_broken_stream_ends_with_an_error() {
    let model = model(Fixture::BenchLlama, "context: 1024, parallel: 2");
    let server = Server::start(&format!("models: {{ tiny: {model} }}\nretry: {{ attempts: 0 }}"));
    let mut stream = endless(&server);
    server.ready_worker("tiny").signal(Signal::SIGKILL);
    let mut last = Value::Null;
    while let Ok(Some(line)) = stream.line() {
        last = serde_json::from_str(&line).expect("JSON");
    }
    assert!(last["error"].is_string(), "the stream ends with an error in its own form, not with {last}");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_stream_frees_its_sequence() {
    let server = Server::with_fixture(Fixture::BenchLlama, "context: 1024, parallel: 2");
    let (leaving, mut staying) = (endless(&server), endless(&server));
    let worker = server.ready_worker("tiny");
    until_true("both run", || busy(&worker) == 2);
    drop(leaving);
    until_true("one sequence is free", || busy(&worker) == 1);
    assert!(staying.line().expect("the other goes on").is_some());
    drop(staying);
    until_true("both are free", || busy(&worker) == 0);
    assert_eq!(server.ready_worker("tiny").pid, worker.pid);
}

#[test]
fn a_client_that_leaves_without_a_stream_frees_its_sequence_too() {
    let server = Server::with_fixture(Fixture::BenchLlama, "context: 1024, parallel: 2");
    server.generate(&hello("tiny"));
    let worker = server.ready_worker("tiny");
    let ask = json!({ "model": "tiny", "prompt": "Hello", "raw": true, "stream": false, "options": { "num_predict": 100_000 } });
    let request = Request::post("/api/generate", &ask);
    let mut wire = server.data.connect().expect("a connection");
    wire.write_all(&request.head()).expect("the head is taken");
    wire.write_all(ask.to_string().as_bytes()).expect("the body is taken");
    until_true("it runs", || busy(&worker) == 1);
    drop(wire);
    until_true("its sequence is free", || busy(&worker) == 0);
}

#[test]
fn two_simultaneous_first_requests_load_once_and_a_client_that_leaves_aborts_no_load() {
    let server = Server::with_fixture(Fixture::BenchLlama, "context: 512");
    thread::scope(|scope| {
        let ask = hello("tiny");
        let request = Request::post("/api/generate", &ask);
        let mut leaving = server.data.connect().expect("a connection");
        leaving.write_all(&request.head()).expect("the head is taken");
        leaving.write_all(ask.to_string().as_bytes()).expect("the body is taken");
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| server.generate(&hello("tiny")))).collect();
        let loading = until("a worker is started", || server.workers().pop());
        drop(leaving);
        for client in clients {
            client.join().expect("the client sees no error");
        }
        assert_eq!(server.workers().iter().map(|worker| worker.pid).collect::<Vec<_>>(), [loading.pid]);
    });
}

#[test]
fn a_model_that_cannot_load_is_reported_at_once_and_in_words() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let corrupt = directory.path().join("corrupt.gguf");
    std::fs::write(&corrupt, [b"GGUF".as_slice(), &[0xff; 4096]].concat()).expect("a file");
    let whole =
        Fixture::TinyLlama.file_in(env!("CARGO_TARGET_TMPDIR").as_ref()).expect("the fixture can be written");
    let cut = directory.path().join("cut.gguf");
    let bytes = std::fs::read(whole).expect("the fixture");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a file");
    let server = Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }}, corrupt: {{ path: \"{}\" }}, cut: {{ path: \"{}\" }}, \
         missing: {{ path: \"{}/none.gguf\" }} }}",
        corrupt.display(),
        cut.display(),
        directory.path().display(),
    ));
    for (name, word) in [("corrupt", "corrupt"), ("cut", "cut"), ("missing", "none.gguf")] {
        for _ in 0..2 {
            let response = server.post("/api/generate", &hello(name));
            assert_eq!(response.status, 500, "{name}");
            let error = response.json().expect("JSON")["error"].as_str().expect("a text").to_owned();
            assert!(error.contains("failed to load") && error.contains(word), "{name}: {error}");
        }
    }
    assert!(!server.generate(&hello("demo")).is_empty(), "the others are served");
}

#[test]
fn a_full_queue_answers_503_with_ollamas_text_and_retry_after() {
    let tiny = model(Fixture::TinyLlama, "parallel: 1");
    let server = Server::start(&format!(
        "models: {{ tiny: {tiny} }}\nqueue: {{ depth: 1 }}\ncoalesce: {{ mode: \"off\" }}"
    ));
    server.generate(&hello("tiny"));
    let worker = server.ready_worker("tiny");
    worker.freeze();
    thread::scope(|scope| {
        let running = scope.spawn(|| server.generate(&hello("tiny")));
        until_true("one runs", || server.metric("arriero_inflight", "node=\"tiny") == 1.0);
        let waiting = scope.spawn(|| server.generate(&hello("tiny")));
        until_true("one waits", || server.metric("arriero_queue_depth", "model=\"tiny\"") == 1.0);
        let turned_away = server.post("/api/generate", &hello("tiny"));
        assert_eq!(turned_away.status, 503);
        assert!(turned_away.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        let error = turned_away.json().expect("JSON");
        assert_eq!(error["error"], "server busy, please try again.  maximum pending requests exceeded");
        assert_eq!(server.get("/api/tags").status, 200, "listing never waits");
        worker.signal(Signal::SIGCONT);
        assert!(!running.join().expect("it ends").is_empty());
        assert!(!waiting.join().expect("it ends").is_empty());
    });
}

#[test]
fn a_waiting_client_that_leaves_gives_its_place_in_the_queue_back() {
    let tiny = model(Fixture::TinyLlama, "parallel: 1");
    let server = Server::start(&format!("models: {{ tiny: {tiny} }}\ncoalesce: {{ mode: \"off\" }}"));
    server.generate(&hello("tiny"));
    let worker = server.ready_worker("tiny");
    worker.freeze();
    thread::scope(|scope| {
        let running = scope.spawn(|| server.generate(&hello("tiny")));
        until_true("one runs", || server.metric("arriero_inflight", "node=\"tiny") == 1.0);
        let ask = hello("tiny");
        let mut leaving = server.data.connect().expect("a connection");
        leaving.write_all(&Request::post("/api/generate", &ask).head()).expect("the head is taken");
        leaving.write_all(ask.to_string().as_bytes()).expect("the body is taken");
        until_true("one waits", || server.metric("arriero_queue_depth", "model=\"tiny\"") == 1.0);
        drop(leaving);
        until_true("none waits", || server.metric("arriero_queue_depth", "model=\"tiny\"") == 0.0);
        worker.signal(Signal::SIGCONT);
        running.join().expect("it ends");
    });
}

#[test]
fn sigterm_fails_readiness_finishes_what_runs_stops_the_workers_and_exits_0() {
    let mut server = Server::with_fixture(Fixture::BenchLlama, "context: 512, parallel: 1");
    let ask = json!({ "model": "tiny", "prompt": "Hello", "raw": true, "options": { "num_predict": 12 } });
    let mut stream = server.post("/api/generate", &ask);
    assert!(stream.line().expect("a stream").is_some());
    let worker = server.ready_worker("tiny");
    worker.freeze();
    server.signal(Signal::SIGTERM);
    let ready =
        |admin: &Address| Request::get("/readyz").send(admin).is_ok_and(|response| response.status == 200);
    until_true("it is not ready any more", || !ready(&server.admin));
    worker.signal(Signal::SIGCONT);
    let lines = stream.ndjson().expect("the stream goes on to its end");
    let last = lines.last().expect("a line");
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &json!(12)));
    assert_eq!(server.exit().code(), Some(0));
    assert!(!worker.runs());
}

#[test]
fn an_idle_server_exits_at_once_on_sigterm() {
    let mut server = Server::demo();
    server.generate(&hello("demo"));
    server.signal(Signal::SIGTERM);
    let (done, ended) = mpsc::channel();
    let status = thread::scope(|scope| {
        scope.spawn(|| done.send(server.exit()));
        ended.recv_timeout(Duration::from_secs(5))
    });
    assert_eq!(status.expect("it does not sleep").code(), Some(0));
}

#[test]
fn workers_die_with_a_parent_that_was_killed() {
    let server = Server::demo();
    server.generate(&hello("demo"));
    let worker = server.ready_worker("demo");
    server.signal(Signal::SIGKILL);
    until_true("the worker follows", || !worker.runs());
}

#[test]
fn an_idle_model_leaves_after_its_keep_alive() {
    let server = Server::with_fixture(Fixture::TinyLlama, "");
    let mut ask = hello("tiny");
    ask["keep_alive"] = json!("300ms");
    server.generate(&ask);
    until_true("the worker is gone", || server.workers().is_empty());
    assert_eq!(server.metric("arriero_model_evictions_total", "reason=\"idle\""), 1.0);
    let ps = server.get("/api/ps").json().expect("JSON");
    assert_eq!(ps, json!({ "models": [] }));
}
