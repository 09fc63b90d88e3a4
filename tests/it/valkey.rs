//! A Valkey or Redis server, whichever is installed, on a unix socket of its own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::until_true;

/// A running server; killed when dropped.
pub struct Valkey {
    process: Child,
    folder: TempDir,
}

impl Valkey {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = ["valkey-server", "redis-server"].iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
            command.arg(folder.path().join("socket")).arg("--dir").arg(folder.path());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let process = process.expect("valkey-server or redis-server, which `.ci/prepare test` installs");
        let server = Self { process, folder };
        until_true("the server listens", || UnixStream::connect(server.socket()).is_ok());
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// As `cache.responses.shared.url`.
    pub fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("the server runs");
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        // Fails only if it ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
