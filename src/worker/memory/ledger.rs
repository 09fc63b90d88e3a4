//! [`Ledger`]: what models were measured to take, and how long they took to load, remembered in a file: the next estimate of the
//! same model in the same settings is what was measured. A file that cannot be read is set aside; one that cannot be written costs
//! only what it would have told.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::foresight::Foresight;
use super::need::Need;
use crate::units::Indices;

/// Entries that are kept; those that were measured last.
const ENTRIES: usize = 1024;
/// What is written differently by another version of this code. Version 1 had no foresight, and is read.
const VERSION: u32 = 2;

/// What was measured of workers of one model in one setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Ordinary memory of its own when it became ready.
    pub ready: u64,
    /// The most of it that was seen.
    pub peak: u64,
    /// On GPUs.
    pub device: u64,
    /// From spawn to ready, in milliseconds.
    pub load_ms: u64,
    /// Which measurement that was, counted.
    pub number: u64,
}

/// Everything that is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: u32,
    /// By [`key`].
    entries: BTreeMap<String, Measured>,
    /// Measurements so far.
    count: u64,
    /// Memory of all GPUs together, as far as a worker has told.
    devices: Option<u64>,
    /// Of each, by number.
    #[serde(default)]
    gpus: BTreeMap<usize, u64>,
    /// Models that were in memory at the last shutdown, the most used first.
    hot: Vec<String>,
    /// When models are asked for.
    #[serde(default)]
    pub foresight: Foresight,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            version: VERSION,
            entries: BTreeMap::new(),
            count: 0,
            devices: None,
            gpus: BTreeMap::new(),
            hot: Vec::new(),
            foresight: Foresight::default(),
        }
    }
}

impl Ledger {
    /// Reads the file. One that is damaged gets `.damaged` behind its name, and the log says so.
    pub fn load(path: &Path) -> Self {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            // There is none yet, or there cannot be one: then saving it says so.
            Err(_) => return Self::default(),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(ledger) if (1..=VERSION).contains(&ledger.version) => Self { version: VERSION, ..ledger },
            Ok(_) => Self::default(),
            Err(error) => {
                let aside = path.with_extension("damaged");
                let moved = std::fs::rename(path, &aside);
                tracing::warn!(path = %path.display(), %error, moved = moved.is_ok(), "what models take was forgotten: the file is damaged and was set aside");
                Self::default()
            }
        }
    }

    /// Writes the file beside `path`, then renames it: a reader sees all of it or the one before.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile(folder)?;
        let written =
            serde_json::to_vec(self).map_err(io::Error::other).and_then(|text| file.1.write_all(&text));
        let renamed = written.and_then(|()| std::fs::rename(&file.0, path));
        if renamed.is_err() {
            // What is half written is of no use to anybody.
            std::fs::remove_file(&file.0).ok();
        }
        renamed
    }

    /// What was measured under this key.
    pub fn get(&self, key: &str) -> Option<&Measured> {
        self.entries.get(key)
    }

    /// What is to be expected: the estimate, unless it was measured.
    pub fn correct(&self, key: &str, mut need: Need) -> Need {
        if let Some(measured) = self.entries.get(key) {
            need.compute = need.compute.max(measured.peak.saturating_sub(measured.ready));
            (need.private, need.device) = (measured.ready, measured.device);
        }
        need
    }

    /// A worker became ready.
    pub fn loaded(&mut self, key: &str, ready: u64, device: u64, took: Duration) {
        self.count += 1;
        let entry = self.entries.entry(key.to_owned()).or_default();
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        // A load from a cold disk and one from the page cache both count.
        entry.load_ms = if entry.load_ms == 0 { took } else { entry.load_ms.midpoint(took) };
        (entry.ready, entry.device) = (ready, device);
        entry.peak = entry.peak.max(ready);
        entry.number = self.count;
        while self.entries.len() > ENTRIES {
            let oldest =
                self.entries.iter().min_by_key(|(_, entry)| entry.number).map(|(key, _)| key.clone());
            oldest.map(|key| self.entries.remove(&key));
        }
    }

    /// A worker takes so much now. Whether that is more than ever.
    pub fn seen(&mut self, key: &str, private: u64) -> bool {
        let entry = self.entries.get_mut(key).filter(|entry| private > entry.peak);
        entry.map(|entry| entry.peak = private).is_some()
    }

    /// Memory of all GPUs together; `None`: nobody has said.
    pub fn devices(&self) -> Option<u64> {
        self.devices
    }

    /// Memory of the GPUs that are known.
    pub fn gpus(&self) -> &BTreeMap<usize, u64> {
        &self.gpus
    }

    /// A worker that sees these GPUs (`None`: all) has told how much each has.
    pub fn set_gpus(&mut self, seen: Option<&Indices>, totals: impl Iterator<Item = u64>) {
        match seen {
            None => {
                self.gpus = totals.enumerate().collect();
                self.devices = Some(self.gpus.values().sum());
            }
            // There may be others, which it does not see.
            Some(seen) => {
                self.gpus.extend(seen.iter().zip(totals));
                let known = self.gpus.values().sum();
                self.devices = self.devices.map(|all| all.max(known));
            }
        }
    }

    /// Models that were in memory at the last shutdown, the most used first.
    pub fn hot(&self) -> &[String] {
        &self.hot
    }

    /// These are in memory now that it ends.
    pub fn set_hot(&mut self, models: Vec<String>) {
        self.hot = models;
    }
}

