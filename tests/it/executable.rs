//! The shipped executable.

use std::process::{Command, Stdio};

/// The shipped executable, without settings from the environment of whoever runs the tests.
pub fn arriero() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "RUST_LOG" || text.starts_with("OLLAMA_") || text.starts_with("ARRIERO_") {
            command.env_remove(&name);
        }
    }
    // No test finds what another one saved: nothing can be saved there.
    command.env("XDG_CACHE_HOME", "/dev/null");
    // Nor is a node registered in one test there in another.
    command.env("XDG_STATE_HOME", "/dev/null");
    command.stdin(Stdio::null());
    command
}
