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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::generation::seam::SnapshotCounts;

    const KEY: Key = [9; 32];
    const LEAST: u32 = 10;

    /// A root with the folder of one model.
    struct Stage {
        root: TempDir,
        budget: u64,
        status: Arc<Status>,
    }

    impl Stage {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap(), budget: 1 << 20, status: Arc::default() }
        }

        /// A worker's view of the folder of `model`.
        fn open(&self, model: &str, key: Key, cuts: bool) -> Store {
            let folder = self.root.path().join(model);
            make(&folder).unwrap();
            let settings =
                SnapshotSettings { folder, budget: self.budget, min_tokens: LEAST, patience: Duration::ZERO };
            Store::open(settings, key, 1, cuts, self.status.clone()).unwrap()
        }

        fn store(&self) -> Store {
            self.open("m", KEY, true)
        }

        fn names(&self) -> Vec<String> {
            let folders = std::fs::read_dir(self.root.path()).unwrap().flatten();
            let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
            files.map(|file| file.file_name().into_string().unwrap()).collect()
        }

        fn counts(&self) -> SnapshotCounts {
            self.status.health().snapshots
        }
    }

    fn tokens(common: u32, own: u32, more: u32) -> Vec<Token> {
        (0..common).chain(own..own + more).collect()
    }

    /// Bytes that zstd cannot make less of.
    fn noise(length: usize) -> Vec<u8> {
        let sums = (0..length.div_ceil(32)).flat_map(|i| Sha256::digest(i.to_le_bytes()));
        sums.take(length).collect()
    }

    #[test]
    fn what_one_worker_saves_another_finds() {
        let stage = Stage::new();
        let (first, second) = (stage.store(), stage.store());
        first.save(&tokens(100, 500, 20), b"state").unwrap();
        let found = second.find(&tokens(100, 900, 5), 0).unwrap();
        assert_eq!(second.load(&found).unwrap(), b"state");
        assert_eq!(second.find(&tokens(100, 900, 5), 91), None, "so much is there already");
        assert_eq!(second.find(&tokens(9, 900, 5), 0), None, "little is not worth it");
        assert_eq!(second.find(&tokens(10, 0, 0), 0), None, "the last token is read in any case");
        assert!(second.find(&tokens(11, 0, 0), 0).is_some());
        assert_eq!(stage.counts(), SnapshotCounts::default());
    }

    #[test]
    fn files_are_their_owners_alone() {
        let stage = Stage::new();
        stage.store().save(&tokens(20, 0, 0), b"state").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let folder = stage.root.path().join("m");
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(&stage.names()[0])), 0o600);
    }

    #[test]
    fn the_same_is_not_saved_twice_and_the_longer_replaces_the_shorter() {
        let stage = Stage::new();
        let store = stage.store();
        assert!(store.lacks(&tokens(100, 0, 0)) && !store.lacks(&tokens(9, 0, 0)));
        store.save(&tokens(100, 0, 0), b"short").unwrap();
        assert!(!store.lacks(&tokens(100, 500, 9)), "nearly all of it is there");
        assert!(store.lacks(&tokens(100, 500, 10)));
        store.save(&tokens(100, 500, 10), b"long").unwrap();
        assert_eq!(stage.names().len(), 1, "the longer one has all of the shorter");
        assert_eq!(store.load(&store.find(&tokens(100, 7, 7), 0).unwrap()).unwrap(), b"long");
        store.save(&tokens(100, 700, 10), b"other").unwrap();
        assert_eq!(stage.names().len(), 2, "neither has all that the other has");
    }

    #[test]
    fn a_state_that_cannot_be_cut_is_used_as_a_whole_or_not_at_all() {
        let stage = Stage::new();
        let store = stage.open("m", KEY, false);
        store.save(&tokens(50, 0, 0), b"state").unwrap();
        assert_eq!(store.find(&tokens(49, 900, 5), 0), None);
        assert_eq!(store.find(&tokens(50, 0, 0), 0), None, "nothing would be left to read");
        assert!(store.find(&tokens(50, 900, 1), 0).is_some());
        assert!(store.lacks(&tokens(40, 0, 0)), "the longer one is of no use for it");
        store.save(&tokens(80, 0, 0), b"longer").unwrap();
        assert_eq!(stage.names().len(), 2);
    }

    #[test]
    fn what_is_over_the_budget_leaves_whoever_it_belongs_to() {
        let mut stage = Stage::new();
        stage.budget = 4000;
        let other = stage.open("other", [1; 32], true);
        other.save(&tokens(20, 0, 0), &noise(1000)).unwrap();
        let store = stage.store();
        store.save(&tokens(30, 0, 0), &noise(2000)).unwrap();
        assert_eq!(stage.names().len(), 2);
        assert!(store.save(&tokens(0, 500, 40), &noise(5000)).is_err(), "more than all may take");
        assert_eq!(stage.names().len(), 2, "and nothing left for it");
        store.save(&tokens(0, 500, 40), &noise(3500)).unwrap();
        assert_eq!(stage.names().len(), 1);
        assert_eq!(store.load(&store.find(&tokens(0, 500, 50), 0).unwrap()).unwrap(), noise(3500));
        assert_eq!(other.find(&tokens(20, 9, 9), 0), None);
        assert_eq!(stage.counts(), SnapshotCounts::default(), "that files leave is no damage");
    }

    #[test]
    fn what_is_not_sound_is_counted_and_not_looked_at_again() {
        let stage = Stage::new();
        let store = stage.store();
        store.save(&tokens(50, 0, 0), b"state").unwrap();
        let path = store.path(&stage.names()[0]);
        let mut content = std::fs::read(&path).unwrap();
        let found = store.find(&tokens(50, 9, 9), 0).unwrap();
        *content.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &content).unwrap();
        assert_eq!((store.load(&found), stage.counts().damaged), (None, 1));
        assert_eq!(store.find(&tokens(50, 9, 9), 0), None);
        assert_eq!(stage.counts().damaged, 1, "said once");
        std::fs::write(&path, &content[..70]).unwrap();
        assert_eq!((store.find(&tokens(50, 9, 9), 0), stage.counts().damaged), (None, 1), "not read again");
        assert_eq!((stage.store().find(&tokens(50, 9, 9), 0), stage.counts().damaged), (None, 2));
        assert!(store.lacks(&tokens(50, 0, 0)));
        store.save(&tokens(50, 0, 0), b"state").unwrap();
        assert!(store.find(&tokens(50, 9, 9), 0).is_some(), "saved anew");
    }

    #[test]
    fn what_others_saved_is_left_alone_and_a_false_name_does_not_help() {
        let stage = Stage::new();
        let (ours, theirs) = (stage.store(), stage.open("m", [8; 32], true));
        theirs.save(&tokens(50, 0, 0), b"state").unwrap();
        assert_eq!((ours.find(&tokens(50, 9, 9), 0), stage.counts().foreign), (None, 0));
        let name = stage.names().remove(0);
        let claimed = name.replace(&theirs.prefix(), &ours.prefix());
        std::fs::rename(theirs.path(&name), ours.path(&claimed)).unwrap();
        assert_eq!((ours.find(&tokens(50, 9, 9), 0), stage.counts().foreign), (None, 1));
    }

    #[test]
    fn a_file_that_cannot_be_written_changes_nothing() {
        let stage = Stage::new();
        let store = stage.store();
        store.save(&tokens(50, 0, 0), b"state").unwrap();
        let name = stage.names().remove(0);
        // Where the next file should go lies a folder.
        let next = tokens(50, 500, 50);
        std::fs::create_dir(store.path(&store.name(&next))).unwrap();
        assert!(store.save(&next, b"longer").is_err());
        assert!(stage.names().contains(&name) && !stage.names().iter().any(|name| name.ends_with(PARTIAL)));
        assert!(store.find(&tokens(50, 9, 9), 0).is_some());
    }

    #[test]
    fn what_a_worker_left_half_written_goes_when_it_is_old() {
        let stage = Stage::new();
        let store = stage.store();
        let (old, new) = (store.path("old.partial"), store.path("new.partial"));
        File::create(&new).unwrap();
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        File::create(&old).unwrap().set_modified(long_ago).unwrap();
        stage.store();
        assert_eq!((old.exists(), new.exists()), (false, true));
    }
}
