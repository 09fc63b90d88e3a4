//! [`RuntimeDir`]: where the sockets and the embedded model of one process live.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// What such directories are called, before eight hex digits.
const PREFIX: &str = "arriero-";
/// Locked while the process lives, however it ends. A pid would not do: it is another's in another container.
const LOCK: &str = "lock";

/// A private directory for sockets and the embedded model; gone with the value that made it.
pub(super) struct RuntimeDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl RuntimeDir {
    /// Below `configured`, else `$XDG_RUNTIME_DIR` if that can be used, else the temporary directory. Short, for a socket's
    /// path must fit 107 bytes.
    pub(super) fn create(configured: Option<&Path>) -> Result<Self, String> {
        let failed =
            |base: &Path, error: io::Error| format!("cannot make a directory in {}: {error}", base.display());
        if let Some(base) = configured {
            return Self::below(base).map_err(|error| failed(base, error));
        }
        // The variable may come from another user's session.
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if let Some(Ok(made)) = session.map(|base| Self::below(&base)) {
            return Ok(made);
        }
        let base = std::env::temp_dir();
        Self::below(&base).map_err(|error| failed(&base, error))
    }

    fn below(base: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(base)?;
        sweep(base);
        let name = format!("{PREFIX}{:08x}", rand::random::<u32>());
        // Another process' sweep must not find it before it is locked.
        let (hidden, path) = (base.join(format!(".{name}")), base.join(&name));
        DirBuilder::new().mode(0o700).create(&hidden)?;
        let lock = Flock::lock(File::create(hidden.join(LOCK))?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| io::Error::from(errno))?;
        std::fs::rename(&hidden, &path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, "the runtime directory stays");
        }
    }
}

/// Removes what killed processes have left: directories whose lock nobody holds. Others' cannot be opened and stay.
fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let Ok(lock) = File::options().write(true).open(entry.path().join(LOCK)) else { continue };
        if let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, directory = %entry.path().display(), "a stale runtime directory stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_a_living_one_uses_is_not() {
        let base = tempfile::tempdir().unwrap();
        let alive = RuntimeDir::below(base.path()).unwrap();
        let dead = base.path().join("arriero-00000000");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        let strange = base.path().join("arriero-without-a-lock");
        std::fs::create_dir(&strange).unwrap();
        let other = RuntimeDir::below(base.path()).unwrap();
        assert!(alive.path().exists() && other.path().exists() && strange.exists());
        assert!(!dead.exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }
}
