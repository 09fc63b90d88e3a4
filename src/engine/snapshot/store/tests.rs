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
        self.status.vitals().snapshots
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
