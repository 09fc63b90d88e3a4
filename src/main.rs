//! The binary: see [`arriero::cli`].

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// For what Rust allocates; llama.cpp keeps to the system's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    arriero::cli::run()
}
