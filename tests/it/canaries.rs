//! Generations of one token find a node that is there and cannot answer before a client does.

use serde_json::{Value, json};

use crate::harness::{Server, until_true};
use crate::http::Request;
use crate::lab::{Api, Fault, Lab, tokens};

fn server(node: &Lab, enabled: bool) -> Server {
    Server::start(&format!(
        "nodes: [{}]\nhealth:\n  interval: 100ms\n  canary: {{ enabled: {enabled}, interval: 100ms, timeout: 300ms }}",
        node.entry("box"),
    ))
}

fn condition(server: &Server) -> (String, String) {
    let listed = Request::get("/admin/v1/nodes").send(&server.admin).expect("an answer").json().expect("JSON");
    let text = |key: &str| listed["nodes"][0][key].as_str().expect("text").to_owned();
    (text("condition"), text("reason"))
}

fn question() -> Value {
    json!({"model": "m", "prompt": "tell", "options": {"num_predict": 5}})
}

#[test]
fn a_node_that_cannot_answer_is_taken_out_and_comes_back() {
    for fault in [Fault::Answers500, Fault::Stalls, Fault::DiesAfter(1), Fault::Garbage] {
        let node = Lab::start(Api::OpenAi, fault);
        let server = server(&node, true);
        until_true("it is out", || condition(&server).0 == "unhealthy");
        assert!(condition(&server).1.contains("canaries in a row failed"), "{fault:?}: {:?}", condition(&server));
        assert_eq!(server.metric("arriero_node_up", "box"), 0.0, "{fault:?}");
        assert!(server.metric("arriero_canaries_total", "result=\"failed\"") >= 3.0);
        assert_eq!(server.metric("arriero_requests_total", ""), 0.0, "no client had to find out");
        node.set(Fault::None);
        until_true("it is back", || condition(&server).0 == "healthy");
        assert_eq!(server.metric("arriero_node_up", "box"), 1.0);
        assert_eq!(server.generate(&question()), tokens(5).concat());
    }
}

#[test]
fn without_the_switch_and_without_a_model_in_memory_there_are_none() {
    let (silent, unloaded) = (Lab::start(Api::OpenAi, Fault::None), Lab::start(Api::Ollama, Fault::None));
    let servers = [server(&silent, false), server(&unloaded, true)];
    let other = Lab::start(Api::OpenAi, Fault::None);
    let sees = server(&other, true);
    until_true("there would have been some", || other.asked() >= 3);
    assert_eq!((silent.asked(), unloaded.asked()), (0, 0));
    assert!(servers.iter().all(|server| condition(server).0 == "healthy"));
    drop(sees);
}
