//! Several nodes for one model: why a request goes where it goes, nodes taken out and put back, another strategy while requests run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Server, until_true};
use crate::http::{Request, Response};
use crate::lab::{Api, Fault, Lab, tokens};

/// The configuration of a pool of these nodes.
fn pool(nodes: &[Lab], strategy: &str) -> String {
    let entries =
        nodes.iter().enumerate().map(|(index, node)| format!("  - {}\n", node.entry(&format!("n{index}"))));
    format!("models: {{}}\nrouting: {{ strategy: {strategy} }}\nnodes:\n{}", entries.collect::<String>())
}

fn nodes(count: usize) -> Vec<Lab> {
    (0..count).map(|index| Lab::start(Api::ALL[index % 2], Fault::None)).collect()
}

fn question() -> Value {
    json!({ "model": "m", "prompt": "tell", "options": { "num_predict": 5 } })
}

fn admin(server: &Server, request: Request) -> (u16, Value) {
    let response: Response = request.send(&server.admin).expect("an answer");
    (response.status, response.json().expect("JSON"))
}

fn explained(server: &Server) -> Value {
    let (status, explained) = admin(server, Request::post("/admin/v1/route/explain", &question()));
    assert_eq!(status, 200, "{explained}");
    explained
}

#[test]
fn a_decision_is_explained_and_what_came_of_it_is_kept() {
    let nodes = nodes(4);
    let server = Server::start(&pool(&nodes, "round_robin"));
    let explanation = explained(&server);
    assert_eq!(explanation["strategy"], "round_robin");
    assert_eq!(explanation["candidates"].as_array().expect("a list").len(), 4);
    let next = explanation["node"].as_str().expect("a node").to_owned();
    assert_eq!(explained(&server)["node"], next, "asking changes nothing");
    let response = server.post("/api/generate", &question());
    assert_eq!(response.header("x-arriero-node"), Some(next.as_str()));
    assert_eq!(response.ndjson().expect("NDJSON").last().expect("an end")["done"], true);
    assert_ne!(explained(&server)["node"], next);
    until_true("the decision has come to its end", || {
        let (_, kept) = admin(&server, Request::get("/admin/v1/decisions"));
        let last = &kept["decisions"][0];
        last["node"] == next && last["outcome"] == "done" && last["total_seconds"].as_f64() > Some(0.0)
    });
}

#[test]
fn a_node_that_is_drained_gets_nothing_until_it_is_enabled() {
    let nodes = nodes(2);
    let server = Server::start(&pool(&nodes, "round_robin"));
    let post = |path: &str| admin(&server, Request::post(path, &json!({}))).0;
    assert_eq!(post("/admin/v1/nodes/n0/drain?reason=new%20memory"), 200);
    (0..6).for_each(|_| assert_eq!(server.generate(&question()), tokens(5).concat()));
    assert_eq!((nodes[0].asked(), nodes[1].asked()), (0, 6));
    let excluded = &explained(&server)["excluded"][0];
    assert_eq!(*excluded, json!({ "node": "n0", "reason": "draining: new memory" }));
    let (_, listed) = admin(&server, Request::get("/admin/v1/nodes"));
    assert_eq!(
        (&listed["nodes"][0]["condition"], &listed["nodes"][1]["condition"]),
        (&json!("draining"), &json!("healthy"))
    );
    assert_eq!(post("/admin/v1/nodes/n0/enable"), 200);
    (0..6).for_each(|_| assert_eq!(server.generate(&question()), tokens(5).concat()));
    assert_eq!(nodes[0].asked(), 3);
    assert_eq!(post("/admin/v1/nodes/n0/open"), 200);
    server.generate(&question());
    assert_eq!(nodes[0].asked(), 3);
    assert_eq!(server.metric("arriero_breaker_state", "n0"), 1.0);
    assert_eq!(post("/admin/v1/nodes/n0/reset"), 200);
    assert_eq!(post("/admin/v1/nodes/nobody/drain"), 404);
}

#[test]
fn another_strategy_is_taken_while_requests_run_and_a_bad_file_changes_nothing() {
    let nodes = nodes(4);
    let server = Server::start(&pool(&nodes, "round_robin"));
    let stops = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !stops.load(Ordering::SeqCst) {
                        assert_eq!(server.generate(&question()), tokens(5).concat());
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let reload = || admin(&server, Request::post("/admin/v1/reload", &json!({})));
        for (strategy, before) in
            [("learned", "round_robin"), ("prefix_affinity", "learned"), ("least_loaded", "prefix_affinity")]
        {
            server.rewrite(&pool(&nodes, strategy));
            let told = format!("routing.strategy: \"{before}\" -> \"{strategy}\"");
            assert_eq!(reload(), (200, json!({ "changed": [told] })));
            assert_eq!(explained(&server)["strategy"], strategy);
        }
        server.rewrite(&pool(&nodes, "fastest"));
        let (status, refused) = reload();
        assert_eq!(status, 400);
        assert!(
            refused["error"].as_str().is_some_and(|error| error.contains("routing.strategy")),
            "{refused}"
        );
        server.rewrite(&(pool(&nodes, "random") + "threads: 3\n"));
        let (status, refused) = reload();
        assert_eq!((status, &refused["problems"]), (409, &json!(["threads: 0 -> 3"])));
        assert_eq!(explained(&server)["strategy"], "least_loaded");
        server.rewrite(&pool(&nodes, "random"));
        server.signal(Signal::SIGHUP);
        until_true("the signal has been heard", || explained(&server)["strategy"] == "random");
        stops.store(true, Ordering::SeqCst);
        let asked: usize = clients.into_iter().map(|client| client.join().expect("no error")).sum();
        assert!(asked > 0);
    });
}
