//! What is asked next is there before it is asked for, where that costs nobody anything.

use serde_json::{Value, json};

use crate::harness::{Server, until_true};
use crate::http::Request;
use crate::lab::{Api, Fault, Lab};

fn ask(session: &str, text: &str) -> Request {
    let options = json!({ "num_predict": 6, "temperature": 0 });
    let messages = json!([{ "role": "user", "content": text }]);
    let body = json!({ "model": "m", "messages": messages, "stream": false, "options": options });
    Request::post("/api/chat", &body).header("X-Session-Id", session)
}

fn source(server: &Server, request: &Request) -> String {
    let response = server.send(request);
    assert_eq!(response.status, 200);
    response.header("x-arriero-cache").expect("the header").to_owned()
}

fn counted(server: &Server, result: &str) -> f64 {
    server.metric("arriero_prefetches_total", &format!("result=\"{result}\""))
}

#[test]
fn what_has_come_twice_after_a_request_is_computed_after_it() {
    let lab = Lab::start(Api::Ollama, Fault::None);
    // Answers expire soon, so that what is expected is not kept any more.
    let server = Server::start(&format!(
        "nodes: [{}]\ncache: {{ responses: {{ ttl: 3s }}, prefetch: {{ enabled: true }} }}",
        lab.entry("box")
    ));
    for session in ["1", "2"] {
        source(&server, &ask(session, "first"));
        source(&server, &ask(session, "second"));
    }
    until_true("the answers have expired", || {
        server.send(&ask("", "second").header("Cache-Control", "only-if-cached")).status == 504
    });
    source(&server, &ask("3", "first"));
    until_true("it is made ahead", || counted(&server, "computed") == 1.0);
    let asked = lab.asked();
    assert_eq!(source(&server, &ask("3", "second")), "hit");
    assert_eq!((lab.asked(), counted(&server, "used")), (asked, 1.0));
    assert_eq!(server.metric("arriero_prefetch_predictions_total", "result=\"right\""), 1.0);
}

#[test]
fn what_is_on_disk_is_in_memory_before_it_is_asked_for() {
    let (lab, folder) = (Lab::start(Api::Ollama, Fault::None), tempfile::tempdir().expect("a folder"));
    let (disk, node) = (folder.path().display(), lab.entry("box"));
    // Memory that keeps nothing for longer than a moment.
    let server = Server::start(&format!(
        "nodes: [{node}]\ncache: {{ responses: {{ idle: 1s, disk: {{ budget: 16MiB, dir: \"{disk}\" }} }}, prefetch: {{ enabled: true }} }}"
    ));
    for session in ["1", "2"] {
        source(&server, &ask(session, "first"));
        source(&server, &ask(session, "second"));
    }
    until_true("they are on disk", || server.metric("arriero_cache_entries", "tier=\"disk\"") == 2.0);
    until_true("they are out of memory", || {
        let tiers: Value =
            Request::get("/admin/v1/cache").send(&server.admin).and_then(|it| it.json()).expect("JSON");
        tiers["tiers"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|it| it["tier"] == "memory" && it["entries"] == 0)
    });
    assert_eq!(source(&server, &ask("3", "first")), "hit");
    until_true("it is promoted", || counted(&server, "promoted") == 1.0);
    assert_eq!(lab.asked(), 2);
}
