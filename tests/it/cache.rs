//! Answers are kept and given again: in any API, across a restart, between instances, and never where that would be wrong.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::{Request, Response};
use crate::lab::{Api, Fault, Lab};
use crate::valkey::Valkey;

/// A chat that is the same question in both APIs.
fn question(text: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": text }], "stream": false,
        "options": { "num_predict": 6, "temperature": 0 }, "max_tokens": 6, "temperature": 0 })
}

fn ask(text: &str) -> Request {
    Request::post("/api/chat", &question(text))
}

/// Where the answer came from, and its text.
fn told(response: Response) -> (String, String) {
    assert_eq!(response.status, 200);
    let source = response.header("x-arriero-cache").expect("the header").to_owned();
    let body = response.json().expect("JSON");
    let text = [&body["message"]["content"], &body["choices"][0]["message"]["content"]];
    let text = text.iter().find_map(|text| text.as_str()).expect("text");
    (source, text.to_owned())
}

fn source(server: &Server, request: &Request) -> String {
    told(server.send(request)).0
}

/// A server in front of `lab`; `cache` is its section `cache.responses`.
fn front(lab: &Lab, cache: &str) -> Server {
    Server::start(&format!("nodes: [{}]\ncache: {{ responses: {{ {cache} }} }}", lab.entry("box")))
}

fn purge(server: &Server, query: &str) -> Value {
    let response =
        Request::new("DELETE", &format!("/admin/v1/cache{query}")).send(&server.admin).expect("an answer");
    assert_eq!(response.status, 200);
    response.json().expect("JSON")["purged"].clone()
}

#[test]
fn an_answer_is_kept_for_every_api() {
    let tiny = model(Fixture::TinyLlama, "parallel: 2, context: 512");
    let server = Server::start(&format!("models: {{ m: {tiny} }}\ncache: {{}}"));
    let mut streamed = question("Hello");
    streamed["stream"] = json!(true);
    let lines = server.post("/api/chat", &streamed).ndjson().expect("NDJSON");
    let text: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    let first = lines.last().expect("a line").clone();

    let hit = server.post("/v1/chat/completions", &question("Hello"));
    assert_eq!(hit.header("age"), Some("0"));
    assert_eq!(told(hit), ("hit".to_owned(), text.clone()));
    let mut hit = server.post("/api/chat", &streamed);
    assert_eq!(hit.header("x-arriero-cache"), Some("hit"));
    assert_eq!(hit.header("x-arriero-node"), Some("m-0"));
    let mut again = Vec::new();
    while let Some(line) = hit.line().expect("a stream") {
        again.push(serde_json::from_str::<Value>(&line).expect("JSON"));
    }
    assert_eq!(again.len(), lines.len(), "piece by piece as it came");
    let last = again.last().expect("a line");
    for key in ["eval_count", "prompt_eval_count", "eval_duration", "prompt_eval_duration", "done_reason"] {
        assert_eq!(last[key], first[key], "{key}");
    }
    assert_eq!(server.metric("arriero_cache_requests_total", "result=\"hit\""), 2.0);
    let other = server.post("/v1/chat/completions", &question("Good bye"));
    assert_eq!(other.header("age"), None);
    assert_eq!(told(other).0, "miss");
}

#[test]
fn only_what_would_be_the_same_again_is_kept() {
    let lab = Lab::start(Api::Ollama, Fault::None);
    let server = front(&lab, "models: { m: {} }");
    let with = |options: Value| {
        let mut body = question("Hello");
        body["options"] = options;
        Request::post("/api/chat", &body)
    };
    for (options, is_kept) in [
        (json!({ "num_predict": 3 }), false),
        (json!({ "num_predict": 3, "temperature": 0.8 }), false),
        (json!({ "num_predict": 3, "temperature": 0.8, "seed": 7 }), true),
        (json!({ "num_predict": 4, "temperature": 0 }), true),
    ] {
        let request = with(options.clone());
        assert_ne!(source(&server, &request), "hit", "{options}");
        assert_eq!(source(&server, &request) == "hit", is_kept, "{options}");
    }
    lab.set(Fault::EndsAfter(2));
    let cut = ask("cut off");
    assert_ne!(server.send(&cut).status, 200);
    lab.set(Fault::None);
    assert_eq!(source(&server, &cut), "miss");
}

