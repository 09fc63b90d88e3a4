//! [`Disk`]: entries in a file, so that they outlive the process. What is there is known in memory ([`index`]); reading is done on
//! the threads for blocking work, and writing by a thread of its own ([`writer`]), so that no request waits for the disk but one that is
//! answered from it. The store is redb (`store`): one file, and every commit is all or nothing, whenever the process is killed.
//!
//! It is redb rather than a hybrid cache such as foyer because answers are purged by model and tenant, also after a restart, which takes
//! an index that can be walked.

mod index;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::codec::{decode, millis};
use super::counts::Counts;
use super::tier::is_over;
use super::{Entry, Statistics, Summary, Tier, Usage, Wanted, Which};
use crate::generation::Key;
use crate::telemetry::Metrics;
use index::{Index, Row};
use store::{Fault, Store, Unusable};
use writer::Order;

/// Orders that wait for the thread. More come only while the disk is slower than the models are, and are turned away.
const QUEUE: usize = 1024;
/// Until a purge tries again to get into the queue.
const FULL: Duration = Duration::from_millis(5);
/// The part of the budget that entries may take. The file grows by doubling; pages that were given up are free only after another commit, and
/// what is free is in pieces.
const ENTRIES_PART: u64 = 4;
/// What the tier is called.
pub(super) const DISK: &str = "disk";
/// The file's name in its folder.
const FILE: &str = "responses.redb";

/// The tier on disk. Dropping it waits until everything is written.
pub(super) struct Disk {
    shelf: Arc<Shelf>,
    /// `None` once it is being dropped.
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer share.
struct Shelf {
    path: PathBuf,
    open: Box<Opener>,
    store: RwLock<Option<Arc<Store>>>,
    /// That it cannot be opened was said.
    is_told: AtomicBool,
    index: Mutex<Index>,
    budget: AtomicU64,
    counts: Counts,
}

type Opener = dyn Fn(&Path) -> Result<(Store, Vec<(Key, Row)>), Unusable> + Send + Sync;

impl Shelf {
    fn store(&self) -> Option<Arc<Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put_up(&self, store: Store) -> Arc<Store> {
        let store = Arc::new(store);
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&store));
        store
    }

    fn close(&self) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // A panic between two changes leaves at most a row that nobody finds, and a restart reads all of it again.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the index may cost.
    fn limit(&self) -> u64 {
        self.budget.load(Ordering::Relaxed) / ENTRIES_PART
    }

    fn usage(&self) -> Usage {
        let (index, budget) = (self.index(), self.budget.load(Ordering::Relaxed));
        Usage { entries: index.len() as u64, bytes: index.cost(), budget }
    }
}

impl Disk {
    /// Opens the file in `folder`. Never fails: without a file that can be used it keeps nothing, and tries again now and then.
    pub(super) fn open(folder: &Path, budget: u64, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        Self::with(folder.join(FILE), budget, metrics, Box::new(Store::open))
    }

    fn with(path: PathBuf, budget: u64, metrics: Arc<Metrics>, open: Box<Opener>) -> std::io::Result<Self> {
        let shelf = Arc::new(Shelf {
            path,
            open,
            store: RwLock::default(),
            is_told: AtomicBool::new(false),
            index: Mutex::default(),
            budget: AtomicU64::new(budget),
            counts: Counts::new(DISK, metrics),
        });
        writer::reopen(&shelf);
        shelf.counts.holds(shelf.usage());
        let (orders, receiver) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("cache writer".to_owned()).spawn({
            let shelf = Arc::clone(&shelf);
            move || writer::run(&shelf, &receiver)
        })?;
        Ok(Self { shelf, orders: Some(orders), writer: Some(writer) })
    }

    /// Keeps within `budget` from now on. The file does not get smaller, but what is free in it is used again.
    pub(super) fn resize(&self, budget: u64) {
        if self.shelf.budget.swap(budget, Ordering::Relaxed) != budget {
            // If the thread has too much to do, it looks at the budget in any case.
            self.order(Order::Tidy);
        }
    }

