//! Entries as one file, to be carried from one instance to another: records ([`codec`]), each behind its length as four bytes, little end
//! first.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::{Entry, Responses, Which, codec};

/// What came of loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Entries that are kept from now on.
    pub loaded: u64,
    /// Those that had expired.
    pub expired: u64,
    /// Records that could not be read; behind one that is cut off nothing is.
    pub damaged: u64,
}

impl Responses {
    /// What is in memory. Blocks: it packs all of it.
    pub fn save(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for entry in self.in_memory(&Which::default()) {
            // One that is too large for a record is too large for every other tier as well.
            let Ok(record) = codec::encode(&entry) else { continue };
            let Ok(length) = u32::try_from(record.len()) else { continue };
            archive.extend(length.to_le_bytes());
            archive.extend(record);
        }
        archive
    }

    /// Keeps in memory what was saved. Blocks: it unpacks all of it.
    pub fn load(&self, mut archive: &[u8], now: SystemTime) -> Loaded {
        let mut told = Loaded::default();
        while !archive.is_empty() {
            let Some((record, rest)) = first(archive) else {
                told.damaged += 1;
                break;
            };
            archive = rest;
            match codec::decode(record) {
                Ok(entry) if entry.remaining(now).is_zero() => told.expired += 1,
                Ok(entry) => {
                    self.keep(&Arc::<Entry>::new(entry));
                    told.loaded += 1;
                }
                Err(_) => told.damaged += 1,
            }
        }
        told
    }
}

/// The first record, and what is behind it.
fn first(archive: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = archive.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{START, TTL, entry, identity, wanted};
    use super::super::{ResponsesConfig, Wanted};
    use super::*;
    use crate::telemetry::Metrics;

    fn responses() -> Responses {
        let metrics = Arc::new(Metrics::new().unwrap());
        Responses::new(&ResponsesConfig::default(), None, &metrics).unwrap()
    }

    #[test]
    fn what_one_instance_has_saved_another_one_answers_with() {
        let (one, other, now) = (responses(), responses(), SystemTime::now());
        for prompt in ["p", "q"] {
            one.keep(&Arc::new(Entry { created: now, expires: now + TTL, ..entry(prompt, "x") }));
        }
        let archive = one.save();
        assert_eq!(other.load(&archive, now), Loaded { loaded: 2, ..Loaded::default() });
        assert!(other.memory(&Wanted { now, ..wanted(&identity("q")) }).is_some());
        assert_eq!(other.load(&archive, now + TTL), Loaded { expired: 2, ..Loaded::default() });
        assert_eq!(other.load(b"", START), Loaded::default());
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let (one, now) = (responses(), SystemTime::now());
        for prompt in ["p", "q"] {
            one.keep(&Arc::new(Entry { created: now, expires: now + TTL, ..entry(prompt, "x") }));
        }
        let mut archive = one.save();
        archive[20] ^= 1;
        let told = one.load(&archive, now);
        assert_eq!(told, Loaded { loaded: 1, damaged: 1, ..Loaded::default() });
        let told = one.load(&archive[..archive.len() - 1], now);
        assert_eq!(told, Loaded { damaged: 2, ..Loaded::default() });
        assert_eq!(one.load(b"no", now).damaged, 1);
    }
}
