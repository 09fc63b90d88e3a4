//! An [`Entry`] as bytes, for tiers outside of this process. What comes back is never trusted: a record that is damaged, of another
//! version or larger than any honest one is none.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `ARRC` |
//! | 1 | version, 2 |
//! | rest | a zstd frame with its content's size and checksum |
//!
//! The content is three parts, each behind its length as four bytes, little end first: `Head` as JSON, the identity's bytes, and the
//! events as a JSON list.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zstd::zstd_safe::get_frame_content_size;

use super::Entry;
use crate::generation::{Event, Identity};

const MAGIC: &[u8; 5] = b"ARRC\x02";
/// The fastest: what waits for it is a request.
const LEVEL: i32 = 1;
/// The most that a record may say it unpacks to.
const UNPACKED: usize = 64 << 20;

/// What is known of an entry beside what it answers and with what.
#[derive(Serialize, Deserialize)]
struct Head {
    model: Arc<str>,
    tenant: Arc<str>,
    node: Arc<str>,
    /// Milliseconds since 1970.
    created: u64,
    /// The same.
    expires: u64,
    /// Of each event, microseconds since the first.
    times: Vec<u64>,
}

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Not one, or of another version.
    #[error("not a record of this version")]
    Foreign,
    /// It was one.
    #[error("the record is damaged")]
    Broken,
}

/// The entry as bytes.
pub fn encode(entry: &Entry) -> std::io::Result<Vec<u8>> {
    let head = Head {
        model: Arc::clone(&entry.model),
        tenant: Arc::clone(&entry.tenant),
        node: Arc::clone(&entry.node),
        created: millis(entry.created),
        expires: millis(entry.expires),
        times: entry.times.iter().map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).collect(),
    };
    let mut content = Vec::with_capacity(entry.size());
    put(&mut content, &serde_json::to_vec(&head)?)?;
    put(&mut content, entry.identity.bytes())?;
    put(&mut content, &serde_json::to_vec(&*entry.events)?)?;
    if content.len() > UNPACKED {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    let mut record = MAGIC.to_vec();
    record.extend(compressor.compress(&content)?);
    Ok(record)
}

/// The entry that `record` is.
pub fn decode(record: &[u8]) -> Result<Entry, Damaged> {
    let frame = record.strip_prefix(MAGIC).ok_or(Damaged::Foreign)?;
    read(frame).ok_or(Damaged::Broken)
}

fn read(frame: &[u8]) -> Option<Entry> {
    let size = usize::try_from(get_frame_content_size(frame).ok()??).ok()?;
    if size > UNPACKED {
        return None;
    }
    let content = zstd::bulk::decompress(frame, size).ok()?;
    let mut rest = content.as_slice();
    let head: Head = serde_json::from_slice(take(&mut rest)?).ok()?;
    let identity = Identity::from_bytes(take(&mut rest)?);
    let events: Vec<Arc<Event>> = serde_json::from_slice(take(&mut rest)?).ok()?;
    let is_whole = matches!(events.last().map(|event| &**event), Some(Event::Done(_)));
    (is_whole && rest.is_empty() && events.len() == head.times.len()).then(|| Entry {
        identity,
        model: head.model,
        tenant: head.tenant,
        node: head.node,
        created: time(head.created),
        expires: time(head.expires),
        events: events.into(),
        times: head.times.into_iter().map(Duration::from_micros).collect(),
    })
}

fn put(content: &mut Vec<u8>, part: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(part.len()).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
    content.extend(length.to_le_bytes());
    content.extend(part);
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

/// Milliseconds since 1970, which is what records and indices hold.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The other way round; what no clock reaches is the beginning.
pub(super) fn time(millis: u64) -> SystemTime {
    let since = Duration::from_millis(millis);
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let entry = entry("p", &"long enough to be packed ".repeat(50));
        let record = encode(&entry).unwrap();
        assert!(record.len() < entry.size());
        let back = decode(&record).unwrap();
        assert_eq!(format!("{entry:?}"), format!("{back:?}"));
        assert!(entry.identity == back.identity && entry.events == back.events);
    }

    #[test]
    fn records_of_other_versions_are_foreign() {
        let mut record = encode(&entry("p", "x")).unwrap();
        record[4] += 1;
        assert_eq!(decode(&record).err(), Some(Damaged::Foreign));
        assert_eq!(decode(b"").err(), Some(Damaged::Foreign));
    }

    #[test]
    fn one_that_says_it_is_enormous_is_damaged_and_takes_no_memory() {
        let mut record = MAGIC.to_vec();
        record.extend(zstd::bulk::compress(&vec![0; UNPACKED + 1], 1).unwrap());
        assert_eq!(decode(&record).err(), Some(Damaged::Broken));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_or_a_lost_end_changes_no_answer(place: prop::sample::Index, bit in 0..8, lost: prop::sample::Index) {
            let entry = entry("p", "text");
            let record = encode(&entry).unwrap();
            let mut flipped = record.clone();
            flipped[place.index(record.len())] ^= 1u8 << bit;
            // One bit of a frame means nothing to anybody.
            if let Ok(back) = decode(&flipped) {
                prop_assert_eq!(format!("{:?}", entry), format!("{:?}", back));
            }
            prop_assert!(decode(&record[..lost.index(record.len())]).is_err());
        }
    }
}
