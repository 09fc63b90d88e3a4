//! The binary: see [`arriero::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    arriero::cli::run()
}
