use redb::StorageBackend;
use redb::backends::FileBackend;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::entry::tests::{TTL, entry, identity, wanted};
use super::*;

const BUDGET: u64 = 8 << 20;

fn disk(folder: &Path) -> (Disk, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    (Disk::open(folder, BUDGET, Arc::clone(&metrics)).unwrap(), metrics)
}

fn fresh(prompt: &str, text: &str) -> Arc<Entry> {
    let now = SystemTime::now();
    Arc::new(Entry { created: now, expires: now + TTL, ..entry(prompt, text) })
}

async fn has(disk: &Disk, prompt: &str) -> bool {
    let identity = identity(prompt);
    disk.get(&Wanted { now: SystemTime::now(), ..wanted(&identity) }).await.is_some()
}

/// Text that does not pack.
fn noise(bytes: usize) -> String {
    (0..bytes / 2).map(|_| char::from_u32(0xa1 + rand::random::<u32>() % 0x500).unwrap()).collect()
}

#[tokio::test]
async fn what_is_written_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (disk, _) = disk(folder.path());
        disk.put(&fresh("p", "x")).await;
    }
    let (disk, _) = disk(folder.path());
    assert!(has(&disk, "p").await && !has(&disk, "q").await);
    assert_eq!(disk.statistics(), Statistics { hits: 1, misses: 1, ..Statistics::default() });
    assert_eq!(disk.list(&Which::default(), 9).len(), 1);
}

#[tokio::test]
async fn a_file_that_is_left_in_the_middle_of_a_write_is_as_after_the_last_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (before, _) = disk(folder.path());
    before.put(&fresh("p", "x")).await;
    before.sync();
    // As a kill leaves it: what the process has written is in the file, and nothing was closed.
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join(FILE), other.path().join(FILE)).unwrap();
    let (after, _) = disk(other.path());
    assert!(has(&after, "p").await);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    for damage in [&b"this is no database at all, but a text that is long enough"[..], &[0; 8192]] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), damage).unwrap();
        let (disk, metrics) = disk(folder.path());
        disk.put(&fresh("p", "x")).await;
        disk.sync();
        assert!(has(&disk, "p").await);
        assert_eq!(std::fs::read(folder.path().join("responses.damaged")).unwrap(), damage);
        assert_eq!(metrics.cache_requests.with_label_values(&["disk", "damaged"]).get(), 1);
    }
}

/// Whatever is overwritten: what is found is right, and the rest is a miss.
#[tokio::test]
async fn overwritten_pages_never_make_a_wrong_answer() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (disk, _) = disk(folder.path());
        for number in 0..50 {
            disk.put(&fresh(&number.to_string(), &number.to_string().repeat(500))).await;
        }
    }
    let sound = std::fs::read(folder.path().join(FILE)).unwrap();
    for page in (0..sound.len() / 4096).step_by(3) {
        let other = tempfile::tempdir().unwrap();
        let mut damaged = sound.clone();
        damaged[page * 4096 + 100..(page + 1) * 4096].fill(0xa5);
        std::fs::write(other.path().join(FILE), damaged).unwrap();
        let (disk, _) = disk(other.path());
        for number in 0..50 {
            let identity = identity(&number.to_string());
            let found = disk.get(&Wanted { now: SystemTime::now(), ..wanted(&identity) }).await;
            let right = fresh(&number.to_string(), &number.to_string().repeat(500));
            assert!(found.is_none_or(|found| found.events == right.events), "page {page}");
        }
        disk.put(&fresh("new", "x")).await;
        disk.sync();
    }
}

#[tokio::test]
async fn a_file_that_another_process_uses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = disk(folder.path());
    first.put(&fresh("p", "x")).await;
    first.sync();
    let (second, metrics) = disk(folder.path());
    second.put(&fresh("q", "x")).await;
    second.sync();
    assert!(!has(&second, "q").await && has(&first, "p").await);
    assert_eq!(metrics.cache_store_failures.with_label_values(&["disk", "failed"]).get(), 1);
}