#[test]
fn a_request_says_what_it_takes() {
    let lab = Lab::start(Api::Ollama, Fault::None);
    let server = front(&lab, "");
    let control = |text: &str, value: &str| ask(text).header("Cache-Control", value);
    let none = server.send(&control("a", "only-if-cached"));
    assert_eq!(none.status, 504);
    assert!(none.json().expect("JSON")["error"].is_string());
    assert_eq!(source(&server, &control("a", "no-store")), "bypass");
    assert_eq!(source(&server, &ask("a")), "miss", "nothing was stored");
    assert_eq!(source(&server, &control("a", "only-if-cached")), "hit");
    assert_eq!(lab.asked(), 2);
    assert_eq!(source(&server, &control("a", "no-cache")), "bypass");
    assert_eq!(lab.asked(), 3);
    assert_eq!(source(&server, &ask("a")), "hit");
    assert_eq!(source(&server, &control("a", "max-age=100")), "hit");
    assert_eq!(source(&server, &control("a", "max-age=0")), "miss");
    assert_eq!(source(&server, &ask("a").header("Authorization", "Bearer x")), "miss", "another tenant");
    assert_eq!(source(&server, &ask("a").header("Authorization", "Bearer x")), "hit");
    assert_eq!(lab.asked(), 5);
}

#[test]
fn entries_are_shown_and_purged() {
    let lab = Lab::start(Api::Ollama, Fault::None);
    let server = front(&lab, "");
    let get = |path: &str| Request::get(path).send(&server.admin).expect("an answer").json().expect("JSON");
    for text in ["a", "b", "c"] {
        source(&server, &ask(text));
    }
    let shown = get("/admin/v1/cache");
    assert_eq!((&shown["tiers"][0]["tier"], &shown["tiers"][0]["entries"]), (&json!("memory"), &json!(3)));
    let entries = get("/admin/v1/cache/entries?model=M:latest&limit=2");
    let entries = entries["memory"].as_array().expect("a list");
    assert_eq!((entries.len(), &entries[0]["model"]), (2, &json!("m")));
    let key = entries[0]["key"].as_str().expect("a key");
    assert_eq!(purge(&server, &format!("?key={key}"))["memory"], 1);
    assert_eq!(purge(&server, "?model=other")["memory"], 0);
    assert_eq!(purge(&server, "?model=m")["memory"], 2);
    assert_eq!(source(&server, &ask("a")), "miss");
    assert_eq!(purge(&server, "")["memory"], 1);
    let unknown = Request::new("DELETE", "/admin/v1/cache?key=7").send(&server.admin).expect("an answer");
    assert_eq!(unknown.status, 400);
    let foreign =
        Request::new("DELETE", "/admin/v1/cache").header("Host", "evil.example").send(&server.admin);
    assert_eq!(foreign.expect("an answer").status, 403);
}

#[test]
fn answers_are_made_before_anybody_asks() {
    let lab = Lab::start(Api::Ollama, Fault::None);
    let server = front(&lab, "");
    let line = |text: &str| json!({ "path": "/api/chat", "body": question(text) }).to_string();
    let lines = format!("{}\n\n{{}}\n{}\n", line("a"), line("b"));
    let warmed =
        Request::new("POST", "/admin/v1/cache/warm").body(lines).send(&server.admin).expect("an answer");
    let warmed = warmed.json().expect("JSON");
    assert_eq!((&warmed["done"], &warmed["failed"][0]["line"]), (&json!(2), &json!(3)));
    assert_eq!((source(&server, &ask("a")), source(&server, &ask("b"))), ("hit".into(), "hit".into()));
    assert_eq!(lab.asked(), 2);
}

/// A server with a model of its own and a cache on disk, all in `folder`.
fn on_disk(folder: &Path) -> Server {
    let folder = folder.display();
    let disk = format!("disk: {{ budget: 16MiB, dir: \"{folder}/cache\" }}, ttl: 1h");
    let model = format!("{{ path: \"{folder}/model.gguf\", parallel: 1, context: 256 }}");
    Server::start(&format!("models: {{ m: {model} }}\ncache: {{ responses: {{ {disk} }} }}"))
}

