//! [`Roster`]: the nodes that were registered by the admin API, in a file that outlives the process.
//!
//! What stands there is not trusted more than what comes by the API: whoever makes nodes of it checks it again.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// In the state directory.
const FILE: &str = "nodes.json";

/// Entries of `nodes`, by name, as they were registered: with their keys, which is why only this user can read the file.
#[derive(Clone, Debug)]
pub struct Roster {
    /// The file; else why there is none, in words.
    path: Result<PathBuf, String>,
    entries: BTreeMap<String, Map<String, Value>>,
}

/// What the file has.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    nodes: Vec<Map<String, Value>>,
}

impl Roster {
    /// What is in `directory`, which need not exist. A file that is no roster is set aside, and the log is told; without a directory, or
    /// where the file cannot be read, there is nothing, and nothing can be kept.
    pub fn open(directory: Option<&Path>) -> Self {
        let entries = BTreeMap::new();
        let Some(directory) = directory else {
            let reason = "no directory for it: neither state nor XDG_STATE_HOME nor HOME is set";
            return Self { path: Err(reason.to_owned()), entries };
        };
        let path = directory.join(FILE);
        match read(&path) {
            Ok(entries) => Self { path: Ok(path), entries },
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "registered nodes are not taken");
                Self { path: Err(format!("{}: {error}", path.display())), entries }
            }
        }
    }

    /// Every entry, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Whether it has a node of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The same with `entry` under its name.
    pub fn with(&self, name: &str, entry: Map<String, Value>) -> Self {
        let mut roster = self.clone();
        roster.entries.insert(name.to_owned(), entry);
        roster
    }

    /// The same without a node of this name.
    pub fn without(&self, name: &str) -> Self {
        let mut roster = self.clone();
        roster.entries.remove(name);
        roster
    }

    /// Writes the file, all of it or nothing. Errors in words.
    pub fn save(&self) -> Result<(), String> {
        let path = self.path.as_ref().map_err(Clone::clone)?;
        let stored = Stored { nodes: self.entries.values().cloned().collect() };
        let written = serde_json::to_vec_pretty(&stored).map_err(io::Error::from);
        written.and_then(|bytes| write(path, &bytes)).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// What the file says; nothing if it is damaged, and then it is called something else from now on.
fn read(path: &Path) -> io::Result<BTreeMap<String, Map<String, Value>>> {
    let bytes = match std::fs::read(path) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(BTreeMap::new()),
        read => read?,
    };
    let damage = match parse(&bytes) {
        Ok(entries) => return Ok(entries),
        Err(damage) => damage,
    };
    let aside = path.with_extension("json.damaged");
    std::fs::rename(path, &aside)?;
    tracing::error!(path = %path.display(), damage, kept_as = %aside.display(), "the file of registered nodes is damaged: none is taken");
    Ok(BTreeMap::new())
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Map<String, Value>>, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut entries = BTreeMap::new();
    for entry in stored.nodes {
        let name = entry.get("name").and_then(Value::as_str).ok_or("an entry without a name")?.to_owned();
        if entries.insert(name.clone(), entry).is_some() {
            return Err(format!("two entries of the name {name:?}"));
        }
    }
    Ok(entries)
}

/// A file has all its bytes, on the disk, before it has its name.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let new = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    // One that was left there may have been open to others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str, key: &str) -> Map<String, Value> {
        json!({ "name": name, "url": "http://a", "api_key": key }).as_object().unwrap().clone()
    }

    fn names(roster: &Roster) -> Vec<&str> {
        roster.entries().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_was_saved_is_there_again_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a").join("b");
        let roster = Roster::open(Some(&state)).with("x", entry("x", "k")).with("y", entry("y", "k"));
        roster.save().unwrap();
        roster.without("y").with("x", entry("x", "other")).save().unwrap();
        let again = Roster::open(Some(&state));
        assert_eq!(names(&again), ["x"]);
        assert_eq!(again.entries["x"]["api_key"], "other");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state.join(FILE)), mode(&state)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_nothing_of_it_is_taken() {
        let good = serde_json::to_string(&json!({ "nodes": [entry("x", "k")] })).unwrap();
        let double = json!({ "nodes": [entry("x", "k"), entry("x", "k")] }).to_string();
        for damaged in [&good[..good.len() - 3], "", "[]", "{\"nodes\": [{}]}", "\0\0\0", &double] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), damaged).unwrap();
            let roster = Roster::open(Some(dir.path()));
            assert_eq!(names(&roster), [""; 0], "{damaged}");
            let aside = std::fs::read_to_string(dir.path().join("nodes.json.damaged")).unwrap();
            assert_eq!(aside, damaged);
            roster.with("y", entry("y", "k")).save().unwrap();
            assert_eq!(names(&Roster::open(Some(dir.path()))), ["y"]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        let roster = Roster::open(Some(dir.path()));
        assert!(roster.with("x", entry("x", "k")).save().unwrap_err().contains("nodes.json: "));
        assert!(dir.path().join(FILE).is_dir());
        assert!(Roster::open(None).save().unwrap_err().starts_with("no directory for it"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_fatal(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
