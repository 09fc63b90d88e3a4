//! The README's snippets work: every ```yaml block is a configuration that `arriero check` accepts, and every
//! ```sh test block runs against a server with the demo model.

use std::net::SocketAddr;
use std::process::Command;

use crate::executable::arriero;
use crate::harness::Server;
use crate::http::Address;

/// The contents of fenced blocks whose fence says exactly `info`.
fn blocks(info: &str) -> Vec<String> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let fence = format!("```{info}");
    let mut blocks = Vec::new();
    let mut lines = readme.lines();
    while lines.by_ref().any(|line| line.trim_end() == fence) {
        blocks
            .push(lines.by_ref().take_while(|line| line.trim_end() != "```").collect::<Vec<_>>().join("\n"));
    }
    blocks
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp(SocketAddr::V4(address)) => address.port(),
        other => panic!("not a TCP port: {other:?}"),
    }
}

#[test]
fn every_yaml_snippet_is_a_valid_configuration() {
    let snippets = blocks("yaml");
    assert!(!snippets.is_empty(), "the README shows a configuration");
    for snippet in snippets {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), &snippet).expect("it can be written");
        let output = arriero().arg("check").arg("--config").arg(file.path()).output().expect("arriero runs");
        let told = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}\n{snippet}");
    }
}

#[test]
fn every_tested_shell_snippet_succeeds() {
    let snippets = blocks("sh test");
    assert!(!snippets.is_empty(), "the README shows a call");
    let server = Server::demo();
    for snippet in snippets {
        let here = snippet
            .replace(":11434", &format!(":{}", port(&server.data)))
            .replace(":11435", &format!(":{}", port(&server.admin)));
        let output =
            Command::new("bash").args(["-euo", "pipefail", "-c", &here]).output().expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{here}\n{printed}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!printed.is_empty() && !printed.contains("\"error\""), "{here}\n{printed}");
    }
}