#[test]
fn what_is_on_disk_is_known_after_a_restart_but_not_of_another_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let install = |fixture: Fixture| {
        let file = fixture.file_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a fixture");
        std::fs::copy(file, folder.path().join("model.gguf")).expect("it can be copied");
    };
    install(Fixture::TinyLlama);
    let mut first = on_disk(folder.path());
    let (_, text) = told(first.send(&ask("a")));
    told(first.send(&ask("b")));
    first.signal(Signal::SIGTERM);
    assert!(first.exit().success());

    let mut second = on_disk(folder.path());
    let hit = second.send(&ask("a"));
    assert!(hit.header("age").is_some());
    assert_eq!(told(hit), ("hit".to_owned(), text));
    assert!(second.workers().is_empty(), "no worker was needed");
    assert_eq!(purge(&second, "?model=m")["disk"], 2);
    assert_eq!(source(&second, &ask("b")), "miss");
    assert_eq!(source(&second, &ask("b")), "hit");
    // Written behind the requests: killed without a word, it has at least what it has written.
    until_true("it is written", || second.metric("arriero_cache_entries", "tier=\"disk\"") == 1.0);
    second.signal(Signal::SIGKILL);
    second.exit();

    let mut third = on_disk(folder.path());
    assert_eq!(source(&third, &ask("b")), "hit");
    third.signal(Signal::SIGTERM);
    third.exit();
    install(Fixture::TinyPlane);
    let fourth = on_disk(folder.path());
    assert_eq!(source(&fourth, &ask("b")), "miss", "another file under the same name");
}

#[test]
fn of_a_batch_only_new_inputs_are_embedded() {
    let bert = model(Fixture::TinyBert, "");
    let server = Server::start(&format!("models: {{ m: {bert} }}\ncache: {{}}"));
    let embed = |from: usize, to: usize| {
        let inputs: Vec<String> = (from..to).map(|number| format!("text number {number}")).collect();
        let response = server.post("/api/embed", &json!({ "model": "m", "input": inputs }));
        let source = response.header("x-arriero-cache").expect("the header").to_owned();
        (source, response.json().expect("JSON"))
    };
    let (_, known) = embed(0, 90);
    let (source, mixed) = embed(0, 100);
    assert_eq!(source, "miss");
    assert_eq!(
        server.metric("arriero_cache_requests_total", "tier=\"embeddings\",result=\"hit\"")
            + server.metric("arriero_cache_requests_total", "result=\"hit\",tier=\"embeddings\""),
        90.0
    );
    let vectors = |answer: &Value| answer["embeddings"].as_array().expect("vectors").clone();
    assert_eq!(vectors(&mixed)[..90], vectors(&known)[..]);
    let (source, again) = embed(0, 100);
    assert_eq!((source.as_str(), &again["embeddings"]), ("hit", &mixed["embeddings"]));
    assert_eq!(again["prompt_eval_count"], mixed["prompt_eval_count"]);
}

#[test]
fn another_configuration_is_in_force_at_once_and_loses_nothing_that_it_has_room_for() {
    let (lab, folder) = (Lab::start(Api::Ollama, Fault::None), tempfile::tempdir().expect("a folder"));
    let config =
        |cache: &str| format!("nodes: [{}]\ncache: {{ responses: {{ {cache} }} }}", lab.entry("box"));
    let server = Server::start(&config(""));
    let reload = |cache: &str| {
        server.rewrite(&config(cache));
        let told = Request::post("/admin/v1/reload", &json!({})).send(&server.admin).expect("an answer");
        (told.status, told.json().expect("JSON"))
    };
    assert_eq!(source(&server, &ask("a")), "miss");
    let (status, told) = reload("memory: 8MiB, policy: lru");
    assert_eq!((status, told["changed"].as_array().expect("a list").len()), (200, 2), "{told}");
    assert_eq!(source(&server, &ask("a")), "hit", "it has moved");

    let disk = format!("disk: {{ budget: 16MiB, dir: \"{}\" }}", folder.path().display());
    assert_eq!(reload(&disk).0, 200);
    assert_eq!(source(&server, &ask("b")), "miss");
    until_true("it is on disk", || server.metric("arriero_cache_entries", "tier=\"disk\"") == 1.0);
    assert_eq!(reload("enabled: false").0, 200);
    assert_eq!(source(&server, &ask("b")), "miss", "nothing is kept");
    assert_eq!(reload(&format!("{disk}, memory: 1")).0, 200);
    assert_eq!(source(&server, &ask("b")), "hit", "the file was there");

    let (status, told) = reload("shared: { url: \"rediss://127.0.0.1:1\", ca: /nowhere.pem }");
    assert_eq!(status, 400, "{told}");
    assert_eq!(source(&server, &ask("b")), "hit", "all is as it was");
    assert_eq!(reload("models: { m: { enabled: false } }").0, 200);
    assert_eq!(source(&server, &ask("b")), "miss");
}