/// A new file in `folder` that only this user can read.
fn tempfile(folder: &Path) -> io::Result<(PathBuf, std::fs::File)> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(format!(".models-{:08x}", rand::random::<u32>()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn need() -> Need {
        let mapped = BTreeMap::from([("/m".into(), 100 * MIB)]);
        Need { mapped, private: 50 * MIB, compute: 10 * MIB, ..Need::default() }
    }

    fn measured(ledger: &mut Ledger) {
        ledger.loaded("k", 70 * MIB, 3, Duration::from_secs(2));
    }

    #[test]
    fn what_was_measured_takes_the_place_of_the_estimate() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.correct("k", need()), need());
        measured(&mut ledger);
        let corrected = ledger.correct("k", need());
        assert_eq!((corrected.private, corrected.compute, corrected.device), (70 * MIB, 10 * MIB, 3));
        assert_eq!(corrected.mapped, need().mapped);
        assert!(ledger.seen("k", 95 * MIB));
        assert_eq!(ledger.correct("k", need()).own(), 95 * MIB);
        assert!(!ledger.seen("k", 60 * MIB));
        assert_eq!(ledger.correct("k", need()).own(), 95 * MIB, "the most counts");
        assert_eq!(ledger.correct("other", need()), need());
    }

    #[test]
    fn it_survives_in_its_file_and_leaves_nothing_else_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/models.json");
        assert_eq!(Ledger::load(&path), Ledger::default());
        let mut ledger = Ledger::default();
        measured(&mut ledger);
        ledger.set_hot(vec!["m".to_owned()]);
        ledger.save(&path).unwrap();
        assert_eq!(Ledger::load(&path), ledger);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(ledger.save(Path::new("/dev/null/models.json")).is_err());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models.json");
        std::fs::write(&path, "{\"version\":1,").unwrap();
        assert_eq!(Ledger::load(&path), Ledger::default());
        assert!(!path.exists() && dir.path().join("models.damaged").exists());
        std::fs::write(&path, r#"{"version":3,"entries":{},"count":7,"devices":null,"hot":[]}"#).unwrap();
        assert_eq!(Ledger::load(&path), Ledger::default());
        assert!(path.exists(), "another version's is left alone until it is written over");
        std::fs::write(&path, r#"{"version":1,"entries":{},"count":7,"devices":null,"hot":[]}"#).unwrap();
        assert_eq!(Ledger::load(&path), Ledger { count: 7, ..Ledger::default() }, "the one before is read");
    }

    #[test]
    fn gpus_are_known_by_their_numbers_whichever_of_them_a_worker_sees() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.devices(), None);
        ledger.set_gpus(Some(&"1".parse().unwrap()), [8].into_iter());
        ledger.set_gpus(Some(&"3".parse().unwrap()), [6].into_iter());
        let known = BTreeMap::from([(1, 8), (3, 6)]);
        assert_eq!((ledger.devices(), ledger.gpus()), (None, &known), "nobody has seen all");
        ledger.set_gpus(None, [9, 8].into_iter());
        assert_eq!((ledger.devices(), ledger.gpus()), (Some(17), &BTreeMap::from([(0, 9), (1, 8)])));
        ledger.set_gpus(None, std::iter::empty());
        assert_eq!(ledger.devices(), Some(0));
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut ledger = Ledger::default();
        for n in 0..ENTRIES as u64 + 1 {
            ledger.loaded(&format!("k{n}"), 1, 0, Duration::ZERO);
        }
        assert_eq!(ledger.entries.len(), ENTRIES);
        assert!(ledger.get("k0").is_none() && ledger.get("k1").is_some());
    }
}
