//! Makes a fixture model for a benchmark, unless it is there already, and prints its path:
//! `cargo run --release --example fixtures -- bench-llama target/fixtures`.

#[path = "../tests/it/fixture/mod.rs"]
#[expect(clippy::expect_used, reason = "the module is test code; what it expects are its own constants")]
mod fixture;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (written, code) = match make(&arguments) {
        Ok(path) => (writeln!(std::io::stdout(), "{}", path.display()), ExitCode::SUCCESS),
        Err(problem) => (writeln!(std::io::stderr(), "{problem}"), ExitCode::FAILURE),
    };
    written.map_or(ExitCode::FAILURE, |()| code)
}

fn make(arguments: &[String]) -> Result<PathBuf, String> {
    let [name, directory] = arguments else {
        return Err("usage: fixtures tiny-llama|tiny-bert|tiny-embedder|bench-llama DIRECTORY".into());
    };
    let fixture: fixture::Fixture = name.parse()?;
    fixture.file_in(Path::new(directory)).map_err(|error| format!("{directory}: {error}"))
}