/// Two servers that share what is kept.
fn two(lab: &Lab, valkey: &Valkey, shared: &str) -> [Server; 2] {
    let cache = format!("shared: {{ url: \"{}\", {shared} }}", valkey.url());
    [front(lab, &cache), front(lab, &cache)]
}

#[test]
fn what_one_instance_has_computed_another_one_need_not() {
    let (lab, valkey) = (Lab::start(Api::Ollama, Fault::None), Valkey::start());
    let [one, other] = two(&lab, &valkey, "deadline: 500ms");
    let (first, text) = told(one.send(&ask("a")));
    assert_eq!(first, "miss");
    // It is sent there behind the answer.
    until_true("the other one has it", || {
        let found = other.send(&ask("a").header("Cache-Control", "only-if-cached"));
        found.status == 200 && told(found) == ("hit".to_owned(), text.clone())
    });
    assert_eq!(lab.asked(), 1);
    assert_eq!(purge(&one, "?model=m")["shared"], 1);

    // Both at once, with an answer that takes a while.
    let mut long = question("b");
    long["options"]["num_predict"] = json!(400);
    let long = Request::post("/api/chat", &long);
    let texts: Vec<_> = thread::scope(|scope| {
        let asking = [&one, &other].map(|server| scope.spawn(|| told(server.send(&long)).1));
        asking.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    assert_eq!(texts[0], texts[1]);
    assert_eq!(lab.asked(), 2, "one generation");
}

#[test]
fn an_instance_whose_client_leaves_lets_the_other_one_compute_at_once() {
    // The first never gets an answer; the second would wait for its lease for a minute.
    let (stuck, lab, valkey) =
        (Lab::start(Api::Ollama, Fault::Stalls), Lab::start(Api::Ollama, Fault::None), Valkey::start());
    let shared = format!(
        "shared: {{ url: \"{}\", deadline: 500ms, lease: {{ wait: 60s, time: 60s }} }}",
        valkey.url()
    );
    let patient = stuck.entry("box").replace("first_byte: 500ms", "first_byte: 60s");
    let one = Server::start(&format!("nodes: [{patient}]\ncache: {{ responses: {{ {shared} }} }}"));
    let other = front(&lab, &shared);
    let leaving = ask("a").header("X-Request-Timeout-Ms", "2000");
    assert_eq!(one.send(&leaving).status, 504);
    assert_eq!(stuck.asked(), 1, "it had begun");
    let from = Instant::now();
    assert_eq!(source(&other, &ask("a")), "miss");
    assert!(from.elapsed() < Duration::from_secs(20), "{:?}", from.elapsed());
}

#[test]
fn a_shared_cache_that_dies_or_hangs_fails_nobody_and_holds_up_nobody_for_long() {
    let (lab, valkey) = (Lab::start(Api::Ollama, Fault::None), Valkey::start());
    let [one, other] = two(&lab, &valkey, "deadline: 20ms, pause: 10m");
    for (server, signal) in [(&one, Signal::SIGSTOP), (&other, Signal::SIGKILL)] {
        let answered = &AtomicUsize::new(0);
        let times: Vec<Duration> = thread::scope(|scope| {
            let load = |client: usize| {
                scope.spawn(move || {
                    let ask_one = |number: usize| {
                        let from = Instant::now();
                        told(server.send(&ask(&format!("{signal} {client} {number}"))));
                        answered.fetch_add(1, Ordering::SeqCst);
                        from.elapsed()
                    };
                    (0..50).map(ask_one).collect::<Vec<_>>()
                })
            };
            let clients: Vec<_> = (0..4).map(load).collect();
            until_true("the load is under way", || answered.load(Ordering::SeqCst) >= 20);
            valkey.signal(signal);
            clients.into_iter().flat_map(|client| client.join().expect("no request fails")).collect()
        });
        assert_eq!(times.len(), 200);
        let failed = server.metric("arriero_cache_requests_total", "result=\"failed\"");
        assert!((1.0..=12.0).contains(&failed), "{signal}: those that were under way, {failed}");
        if signal == Signal::SIGSTOP {
            valkey.signal(Signal::SIGCONT);
        }
    }
}
