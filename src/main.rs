//! The binary: see [`arriero::cli`].

use std::process::ExitCode;

/// For what Rust allocates; llama.cpp keeps to the system's. With the engine it is behind one that keeps accounts of templates.
#[cfg(not(feature = "engine"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    arriero::cli::run()
}
