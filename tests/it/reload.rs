//! A configuration that changes under load, and nodes that are registered while requests run.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until, until_true};
use crate::http::{Request, Response};
use crate::lab::{Api, Fault, Lab};

/// Clients that ask over and over.
const CLIENTS: usize = 8;
/// An answer that takes long enough to change things meanwhile.
const LONG: usize = 6000;

fn admin(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::new(method, path).body(body.to_string());
    let response = request.send(&server.admin).expect("an answer");
    (response.status, response.json().expect("JSON"))
}

fn reload(server: &Server, config: &str) -> Vec<String> {
    server.rewrite(config);
    let (status, told) = admin(server, "POST", "/admin/v1/reload", &json!({}));
    assert_eq!(status, 200, "{told}");
    let changed = told["changed"].as_array().expect("a list").iter();
    changed.map(|line| line.as_str().expect("text").to_owned()).collect()
}

fn tiny(settings: &str) -> String {
    model(Fixture::TinyLlama, settings)
}

fn ask(model: &str, tokens: usize) -> Value {
    // Where the likeliest token is taken, the fixture never ends by itself.
    let options = json!({ "num_predict": tokens, "temperature": 0 });
    json!({ "model": model, "prompt": "Once", "raw": true, "options": options })
}

/// The number of tokens of an answer that must be whole.
fn whole(response: Response) -> usize {
    assert_eq!(response.status, 200);
    let lines = response.ndjson().expect("NDJSON");
    let last = lines.last().expect("a line");
    assert_eq!(last["done"], true, "{last}");
    last["eval_count"].as_u64().and_then(|count| count.try_into().ok()).expect("a count")
}

/// The nodes that requests for `model` can go to.
fn nodes_of(server: &Server, model: &str) -> Vec<String> {
    let (_, listed) = admin(server, "GET", "/admin/v1/nodes", &Value::Null);
    let serves = |node: &&Value| {
        node["models"].as_array().expect("a list").iter().any(|serving| serving["model"] == model)
    };
    let nodes = listed["nodes"].as_array().expect("a list").iter().filter(serves);
    nodes.map(|node| node["name"].as_str().expect("a name").to_owned()).collect()
}

/// Ends what watches it, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Has clients ask for these models while `disturb` runs, which gets something to call that waits until all have been answered once more.
fn under_load(server: &Server, models: &[&str], disturb: impl FnOnce(&dyn Fn())) {
    let (stops, answered) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; CLIENTS]);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (stops, answered) = (&stops, &answered[client]);
                scope.spawn(move || {
                    let name = models[client % models.len()];
                    while !stops.load(Ordering::SeqCst) {
                        whole(server.post("/api/generate", &ask(name, 5)));
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let all_again = || {
            let before: Vec<_> = answered.iter().map(|count| count.load(Ordering::SeqCst)).collect();
            // The second answer from now on has been asked for now.
            until_true("all are answered", || {
                let failed = clients.iter().any(thread::ScopedJoinHandle::is_finished);
                assert!(!failed, "a request failed");
                answered.iter().zip(&before).all(|(now, before)| now.load(Ordering::SeqCst) >= before + 2)
            });
        };
        let stop = Stop(&stops);
        disturb(&all_again);
        drop(stop);
        clients.into_iter().for_each(|client| client.join().expect("no request fails"));
    });
}

