//! [`Store`]: the snapshots on disk that are of use to this worker.
//!
//! A folder holds those of one model, side by side with the folders of other models, and workers share them without talking to
//! each other: a file never changes once it has its name, and one that is gone was evicted by somebody. The name is
//! `KEY-COST-TOKENS.snapshot`: the start of the key, so that what others have saved under other settings is not even opened; what
//! computing it again would cost, so that whoever needs room can weigh files that it cannot read; and the tokens' sum, so that
//! two replicas that save the same write the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::super::health::Status;
use super::super::log;
use super::super::sampling::Token;
use super::budget::{Kept, leaving};
use super::format::{self, Fault, Key};
use crate::generation::seam::SnapshotSettings;

const EXTENSION: &str = "snapshot";
/// Of a file that is being written.
const PARTIAL: &str = "partial";
/// Whoever was writing for so long does not any more.
const ABANDONED: Duration = Duration::from_secs(10 * 60);

/// The snapshots of one model under one key.
pub struct Store {
    settings: SnapshotSettings,
    key: Key,
    /// What reading one token costs.
    cost: u64,
    /// Whether a state can be cut to its beginning, as cells can and the state of a recurrent model cannot.
    cuts: bool,
    /// By file name, the tokens; `None` for a file that has been refused.
    known: Mutex<Known>,
    status: Arc<Status>,
}

type Known = BTreeMap<String, Option<Arc<[Token]>>>;

/// A snapshot that begins like a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    name: String,
    /// All tokens in it.
    pub tokens: Arc<[Token]>,
}

/// Makes the folder, its owner's alone.
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

impl Store {
    /// Opens the folder, which must be there. `cost`: of reading one token with this model, in any unit that all models share.
    pub fn open(
        settings: SnapshotSettings,
        key: Key,
        cost: u64,
        cuts: bool,
        status: Arc<Status>,
    ) -> io::Result<Self> {
        for entry in std::fs::read_dir(&settings.folder)?.flatten() {
            let is_partial = entry.path().extension().is_some_and(|extension| extension == PARTIAL);
            if is_partial && age(&entry).is_ok_and(|age| age > ABANDONED) {
                remove(&entry.path());
            }
        }
        let store = Self { settings, key, cost, cuts, known: Mutex::default(), status };
        store.look();
        Ok(store)
    }

    /// The snapshot that spares reading most of `prompt`, if that is worth it. `held`: so many of its tokens need not be read in
    /// any case. The last one always is.
    pub fn find(&self, prompt: &[Token], held: usize) -> Option<Found> {
        let least = held + self.settings.min_tokens as usize;
        if prompt.len() <= least {
            // So are most, and none of them waits for the disk.
            return None;
        }
        self.look();
        let known = self.known();
        let candidates = known.iter().filter_map(|(name, tokens)| Some((name, tokens.as_ref()?)));
        let (name, tokens) = candidates.max_by_key(|(_, tokens)| self.spared(tokens, prompt))?;
        (self.spared(tokens, prompt) >= least).then(|| Found { name: name.clone(), tokens: tokens.clone() })
    }

    /// Whether so much of `tokens` is in no snapshot that they are worth one.
    pub fn lacks(&self, tokens: &[Token]) -> bool {
        if tokens.len() < self.settings.min_tokens as usize {
            return false;
        }
        self.look();
        let known = self.known();
        let most = known.values().flatten().map(|held| self.covered(held, tokens)).max().unwrap_or(0);
        tokens.len() - most >= self.settings.min_tokens as usize
    }

    /// The state of a snapshot, unless it is refused or gone.
    pub fn load(&self, found: &Found) -> Option<Vec<u8>> {
        match self.read(found) {
            Ok(state) => {
                // When it was used last is when it was modified. Where that cannot be noted it looks older than it is.
                let file = File::open(self.path(&found.name));
                file.and_then(|file| file.set_modified(SystemTime::now())).ok();
                Some(state)
            }
            Err(fault) => {
                self.refuse(&mut self.known(), &found.name, &fault);
                None
            }
        }
    }

    fn read(&self, found: &Found) -> Result<Vec<u8>, Fault> {
        let (tokens, state) = format::decode(&std::fs::read(self.path(&found.name))?, &self.key)?;
        if tokens != *found.tokens {
            return Err(Fault::Damaged("its tokens are not those it had"));
        }
        Ok(state)
    }

    /// Writes a snapshot, then removes those that it makes superfluous and those for which there is no more room; the bytes
    /// written. If that fails, all is as it was before.
    pub fn save(&self, tokens: &[Token], state: &[u8]) -> io::Result<u64> {
        let content = format::encode(&self.key, tokens, state)?;
        let bytes = content.len() as u64;
        if bytes > self.settings.budget {
            return Err(io::Error::other(format!("it has {bytes} bytes, more than all may have")));
        }
        let partial = self.path(&format!("{:016x}.{PARTIAL}", rand::random::<u64>()));
        let name = self.name(tokens);
        let written = write(&partial, &content).and_then(|()| std::fs::rename(&partial, self.path(&name)));
        if let Err(error) = written {
            // On a full disk it may not even be there.
            std::fs::remove_file(&partial).ok();
            return Err(error);
        }
        self.known().insert(name.clone(), Some(tokens.into()));
        self.remove_covered_by(&name, tokens);
        self.make_room(&name, bytes);
        Ok(bytes)
    }

