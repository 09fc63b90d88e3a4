//! A real llama-server from another vendor: the one in the Python package `xllamacpp`, which `.ci/prepare test` installs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::clients::python;
use crate::fixture::Fixture;

/// One that serves a fixture as model `tiny`. Killed when dropped.
pub struct LlamaServer {
    process: Child,
    /// Such as `http://127.0.0.1:40001`.
    pub url: String,
}

impl LlamaServer {
    /// Starts it and waits until it serves.
    pub fn start(fixture: Fixture) -> Self {
        let path =
            fixture.file_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the fixture can be written");
        let mut command = Command::new(python());
        command.args(["-B", "tests/clients/python/llama_server.py"]).arg(path);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        // It ends with its standard input, also if this process is killed.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("Python starts; `.ci/prepare test` installs it");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let url = lines.find(|line| line.starts_with("http://")).expect("it says where it listens");
        Self { process, url }
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        // Fails only if it ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