#[test]
fn nodes_models_and_strategies_change_under_load_without_a_failed_request() {
    let labs: Vec<_> = (0..3).map(|index| Lab::start(Api::ALL[index % 2], Fault::None)).collect();
    let config = |nodes: &[String], changing: &str, more: &str| {
        format!(
            "models: {{ stays: {}, {changing} }}\nnodes: [{}]\n{more}",
            tiny("parallel: 2"),
            nodes.join(", ")
        )
    };
    let node = |index: usize| labs[index].entry(&format!("n{index}"));
    let first = format!("changes: {}", tiny("parallel: 4"));
    let server = Server::start(&config(&[node(0), node(1)], &first, ""));
    whole(server.post("/api/generate", &ask("stays", 1)));
    let stays = server.ready_worker("stays").pid;
    under_load(&server, &["m", "changes", "stays"], |all_again| {
        all_again();
        let changes = server.ready_worker("changes").pid;
        let told = reload(&server, &config(&[node(0), node(1), node(2)], &first, ""));
        assert!(told.len() == 1 && told[0].starts_with("nodes.n2: "), "{told:?}");
        all_again();
        reload(&server, &config(&[node(1), node(2)], &first, ""));
        all_again();
        assert_eq!(nodes_of(&server, "m"), ["n1", "n2"]);
        let asked = labs[0].asked();
        let heavier = labs[1].entry("n1").replace("max_in_flight: 64", "max_in_flight: 64, weight: 7");
        let told = reload(&server, &config(&[heavier.clone(), node(2)], &first, ""));
        assert_eq!(told, ["nodes.n1.weight: 1 -> 7"]);
        all_again();
        assert_eq!(labs[0].asked(), asked, "who was removed is asked no more");
        assert_eq!(server.ready_worker("changes").pid, changes);

        let nodes = [heavier, node(2)];
        let second = format!("changes: {}", tiny("parallel: 3"));
        let told = reload(&server, &config(&nodes, &second, ""));
        assert_eq!(told, ["models.changes.parallel: 4 -> 3"]);
        all_again();
        until_true("the old worker is gone", || {
            let mut workers = server.workers().into_iter().filter(|worker| worker.is_of("changes"));
            workers.all(|worker| worker.pid != changes && worker.spec.parallel == 3)
        });
        let worker = server.ready_worker("changes").pid;
        let aliased = second.replace("parallel: 3", "parallel: 3, aliases: [also], keep_alive: 1h");
        reload(&server, &config(&nodes, &aliased, ""));
        whole(server.post("/api/generate", &ask("also", 1)));
        assert_eq!(server.ready_worker("changes").pid, worker, "a worker knows nothing of such keys");

        let added = format!("{second}, new: {}", tiny("preload: true"));
        reload(&server, &config(&nodes, &added, ""));
        assert_eq!(whole(server.post("/api/generate", &ask("new", 3))), 3);
        reload(&server, &config(&nodes, &second, ""));
        assert_eq!(server.post("/api/generate", &ask("new", 3)).status, 404);
        assert_eq!(server.post("/api/generate", &ask("also", 3)).status, 404);
        until_true("its worker is gone", || !server.workers().iter().any(|worker| worker.is_of("new")));

        let more = "routing: { strategy: learned }\nheaders: false\nqueue: { depth: 9 }\nworkers: { keep_alive: 1h }";
        assert_eq!(reload(&server, &config(&nodes, &second, more)).len(), 4);
        all_again();
        let plain = server.post("/api/generate", &ask("m", 5));
        assert_eq!(plain.header("x-arriero-node"), None);
        server.rewrite(&config(&nodes, &second, ""));
        server.signal(Signal::SIGHUP);
        until_true("the signal has been heard", || {
            server.post("/api/generate", &ask("m", 5)).header("x-arriero-node").is_some()
        });
        all_again();
    });
    assert_eq!(server.ready_worker("stays").pid, stays);
    assert_eq!(server.metric("arriero_worker_restarts_total", ""), 0.0);
}

#[test]
fn a_bad_file_changes_nothing() {
    let lab = Lab::start(Api::Ollama, Fault::None);
    let good = |more: &str| {
        format!("models: {{ tiny: {} }}\nnodes: [{}]\n{more}", tiny("preload: true"), lab.entry("n0"))
    };
    let server = Server::start(&good(""));
    let pid = server.ready_worker("tiny").pid;
    let with = |node: &str| good("").replace("\nnodes: [", &format!("\nnodes: [{node}, "));
    let other = "models: { tiny: { path: /nowhere/m.gguf }, more: { path: \"builtin:demo\" } }".to_owned();
    for (config, status, words) in [
        (good("").replace("preload: true", "preload: perhaps"), 400, "models.tiny.preload"),
        (with("{ name: tiny, url: \"unix:/a\", models: [x] }"), 400, "the name \"tiny\" is taken"),
        (with("{ name: x, url: \"https://a\", tls: { ca: /nowhere } }"), 400, "tls.ca"),
        (other, 400, "/nowhere/m.gguf cannot be read"),
        (good("workers: { sandbox: false }"), 409, "workers.sandbox: true -> false"),
        ("models: [".to_owned(), 400, "arriero.yaml"),
    ] {
        server.rewrite(&config);
        let (found, told) = admin(&server, "POST", "/admin/v1/reload", &json!({}));
        assert_eq!(found, status, "{told}");
        assert!(told["problems"].to_string().contains(&words.replace('"', "\\\"")), "{told}");
        assert_eq!(nodes_of(&server, "m"), ["n0"]);
        assert_eq!(server.post("/api/generate", &ask("more", 1)).status, 404);
        whole(server.post("/api/generate", &ask("tiny", 2)));
    }
    assert_eq!(server.ready_worker("tiny").pid, pid);
}

#[test]
fn what_runs_on_a_model_that_changes_or_goes_is_finished_there() {
    let config =
        |settings: &str| format!("models: {{ tiny: {} }}\ncoalesce: {{ mode: \"off\" }}", tiny(settings));
    let server = Server::start(&config("parallel: 2"));
    let begin = || {
        let mut stream = server.post("/api/generate", &ask("tiny", LONG));
        assert_eq!(stream.status, 200);
        assert!(stream.line().expect("a stream").is_some());
        stream
    };
    let old = begin();
    let old_worker = server.ready_worker("tiny");
    reload(&server, &config("parallel: 4"));
    assert!(old_worker.health().is_some_and(|(_, health)| health.busy == 1), "it runs");
    let new = begin();
    assert_eq!(
        (old.header("x-arriero-node"), new.header("x-arriero-node")),
        (Some("tiny-0"), Some("tiny-1"))
    );
    reload(&server, "models: { other: { path: \"builtin:demo\" } }");
    assert_eq!(server.post("/api/generate", &ask("tiny", 1)).status, 404);
    for stream in [old, new] {
        assert_eq!(whole(stream), LONG);
    }
    until_true("both workers are gone", || server.workers().is_empty());
    assert_eq!(server.metric("arriero_model_evictions_total", "changed"), 2.0);
    assert_eq!(server.metric("arriero_model_loaded", ""), 0.0);
}

