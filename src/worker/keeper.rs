//! [`Keeper`]: writes the ledger to its file, one version after the other, off the threads that serve.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::memory::Ledger;

/// What the newest version gets at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Belongs to the run loop. What it is given while it writes waits, the newest only.
pub(super) struct Keeper {
    path: Option<PathBuf>,
    next: Option<Ledger>,
    writing: Option<JoinHandle<()>>,
}

impl Keeper {
    /// `None`: nothing is kept.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, next: None, writing: None }
    }

    /// Writes this version soon.
    pub(super) fn keep(&mut self, ledger: Ledger) {
        self.next = Some(ledger);
        self.write();
    }

    fn write(&mut self) {
        if self.writing.is_none()
            && let (Some(path), Some(ledger)) = (self.path.clone(), self.next.take())
        {
            self.writing = Some(tokio::task::spawn_blocking(move || save(&ledger, &path)));
        }
    }

    /// Resolves when a version has been written; never where there is none to be. May be dropped and called again.
    pub(super) async fn kept(&mut self) {
        match &mut self.writing {
            // A panic in there has been logged by its hook; the next version may fare better.
            Some(writing) => drop(writing.await),
            None => std::future::pending().await,
        }
        self.writing = None;
        self.write();
    }

    /// Waits until the newest version is on disk, unless that does not answer.
    pub(super) async fn finish(mut self) {
        let written = async {
            while self.writing.is_some() {
                self.kept().await;
            }
        };
        tokio::time::timeout(LAST_WORDS, written).await.ok();
    }
}

fn save(ledger: &Ledger, path: &Path) {
    if let Err(error) = ledger.save(path) {
        // It only makes estimates better: nothing else depends on it.
        tracing::debug!(path = %path.display(), %error, "what models take is not remembered");
    }
}
