//! What the admin port exposes.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Server, until_true};
use crate::http::Request;

/// The families in the README's table: rows that start with a metric's name.
fn documented() -> BTreeSet<String> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `arriero_"));
    rows.filter_map(|row| row.split(['`', '{']).next()).map(|name| format!("arriero_{name}")).collect()
}

/// The families in the exposition.
fn exposed(exposition: &str) -> BTreeSet<String> {
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

/// The families that the source registers; one without a series yet is not in the exposition.
fn registered() -> BTreeSet<String> {
    let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/telemetry/metrics.rs"));
    let literals = source.split('"').skip(1).step_by(2);
    let suffixes = [
        "_total", "_seconds", "_ratio", "_info", "_depth", "_up", "_loaded", "inflight", "_state", "_bytes",
        "_entries",
    ];
    let names =
        literals.filter(|text| suffixes.iter().any(|suffix| text.ends_with(suffix)) && !text.contains(' '));
    names.map(|name| format!("arriero_{}", name.trim_start_matches("arriero_"))).collect()
}

#[test]
fn the_readmes_table_names_the_families_there_are_and_no_others() {
    assert_eq!(documented(), registered());
    let server = Server::demo();
    server.generate(&json!({ "model": "demo", "prompt": "Hello" }));
    for family in
        ["arriero_requests_total", "arriero_ttft_seconds", "arriero_overhead_seconds", "arriero_build_info"]
    {
        // A request is counted after its last byte, so the client may be here first.
        until_true(family, || exposed(&server.exposition()).contains(family));
    }
    let exposed = exposed(&server.exposition());
    assert!(exposed.is_subset(&documented()), "{exposed:?}");
}

#[test]
fn a_request_is_counted_with_its_tokens_and_outcome() {
    let server = Server::demo();
    server.generate(&json!({ "model": "demo", "prompt": "Hello", "options": { "num_predict": 3 } }));
    server.post("/api/generate", &json!({ "model": "nobody", "prompt": "Hello" }));
    let requests = |outcome: &str| server.metric("arriero_requests_total", &format!("outcome=\"{outcome}\""));
    // A request is counted after its last byte, so the client may be here first.
    until_true("both are counted", || requests("ok") + requests("model_not_found") == 2.0);
    assert_eq!((requests("ok"), requests("model_not_found")), (1.0, 1.0));
    assert!(!server.exposition().contains("nobody"), "labels hold configured names only");
    let counted = || server.metric("arriero_tokens_total", "type=\"completion\"");
    until_true("the tokens are counted", || counted() > 0.0);
    let completion = counted();
    assert!((1.0..=3.0).contains(&completion), "{completion}");
    until_true("nothing is in flight", || server.metric("arriero_inflight", "") == 0.0);
}

#[test]
fn liveness_and_readiness_answer_on_the_admin_port() {
    let server = Server::demo();
    let status = |path: &str| Request::get(path).send(&server.admin).expect("an answer").status;
    assert_eq!(status("/livez"), 200);
    until_true("it is ready", || status("/readyz") == 200);
    assert_eq!(server.get("/metrics").status, 404, "the data port has none of it");
}

#[test]
fn a_request_leaves_one_line_in_the_log() {
    let server = Server::demo();
    let request = Request::post("/api/generate", &json!({ "model": "demo", "prompt": "Hello" }));
    server.send(&request.header("X-Request-Id", "log-me")).ndjson().expect("NDJSON");
    let lines =
        || server.log().into_iter().filter(|line| line.to_string().contains("log-me")).collect::<Vec<_>>();
    until_true("the line is written", || !lines().is_empty());
    let lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0].to_string();
    assert!(line.contains("demo") && line.contains("ok"), "{line}");
}