#[test]
fn a_registered_node_outlives_the_process_and_a_damaged_file_is_set_aside() {
    let (lab, state) = (Lab::start(Api::Ollama, Fault::None), tempfile::tempdir().expect("a directory"));
    let fixed = Lab::start(Api::OpenAi, Fault::None);
    let config = format!("state: {}\nnodes: [{}]", state.path().display(), fixed.entry("fixed"));
    let entry = |name: &str| {
        json!({ "name": name, "url": format!("http://{}", lab.address), "protocol": "ollama", "models": ["x"],
            "api_key": "hidden" })
    };
    let mut server = Server::start(&config);
    assert_eq!(admin(&server, "POST", "/admin/v1/nodes", &entry("far")), (201, json!({ "node": "far" })));
    whole(server.post("/api/generate", &ask("x", 5)));
    let mut wrong = entry("other");
    wrong["weight"] = json!(0);
    for (method, path, body, status, words) in [
        ("POST", "/admin/v1/nodes", entry("far"), 409, "registered already"),
        ("POST", "/admin/v1/nodes", wrong, 400, "request: weight: must be"),
        ("PUT", "/admin/v1/nodes/fixed", entry("fixed"), 409, "in the configuration"),
        ("DELETE", "/admin/v1/nodes/fixed", Value::Null, 409, "in the configuration"),
        ("PUT", "/admin/v1/nodes/far", entry("near"), 400, "as in the path"),
        ("DELETE", "/admin/v1/nodes/nobody", Value::Null, 404, "not found"),
    ] {
        let (found, told) = admin(&server, method, path, &body);
        assert_eq!(found, status, "{told}");
        assert!(told["error"].as_str().is_some_and(|error| error.contains(words)), "{told}");
    }
    let file = state.path().join("nodes.json");
    assert_eq!(file.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
    reload(&server, &format!("{config}\nqueue: {{ depth: 3 }}"));
    assert_eq!(nodes_of(&server, "x"), ["far"], "a reload leaves it alone");
    server.signal(Signal::SIGTERM);
    server.exit();

    let mut server = Server::start(&config);
    whole(server.post("/api/generate", &ask("x", 5)));
    let mut changed = entry("far");
    changed["models"] = json!(["y"]);
    assert_eq!(admin(&server, "PUT", "/admin/v1/nodes/far", &changed).0, 200);
    assert_eq!((nodes_of(&server, "x").len(), nodes_of(&server, "y").len()), (0, 1));
    server.signal(Signal::SIGKILL);
    server.exit();

    let taken = format!("{config}\nmodels: {{ demo: {{ path: \"builtin:demo\", aliases: [far] }} }}");
    let mut server = Server::start(&taken);
    assert_eq!(nodes_of(&server, "y"), [""; 0], "the name is the configuration's now");
    until_true("the log says so", || {
        server.log().iter().any(|line| line["problem"].to_string().contains("the name \\\"far\\\" is taken"))
    });
    server.signal(Signal::SIGKILL);
    server.exit();

    std::fs::write(&file, "{\"nodes\": [{").expect("it can be written");
    let server = Server::start(&config);
    assert_eq!(nodes_of(&server, "y"), [""; 0]);
    assert!(!file.exists() && state.path().join("nodes.json.damaged").exists());
    whole(server.post("/api/generate", &ask("m", 5)));
    assert_eq!(admin(&server, "PUT", "/admin/v1/nodes/far", &entry("far")).0, 201);
}

#[test]
fn a_stream_of_a_node_that_is_deleted_comes_to_its_end() {
    let far = Server::start(&format!("models: {{ tiny: {} }}", tiny("parallel: 2")));
    let state = tempfile::tempdir().expect("a directory");
    let near = Server::start(&format!("state: {}\nmodels: {{}}", state.path().display()));
    let entry = json!({ "url": format!("http://{}", far.data.host()), "protocol": "arriero" });
    assert_eq!(admin(&near, "PUT", "/admin/v1/nodes/box", &entry), (201, json!({ "node": "box" })));
    let mut stream = until("it has told its models", || {
        let response = near.post("/api/generate", &ask("tiny", LONG));
        (response.status == 200).then_some(response)
    });
    assert!(stream.line().expect("a stream").is_some());
    assert_eq!(admin(&near, "DELETE", "/admin/v1/nodes/box", &Value::Null).0, 200);
    let busy = far.ready_worker("tiny").health().map(|(_, health)| health.busy);
    assert_eq!(busy, Some(1), "it runs");
    assert_eq!(near.post("/api/generate", &ask("tiny", 1)).status, 503);
    assert_eq!(whole(stream), LONG);
    assert_eq!(near.metric("arriero_retries_total", ""), 0.0);
}
