//! The thread that writes to disk, behind the requests: a queue of bounded length, and one commit for what is in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::index::Row;
use super::store::{Fault, Store, Unusable, cost};
use super::{Shelf, guarded};
use crate::cache::codec::{encode, millis};
use crate::cache::{Entry, Which};
use crate::generation::Key;

/// Entries of one commit: enough that a commit's cost is spread, few enough that the space they need before that of others is free again
/// is a small part of the file.
const BATCH: usize = 32;
/// The part of the file that one commit may write: the space of what it throws away is free only for those after it, and a file without
/// free space doubles.
const COMMIT_PART: u64 = 32;
/// How often it looks for what has expired, and whether a file that could not be used can be.
const SWEEP: Duration = Duration::from_secs(30);
/// The largest record, and the part of the file that it may be: what is larger is rare, and pushes out many others.
const LARGEST: u64 = 4 << 20;
const LARGEST_PART: u64 = 16;

/// What is to be done.
pub(super) enum Order {
    /// Keep it.
    Put(Arc<Entry>),
    /// Its record is damaged.
    Remove(Key),
    /// Throw away, and say how many.
    Purge(Which, oneshot::Sender<u64>),
    /// Throw away what has expired, and what the budget has no room for.
    Tidy,
    /// Say when everything before is on disk.
    #[cfg(test)]
    Sync(std::sync::mpsc::Sender<()>),
}

/// Works until nobody can give it anything to do any more; what was given before is done.
pub(super) fn run(shelf: &Shelf, orders: &Receiver<Order>) {
    loop {
        let first = match orders.recv_timeout(SWEEP) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let batch = first.into_iter().chain(std::iter::from_fn(|| orders.try_recv().ok())).take(BATCH);
        work(shelf, batch.collect());
    }
}

/// Does a batch and, once it is done, tells those who wait for it.
fn work(shelf: &Shelf, batch: Vec<Order>) {
    let (mut puts, mut removals, mut purged) = (Vec::new(), Vec::new(), Vec::new());
    #[cfg(test)]
    let mut synced = Vec::new();
    for order in batch {
        match order {
            Order::Put(entry) => puts.extend(record(shelf, &entry)),
            Order::Remove(key) => {
                shelf.index().remove(&key);
                removals.push(key);
            }
            Order::Purge(which, told) => {
                // What waits in front of it is meant too.
                puts.retain(|(key, row, _): &(Key, Row, _)| !which.is(|| *key, &row.model, &row.tenant));
                let gone = shelf.index().take(|key, row| which.is(|| *key, &row.model, &row.tenant));
                shelf.counts.evicted("purged", gone.len() as u64);
                purged.push((told, gone.len() as u64));
                removals.extend(gone);
            }
            // That is done with every batch.
            Order::Tidy => {}
            #[cfg(test)]
            Order::Sync(told) => synced.push(told),
        }
    }
    let mut is_committed = true;
    for puts in portions(puts, shelf.limit() / COMMIT_PART) {
        is_committed &= commit(shelf, puts, std::mem::take(&mut removals));
    }
    if !is_committed && purged.iter().any(|(_, count)| *count > 0) {
        discard(shelf);
    }
    for (told, count) in purged {
        // Who asked may have left.
        let _ = told.send(count);
    }
    #[cfg(test)]
    synced.into_iter().for_each(|told| told.send(()).unwrap_or_default());
}

/// The same in portions that cost no more than `most` unless they are single records; at least one portion.
fn portions(puts: Vec<(Key, Row, Vec<u8>)>, most: u64) -> Vec<Vec<(Key, Row, Vec<u8>)>> {
    let (mut portions, mut cost) = (vec![Vec::new()], 0);
    for put in puts {
        cost += put.1.cost;
        match portions.last_mut() {
            Some(last) if last.is_empty() || cost <= most => last.push(put),
            _ => {
                cost = put.1.cost;
                portions.push(vec![put]);
            }
        }
    }
    portions
}

