//! Arrieros that are nodes of each other: requests do not go round in circles, and models do not outlive whoever has them.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::{Address, Request, Response};
use crate::lab::{Api, Fault, Lab};

/// An address that leads to a server once it is told to which: of two servers that are to know each other, one starts first.
struct Bridge {
    address: SocketAddr,
    to: Arc<OnceLock<SocketAddr>>,
}

impl Bridge {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let to: Arc<OnceLock<SocketAddr>> = Arc::default();
        let known = Arc::clone(&to);
        // Both end with the test's process.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Some(far) = known.get().and_then(|to| TcpStream::connect(to).ok()) else { continue };
                let halves = (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
                thread::spawn(move || carry(halves.0, far));
                thread::spawn(move || carry(halves.1, near));
            }
        });
        Self { address, to }
    }

    fn lead(&self, server: &Server) {
        let Address::Tcp(address) = server.data else { panic!("a TCP port") };
        self.to.set(address).expect("not told before");
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    // A connection that breaks is closed on both sides.
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}

/// A ring of servers, each of which has the next one as its node `next` and something else of its own.
fn ring(protocol: &str, own: &[String]) -> Vec<Server> {
    let bridges: Vec<_> = own.iter().map(|_| Bridge::new()).collect();
    let server = |(index, own): (usize, &String)| {
        let next = bridges[(index + 1) % bridges.len()].address;
        let (models, nodes) = own.split_once('|').unwrap_or((own, ""));
        Server::start(&format!(
            "models: {{ {models} }}\nnodes:\n  - {{ name: next, url: \"http://{next}\", protocol: {protocol}, refresh: 100ms }}\n{nodes}\n\
             health: {{ interval: 100ms }}\nrouting: {{ strategy: round_robin }}",
        ))
    };
    let servers: Vec<_> = own.iter().enumerate().map(server).collect();
    bridges.iter().zip(&servers).for_each(|(bridge, server)| bridge.lead(server));
    servers
}

fn question(model: &str) -> Value {
    json!({"model": model, "prompt": "Tell", "options": {"num_predict": 5, "seed": 1}})
}

#[test]
fn two_that_list_each_other_serve_what_either_has() {
    for protocol in ["arriero", "openai"] {
        let tiny = format!("tiny: {}", model(Fixture::TinyLlama, ""));
        let servers = ring(protocol, &[format!("{tiny}, other: {}", model(Fixture::TinyLlama, "")), tiny]);
        for server in &servers {
            until_true("the models are found", || server.model_names() == ["other:latest", "tiny:latest"]);
        }
        for server in &servers {
            for _ in 0..6 {
                server.generate(&question("tiny"));
                server.generate(&question("other"));
            }
            assert_eq!(server.metric("arriero_breaker_transitions_total", ""), 0.0, "{protocol}");
        }
        // Whoever is asked by the other one is not told what it has from there.
        let asks = Request::get("/api/tags").header("Via", "1.1 arriero-00000000000000ff");
        let told = servers[1].send(&asks);
        assert!(told.header("via").is_some_and(|via| via.starts_with("1.1 arriero-")));
        let told = told.json().expect("JSON");
        let way = |name: &str| {
            let models = told["models"].as_array().expect("a list").iter();
            let found = models.into_iter().find(|model| model["name"] == name).expect("listed");
            found["via"].as_array().map_or(0, Vec::len)
        };
        assert_eq!((way("tiny:latest"), way("other:latest")), (0, 1), "{told}");
    }
}

#[test]
fn a_model_that_is_gone_is_gone_all_round() {
    for size in [2, 3] {
        let node = Lab::start(Api::Ollama, Fault::None);
        let entry = node.entry("lab").replace("models: [m]", "refresh: 100ms");
        let mut own = vec![format!("|  - {entry}")];
        own.resize(size, String::new());
        let servers = ring("arriero", &own);
        for server in &servers {
            until_true("all have it", || server.model_names() == ["m:latest"]);
            server.generate(&question("m"));
        }
        drop(node);
        for server in &servers {
            until_true("nobody has it", || server.model_names().is_empty());
        }
    }
}

#[test]
fn a_request_that_comes_back_is_refused_and_goes_elsewhere() {
    let tiny = format!("tiny: {}", model(Fixture::TinyLlama, ""));
    let servers = ring("arriero", &[tiny.clone(), tiny]);
    let hop = |server: &Server| {
        let asks = Request::get("/api/tags").header("Via", "1.1 arriero-00000000000000ff");
        server.send(&asks).header("via").expect("it says who it is").to_owned()
    };
    let own = hop(&servers[0]);
    let far = (1..=4).map(|number| format!("1.1 arriero-{number:016x}")).collect::<Vec<_>>().join(", ");
    for via in [own, far] {
        for (path, body) in [
            ("/api/generate", question("tiny")),
            (
                "/v1/chat/completions",
                json!({"model": "tiny", "messages": [{"role": "user", "content": "q"}]}),
            ),
        ] {
            let refused = servers[0].send(&Request::post(path, &body).header("Via", &via));
            assert_eq!(refused.status, 508, "{path} {via}");
            let error = refused.json().expect("JSON")["error"].to_string();
            assert!(error.contains("the request has come through"), "{error}");
        }
    }
    // What has come from the other one is not even sent there, once it has said who it is.
    let from_there = Request::post("/api/generate", &question("tiny")).header("Via", &hop(&servers[1]));
    until_true("they know each other", || {
        let answers = (0..8).map(|_| servers[0].send(&from_there));
        let way = |header: &str, answer: &Response| answer.header(header).map(str::to_owned);
        let mut ways =
            answers.map(|answer| (way("x-arriero-node", &answer), way("x-arriero-attempts", &answer)));
        ways.all(|(node, attempts)| node.as_deref() == Some("tiny-0") && attempts.as_deref() == Some("1"))
    });
}

#[test]
fn what_is_passed_on_and_comes_back_is_refused() {
    let bridge = Bridge::new();
    let server = Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }} }}\npassthrough: {{ url: \"http://{}\" }}",
        bridge.address
    ));
    bridge.lead(&server);
    let refused = server.post("/api/pull", &json!({"model": "m"}));
    assert_eq!(refused.status, 508);
    let error = refused.json().expect("JSON")["error"].to_string();
    assert!(error.contains("the request has come through"), "{error}");
}

#[test]
fn who_has_a_model_only_from_who_asks_says_so() {
    // Each is told that the other has it, and nobody does.
    let bridge = Bridge::new();
    let entry = |url: String| {
        Server::start(&format!(
            "nodes: [{{ name: next, url: \"http://{url}\", protocol: arriero, models: [m] }}]"
        ))
    };
    let first = entry(bridge.address.to_string());
    let second = entry(first.data.host().to_string());
    bridge.lead(&second);
    let refused = first.post("/api/generate", &question("m"));
    let status = refused.status;
    assert_eq!(status, 508, "{}", refused.text().expect("words"));
    for server in [&first, &second] {
        assert_eq!(server.metric("arriero_breaker_transitions_total", ""), 0.0);
    }
}
