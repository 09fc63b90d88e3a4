//! The model inside the binary, `builtin:demo`. The engine maps files, so it is put into the runtime directory once.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a model's `path` starts with when it is not a file.
const SCHEME: &str = "builtin:";

/// How it was trained is in `demo/train.py`.
static DEMO: &[u8] = include_bytes!("demo/demo.gguf");

/// The name behind `builtin:`, if the path is not a file's.
pub(super) fn name(path: &str) -> Option<&str> {
    path.strip_prefix(SCHEME)
}

/// The temperature of requests that do not say otherwise. At Ollama's 0.8 so small a model misspells now and then.
pub(super) const TEMPERATURE: f32 = 0.2;

/// The file of built-in model `name` below `runtime`, written if it is not there yet. Errors in words.
pub(super) fn file(name: &str, runtime: &Path) -> Result<PathBuf, String> {
    if name != "demo" {
        return Err(format!("unknown built-in model '{SCHEME}{name}'; there is '{SCHEME}demo'"));
    }
    let path = runtime.join("demo.gguf");
    if path.metadata().is_ok_and(|facts| facts.len() == DEMO.len() as u64) {
        return Ok(path);
    }
    write(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

/// Whoever sees the final name sees the whole file; two writers at once write the same bytes.
fn write(path: &Path) -> std::io::Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{write}.partial", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(DEMO)?;
    // It changed when the binary did, not at each start.
    if let Ok(built) = std::env::current_exe().and_then(std::fs::metadata).and_then(|exe| exe.modified()) {
        file.set_modified(built)?;
    }
    std::fs::rename(&partial, path)
}