    /// Bytes that all may take.
    pub fn budget(&self) -> u64 {
        self.settings.budget
    }

    /// Bytes of this model's files, those under other keys included.
    pub fn bytes(&self) -> u64 {
        let files = files(&self.settings.folder);
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    /// Takes note of files that came and went.
    fn look(&self) {
        let prefix = self.prefix();
        let names = files(&self.settings.folder).filter_map(|file| file.file_name().into_string().ok());
        let mut there: BTreeSet<String> = names.filter(|name| name.starts_with(&prefix)).collect();
        let mut known = self.known();
        known.retain(|name, _| there.contains(name));
        there.retain(|name| !known.contains_key(name));
        for name in there {
            match self.tokens(&name) {
                Ok(tokens) => drop(known.insert(name, Some(tokens.into()))),
                Err(fault) => self.refuse(&mut known, &name, &fault),
            }
        }
    }

    /// Says once why a file is not used.
    fn refuse(&self, known: &mut Known, name: &str, fault: &Fault) {
        if matches!(fault, Fault::Io(error) if error.kind() == io::ErrorKind::NotFound) {
            // Another worker evicted it.
            known.remove(name);
            return;
        }
        known.insert(name.to_owned(), None);
        self.status.snapshots(|counts| match fault {
            Fault::Foreign(_) => counts.foreign += 1,
            Fault::Damaged(_) | Fault::Io(_) => counts.damaged += 1,
        });
        log::warn(&format!("snapshot {} is ignored: {fault}", self.path(name).display()));
    }

    fn tokens(&self, name: &str) -> Result<Vec<Token>, Fault> {
        let file = File::open(self.path(name))?;
        let length = file.metadata()?.len();
        format::tokens(file, length, &self.key)
    }

    /// How many tokens of `prompt` a snapshot spares.
    fn spared(&self, snapshot: &[Token], prompt: &[Token]) -> usize {
        let common = self.covered(snapshot, prompt);
        match common < prompt.len() {
            true => common,
            false if self.cuts => prompt.len().saturating_sub(1),
            false => 0,
        }
    }

    /// How many tokens at the front of `tokens` a snapshot has a state for.
    fn covered(&self, snapshot: &[Token], tokens: &[Token]) -> usize {
        let common = snapshot.iter().zip(tokens).take_while(|(held, token)| held == token).count();
        if self.cuts || common == snapshot.len() { common } else { 0 }
    }

    /// Evicts whatever is least worth its room, of any model, until all fit. What was just `saved` stays.
    fn make_room(&self, saved: &str, bytes: u64) {
        let root = self.settings.folder.parent().unwrap_or(&self.settings.folder);
        let saved = self.path(saved);
        let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
        let others = folders.flat_map(|folder| files(&folder.path())).filter(|file| file.path() != saved);
        let kept = others.filter_map(|file| weigh(&file)).collect();
        for path in leaving(kept, self.settings.budget.saturating_sub(bytes)) {
            remove(&path);
        }
    }

    /// Removes other snapshots of which `tokens` have all that matters. Without cuts each may be the only one for some prompt.
    fn remove_covered_by(&self, name: &str, tokens: &[Token]) {
        if !self.cuts {
            return;
        }
        let is_covered =
            |other: &[Token]| other.len() - self.covered(tokens, other) < self.settings.min_tokens as usize;
        let mut known = self.known();
        known.retain(|other, held| {
            let stays = other == name || held.as_ref().is_none_or(|held| !is_covered(held));
            if !stays {
                remove(&self.path(other));
            }
            stays
        });
    }

    fn prefix(&self) -> String {
        format!("{}-", hex(&self.key[..8]))
    }

    fn name(&self, tokens: &[Token]) -> String {
        let mut hash = Sha256::new();
        tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        let cost = self.cost.saturating_mul(tokens.len() as u64);
        format!("{}{cost}-{}.{EXTENSION}", self.prefix(), hex(&hash.finalize()[..16]))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The finished snapshots in a folder; none where it cannot be read.
fn files(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == EXTENSION))
}

/// What a file is worth keeping for. One whose name says no cost is worth nothing.
fn weigh(file: &DirEntry) -> Option<Kept<PathBuf>> {
    let name = file.file_name().into_string().ok();
    let cost = name.and_then(|name| name.split('-').nth(1)?.parse().ok()).unwrap_or(0);
    Some(Kept { file: file.path(), cost, bytes: file.metadata().ok()?.len(), age: age(file).ok()? })
}

/// Since it was written or last used.
fn age(file: &DirEntry) -> io::Result<Duration> {
    Ok(SystemTime::now().duration_since(file.metadata()?.modified()?).unwrap_or_default())
}

/// Removes a file, unless somebody else was faster. One that cannot be removed goes on taking room.
fn remove(path: &Path) {
    std::fs::remove_file(path).ok();
}

/// Writes a new file, its owner's alone, down to the disk.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