#[tokio::test]
async fn the_file_stays_within_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, metrics) = disk(folder.path());
    for round in 0..10 {
        for number in 0..200 {
            let size = [200, 3_000, 9_000, 40_000][number % 4];
            disk.put(&fresh(&format!("{round} {number}"), &noise(size))).await;
        }
        disk.sync();
        let length = std::fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert!(length <= BUDGET + (64 << 10), "{length}");
    }
    assert!(has(&disk, "9 199").await && !has(&disk, "0 0").await);
    let usage = disk.usage().unwrap();
    assert!(usage.bytes > BUDGET / 8 && usage.bytes <= BUDGET / ENTRIES_PART, "{usage:?}");
    assert!(metrics.cache_evictions.with_label_values(&["disk", "size"]).get() > 100);
}

#[tokio::test]
async fn what_has_expired_is_neither_found_nor_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, metrics) = disk(folder.path());
    disk.put(&Arc::new(entry("old", "of 1970"))).await;
    disk.sync();
    assert!(!has(&disk, "old").await);
    disk.put(&fresh("p", "x")).await;
    disk.sync();
    assert_eq!(disk.usage().unwrap().entries, 1);
    assert_eq!(metrics.cache_evictions.with_label_values(&["disk", "expired"]).get(), 1);
}

#[tokio::test]
async fn a_purge_takes_what_waits_to_be_written_too() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _) = disk(folder.path());
    let of = |model: &str| Which { model: Some(model.to_owned()), ..Which::default() };
    disk.put(&Arc::new(Entry { model: "other".into(), ..(*fresh("q", "x")).clone() })).await;
    disk.put(&fresh("p", "x")).await;
    disk.purge(&of("other")).await;
    disk.sync();
    assert!(has(&disk, "p").await && !has(&disk, "q").await);
    assert_eq!(disk.purge(&Which::default()).await, 1);
    assert!(!has(&disk, "p").await);
}

/// A disk that is full when told so.
#[derive(Debug)]
struct Full(FileBackend, Arc<AtomicBool>);

impl Full {
    fn check(&self) -> std::io::Result<()> {
        if self.1.load(Ordering::Acquire) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Full {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        self.0.read(offset, length)
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.check()?;
        self.0.set_len(length)
    }

    fn sync_data(&self, eventual: bool) -> std::io::Result<()> {
        self.0.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.0.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_is_counted_and_the_tier_comes_back() {
    let (folder, is_full) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let metrics = Arc::new(Metrics::new().unwrap());
    let open = {
        let is_full = Arc::clone(&is_full);
        move |path: &Path| {
            let file =
                std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path);
            let backend = FileBackend::new(file.unwrap()).map_err(Unusable::from)?;
            Store::over(Full(backend, Arc::clone(&is_full)))
        }
    };
    let disk = Disk::with(folder.path().join(FILE), BUDGET, Arc::clone(&metrics), Box::new(open)).unwrap();
    disk.put(&fresh("p", "x")).await;
    disk.sync();
    is_full.store(true, Ordering::Release);
    for number in 0..20 {
        disk.put(&fresh(&number.to_string(), &noise(100_000))).await;
        disk.sync();
    }
    let failures = |reason| metrics.cache_store_failures.with_label_values(&["disk", reason]).get();
    assert_eq!(failures("full") + failures("failed"), 20);
    is_full.store(false, Ordering::Release);
    disk.put(&fresh("q", "x")).await;
    disk.sync();
    assert!(has(&disk, "p").await && has(&disk, "q").await && !has(&disk, "3").await);
    assert_eq!(metrics.cache_requests.with_label_values(&["disk", "damaged"]).get(), 0);
    is_full.store(true, Ordering::Release);
    assert_eq!(disk.purge(&Which::default()).await, 2);
    is_full.store(false, Ordering::Release);
    disk.put(&fresh("r", "x")).await;
    disk.sync();
    assert!(!has(&disk, "p").await && has(&disk, "r").await, "what was purged does not come back");
}
