//! Real clients, unmodified and pinned: the `ollama` and `openai` packages for Python and the `ollama` package for Node,
//! each with a suite of its own in tests/clients. `.ci/prepare test` installs them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::fixture::Fixture;
use crate::harness::{Server, model};
use crate::http::Address;

/// Where `.ci/prepare test` makes the Python environment; ARRIERO_TEST_PYTHON names another interpreter.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python");

/// Runs a suite against a server with the models `demo`, `tiny` (which sees, and never ends by itself) and `embedder`.
fn run(mut suite: Command) {
    let projector = Fixture::TinyProjector.file_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let projector = projector.expect("the fixture can be written");
    let tiny = model(Fixture::TinyLlama, &format!("projector: \"{}\"", projector.display()));
    let embedder = model(Fixture::TinyBert, "");
    let server = Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }}, tiny: {tiny}, embedder: {embedder} }}"
    ));
    let Address::Tcp(SocketAddr::V4(address)) = server.data else { panic!("the data port is TCP") };
    suite.env("ARRIERO_URL", format!("http://{address}")).env_remove("OLLAMA_HOST");
    let output = suite.output().expect("the suite starts; `.ci/prepare test` installs what it needs");
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
}

/// The interpreter that has the packages.
pub fn python() -> String {
    std::env::var("ARRIERO_TEST_PYTHON").unwrap_or_else(|_| PYTHON.to_owned())
}

fn directory(language: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(language)
}

#[test]
fn the_python_clients_of_ollama_and_openai_work() {
    let mut suite = Command::new(python());
    suite.args(["-B", "-m", "unittest", "-v", "test_clients"]).current_dir(directory("python"));
    run(suite);
}

#[test]
fn the_node_client_of_ollama_works() {
    let mut suite = Command::new("node");
    suite.args(["--test", "clients.test.mjs"]).current_dir(directory("node"));
    run(suite);
}
