//! The sandbox of workers, as the shipped executable enters it.

use arriero::generation::seam::{Confinement, Vitals};
use serde_json::{Value, json};

use crate::harness::{Server, Worker};
use crate::http::Request;

/// A fresh worker of the demo model that has answered a request.
fn worker(server: &Server) -> (Worker, Vitals) {
    let ask = json!({ "model": "demo", "prompt": "hello", "options": { "num_predict": 4 } });
    assert!(!server.generate(&ask).is_empty(), "it computes");
    let worker = server.ready_worker("demo");
    let (_, health) = worker.health().expect("health");
    (worker, health)
}

fn status(server: &Server) -> Value {
    Request::get("/admin/v1/status").send(&server.admin).expect("an answer").json().expect("JSON")
}

/// What the kernel says of each of its threads.
fn no_new_privileges(worker: &Worker) -> Vec<bool> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.pid)).expect("it runs").flatten();
    let statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    statuses.map(|status| status.contains("NoNewPrivs:\t1")).collect()
}

#[test]
fn workers_are_in_a_sandbox_and_say_so() {
    let server = Server::demo();
    let (worker, health) = worker(&server);
    let sandbox = health.sandbox;
    let shown = &status(&server)["models"][0]["sandbox"];
    assert_eq!(*shown, serde_json::to_value(&sandbox).expect("JSON"));
    match sandbox.state {
        Confinement::Full => assert_eq!(sandbox.reason, None),
        Confinement::Partial => assert!(sandbox.reason.is_some()),
        Confinement::Unsupported => {
            let kernel = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
            assert!(!kernel.contains("landlock"), "this kernel can: {kernel}");
            return;
        }
        Confinement::Off => panic!("nobody switched it off"),
    }
    let threads = no_new_privileges(&worker);
    assert!(threads.len() > 1 && threads.iter().all(|is_set| *is_set), "every thread is in it: {threads:?}");
}

#[test]
fn the_configuration_switches_the_sandbox_off() {
    let server = Server::start("models: { demo: { path: \"builtin:demo\" } }\nworkers: { sandbox: false }");
    let (worker, health) = worker(&server);
    assert_eq!(health.sandbox.state, Confinement::Off);
    assert_eq!(status(&server)["models"][0]["sandbox"], json!({ "state": "off" }));
    assert!(no_new_privileges(&worker).iter().all(|is_set| !is_set));
}