    /// False: the thread has too much to do.
    fn order(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok())
    }

    /// Reads the record of `key`, which the index has.
    async fn read(&self, key: Key) -> Option<Entry> {
        let store = self.shelf.store()?;
        let read = tokio::task::spawn_blocking(move || {
            let record = guarded(|| store.read(&key))?;
            Ok(record.map(|record| decode(&record)))
        });
        match read.await.ok()? {
            Ok(record) => match record? {
                Ok(entry) => return Some(entry),
                Err(damaged) => {
                    tracing::warn!(%key, %damaged, "an answer on disk is left out");
                    self.shelf.counts.damaged.inc();
                }
            },
            Err::<_, Fault>(fault) => {
                tracing::warn!(%key, %fault, "an answer on disk cannot be read");
                self.shelf.counts.failed.inc();
            }
        }
        self.order(Order::Remove(key));
        None
    }

    /// Returns when everything that was to be kept is on disk.
    #[cfg(test)]
    fn sync(&self) {
        let (told, done) = std::sync::mpsc::channel();
        assert!(self.order(Order::Sync(told)));
        done.recv().unwrap();
    }
}

/// Runs what talks to redb: it asserts what only a damaged file can violate, which is the file's fault and not the end of the thread.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    worked.unwrap_or_else(|_| Err(redb::Error::Corrupted("it cannot be made sense of".to_owned()).into()))
}

#[async_trait]
impl Tier for Disk {
    fn name(&self) -> &'static str {
        DISK
    }

    async fn get(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        let key = wanted.identity.key();
        let is_there = {
            let mut index = self.shelf.index();
            let is_there = index.get(&key).is_some_and(|row| !is_over(row.expires, wanted.now));
            if is_there {
                index.touch(&key);
            }
            is_there
        };
        let found = if is_there { self.read(key).await } else { None };
        let found = found.filter(|entry| wanted.takes(entry)).map(Arc::new);
        if found.is_some() {
            self.shelf.counts.hit.inc()
        } else {
            self.shelf.counts.miss.inc()
        };
        found
    }

    async fn put(&self, entry: &Arc<Entry>) {
        let is_kept = self
            .shelf
            .index()
            .get(&entry.identity.key())
            .is_some_and(|row| row.created >= millis(entry.created));
        if !is_kept && !self.order(Order::Put(Arc::clone(entry))) {
            self.shelf.counts.not_stored("busy");
        }
    }

    async fn purge(&self, which: &Which) -> u64 {
        let (told, done) = oneshot::channel();
        let mut order = Order::Purge(which.clone(), told);
        let Some(orders) = &self.orders else { return 0 };
        // A purge is not turned away: it waits until the thread takes it.
        while let Err(TrySendError::Full(back)) = orders.try_send(order) {
            order = back;
            tokio::time::sleep(FULL).await;
        }
        done.await.unwrap_or_default()
    }

    fn usage(&self) -> Option<Usage> {
        Some(self.shelf.usage())
    }

    fn list(&self, which: &Which, most: usize) -> Vec<Summary> {
        let (index, now) = (self.shelf.index(), SystemTime::now());
        let meant = index
            .iter()
            .filter(|(key, row)| which.is(|| **key, &row.model, &row.tenant) && !is_over(row.expires, now));
        let summary = |(key, row): (&Key, &Row)| Summary {
            key: key.to_string(),
            model: Arc::clone(&row.model),
            tenant: Arc::clone(&row.tenant),
            created: row.created,
            expires: row.expires,
            bytes: row.cost,
        };
        meant.take(most).map(summary).collect()
    }

    fn statistics(&self) -> Statistics {
        self.shelf.counts.statistics()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.orders = None;
        let Some(writer) = self.writer.take() else { return };
        // It has said itself why, if it broke.
        let wait = || drop(writer.join());
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        match flavor {
            // A request that has outlived its configuration: others of this thread must not wait with it.
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
            _ => wait(),
        }
    }
}

#[cfg(test)]
mod tests;