fn record(shelf: &Shelf, entry: &Entry) -> Option<(Key, Row, Vec<u8>)> {
    let largest = LARGEST.min(shelf.limit() / LARGEST_PART);
    let record = encode(entry).ok().filter(|record| record.len() as u64 <= largest);
    let Some(record) = record else {
        shelf.counts.not_stored("large");
        return None;
    };
    let row = Row {
        model: Arc::clone(&entry.model),
        tenant: Arc::clone(&entry.tenant),
        created: millis(entry.created),
        expires: millis(entry.expires),
        cost: cost(record.len()),
    };
    Some((entry.identity.key(), row, record))
}

/// Writes and throws away; false: it could not.
fn commit(shelf: &Shelf, mut puts: Vec<(Key, Row, Vec<u8>)>, mut removals: Vec<Key>) -> bool {
    let Some(store) = shelf.store().or_else(|| reopen(shelf)) else {
        puts.iter().for_each(|_| shelf.counts.not_stored("failed"));
        return false;
    };
    {
        let mut index = shelf.index();
        let expired = index.expire(millis(SystemTime::now()));
        shelf.counts.evicted("expired", expired.len() as u64);
        for (key, row, _) in &puts {
            index.insert(*key, row.clone());
        }
        let pushed_out = index.shrink(shelf.limit());
        shelf.counts.evicted("size", pushed_out.len() as u64);
        puts.retain(|(key, ..)| index.get(key).is_some());
        removals.extend(expired.into_iter().chain(pushed_out));
    }
    let is_idle = puts.is_empty() && removals.is_empty();
    let done = if is_idle { Ok(()) } else { guarded(|| store.change(&puts, &removals)) };
    drop(store);
    if let Err(fault) = &done {
        failed(shelf, &puts, fault);
    }
    shelf.counts.holds(shelf.usage());
    done.is_ok()
}

/// Begins anew, because what was purged could not be taken out of the file: it must not come back, whatever that costs.
fn discard(shelf: &Shelf) {
    shelf.close();
    *shelf.index() = super::Index::default();
    if let Err(error) = std::fs::remove_file(&shelf.path) {
        tracing::error!(file = %shelf.path.display(), %error, "answers that were purged are still on disk");
    }
    reopen(shelf);
    shelf.counts.holds(shelf.usage());
}

/// Nothing of `puts` was written. After an error redb refuses everything, so the file is opened anew.
fn failed(shelf: &Shelf, puts: &[(Key, Row, Vec<u8>)], fault: &Fault) {
    let reason = if matches!(fault, Fault::Full) { "full" } else { "failed" };
    tracing::warn!(%fault, "answers are not kept on disk");
    for (key, ..) in puts {
        shelf.counts.not_stored(reason);
        shelf.index().remove(key);
    }
    shelf.close();
    reopen(shelf);
}

/// Opens the file; one that is damaged is set aside first.
pub(super) fn reopen(shelf: &Shelf) -> Option<Arc<Store>> {
    let mut opened = guarded_open(shelf);
    if let Err(Unusable::Damaged(reason)) = &opened {
        let aside = shelf.path.with_extension("damaged");
        tracing::warn!(file = %shelf.path.display(), aside = %aside.display(), reason, "the file of kept answers is damaged and set aside");
        shelf.counts.damaged.inc();
        if let Err(error) = std::fs::rename(&shelf.path, &aside) {
            opened = Err(Unusable::Io(error));
        } else {
            opened = guarded_open(shelf);
        }
    }
    match opened {
        Ok((store, rows)) => {
            let mut index = shelf.index();
            *index = super::Index::default();
            for (key, row) in rows {
                index.insert(key, row);
            }
            drop(index);
            shelf.is_told.store(false, Ordering::Relaxed);
            Some(shelf.put_up(store))
        }
        Err(reason) => {
            // Once: it is tried again with every batch.
            if !shelf.is_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(file = %shelf.path.display(), %reason, "no answers are kept on disk");
            }
            None
        }
    }
}

fn guarded_open(shelf: &Shelf) -> Result<(Store, Vec<(Key, Row)>), Unusable> {
    // redb asserts what only a damaged file can violate.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (shelf.open)(&shelf.path)));
    opened.unwrap_or_else(|_| Err(Unusable::Damaged("it cannot be made sense of".to_owned())))
}
