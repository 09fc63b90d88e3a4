//! Workers that are bound to CPUs.

use std::fs;

use arriero::units::Indices;
use serde_json::{Value, json};

use crate::harness::{Server, Worker, until};
use crate::http::Request;

/// The CPUs that a process or thread may run on, by its folder in `/proc`; `None`: it has ended.
fn allowed(folder: &str) -> Option<Indices> {
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Some(list.and_then(|list| list.trim().parse().ok()).expect("a list of CPUs"))
}

/// Those of all threads of a worker, each once.
fn allowed_to(worker: &Worker) -> Vec<String> {
    let folder = format!("/proc/{}/task", worker.pid);
    let threads = fs::read_dir(folder).expect("threads").flatten();
    let lists = threads.filter_map(|it| allowed(&it.path().display().to_string()));
    let mut lists: Vec<_> = lists.map(|list| list.to_string()).collect();
    lists.sort();
    lists.dedup();
    lists
}

fn demo(cpus: &[usize]) -> Server {
    Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\", replicas: 2, preload: true, cpus: {cpus:?} }} }}"
    ))
}

#[test]
fn each_replica_runs_on_the_cpus_that_it_was_given_and_says_so() {
    let own: Vec<usize> = allowed("/proc/self").expect("this process").iter().collect();
    let (first, last) = (own[0], own[own.len() - 1]);
    let server = demo(&[first, last]);
    for (name, cpu) in [("demo-0", first), ("demo-1", last)] {
        let (worker, vitals) = until("the worker is ready", || {
            let worker = server.workers().into_iter().find(|worker| worker.spec.name == name)?;
            let (status, vitals) = worker.health()?;
            (status == 200).then_some((worker, vitals))
        });
        assert_eq!(allowed_to(&worker), [cpu.to_string()]);
        assert_eq!(vitals.binding.cpus.expect("a binding").to_string(), cpu.to_string());
        let settings = vitals.settings.expect("a model that generates");
        assert_eq!((settings.threads, settings.prefill_threads), (1, 1), "one per core that it has");
        // A worker is ready before the supervisor has seen that it is.
        let node = until("the worker is listed", || {
            let listed: Value = Request::get("/admin/v1/nodes").send(&server.admin).ok()?.json().ok()?;
            listed["nodes"].as_array()?.iter().find(|node| node["name"] == name).cloned()
        });
        assert_eq!(node["cpus"], cpu.to_string());
    }
}

#[test]
fn a_worker_that_cannot_have_its_cpus_says_why_to_the_client() {
    let server = demo(&[1023]);
    let response = server.post("/api/generate", &json!({ "model": "demo", "prompt": "hello" }));
    let (status, text) = (response.status, response.text().expect("text"));
    assert_eq!(status, 500, "{text}");
    assert!(text.contains("cannot run on the CPUs 1023"), "{text}");
}
