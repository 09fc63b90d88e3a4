//! [`Store`]: records in one file that a crash cannot damage (redb). Every call blocks.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use redb::{Builder, Database, DatabaseError, ReadableTable as _, TableDefinition, TableError};

use super::index::Row;
use crate::generation::Key;

const RECORDS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("records");
/// [`Row`]s as JSON.
const ROWS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("rows");

/// What redb keeps of the file in memory. The operating system keeps more of it, and what is asked for often is in memory anyway.
const PAGES: usize = 4 << 20;

/// Records on disk. Always there until it is dropped.
pub(super) struct Store(Option<Database>);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// Another process has it.
    #[error("another process uses it")]
    Taken,
    /// It is no such file, or damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The disk says no.
    #[error("{0}")]
    Io(std::io::Error),
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// Anything else.
    #[error("{0}")]
    Other(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.into() {
            redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => Self::Full,
            other => Self::Other(Box::new(other)),
        }
    }
}

impl From<Fault> for Unusable {
    fn from(fault: Fault) -> Self {
        use std::io::ErrorKind::{InvalidData, StorageFull, UnexpectedEof};
        let Fault::Other(error) = fault else { return Self::Io(StorageFull.into()) };
        match *error {
            redb::Error::DatabaseAlreadyOpen => Self::Taken,
            redb::Error::PreviousIo => Self::Io(std::io::ErrorKind::Other.into()),
            // As redb calls a file that is none, or too short.
            redb::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Unusable {
    fn from(error: DatabaseError) -> Self {
        Fault::from(error).into()
    }
}

impl Store {
    /// Opens the file or makes it, for its owner alone, with what is in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<(Key, Row)>), Unusable> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Unusable::Io)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(Unusable::Io)?;
        Self::of(builder().create_file(file)?)
    }

    /// Over something else than a file.
    #[cfg(test)]
    pub(super) fn over(backend: impl redb::StorageBackend) -> Result<(Self, Vec<(Key, Row)>), Unusable> {
        Self::of(builder().create_with_backend(backend)?)
    }

    fn of(database: Database) -> Result<(Self, Vec<(Key, Row)>), Unusable> {
        let store = Self(Some(database));
        let rows = store.rows()?;
        Ok((store, rows))
    }

    fn database(&self) -> Result<&Database, Fault> {
        self.0.as_ref().ok_or_else(|| redb::Error::PreviousIo.into())
    }

    /// What is in it, the oldest first.
    fn rows(&self) -> Result<Vec<(Key, Row)>, Fault> {
        let reading = self.database()?.begin_read()?;
        let mut rows = Vec::new();
        let table = match reading.open_table(ROWS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(rows),
            Err(error) => return Err(error.into()),
        };
        for row in table.iter()? {
            let (key, row) = row?;
            if let Ok(row) = serde_json::from_slice::<Row>(row.value()) {
                rows.push((Key::from_bytes(*key.value()), row));
            }
        }
        rows.sort_by_key(|(_, row)| row.created);
        Ok(rows)
    }

    /// The record of `key`.
    pub(super) fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, Fault> {
        let reading = self.database()?.begin_read()?;
        let record = reading.open_table(RECORDS)?.get(key.as_bytes())?;
        Ok(record.map(|record| record.value().to_vec()))
    }

    /// Writes and throws away, all of it or nothing.
    pub(super) fn change(&self, puts: &[(Key, Row, Vec<u8>)], removals: &[Key]) -> Result<(), Fault> {
        let mut writing = self.database()?.begin_write()?;
        // A crash costs no walk through the file at the next start.
        writing.set_quick_repair(true);
        {
            let (mut records, mut rows) = (writing.open_table(RECORDS)?, writing.open_table(ROWS)?);
            for key in removals {
                records.remove(key.as_bytes())?;
                rows.remove(key.as_bytes())?;
            }
            for (key, row, record) in puts {
                let row = serde_json::to_vec(row).map_err(|error| redb::Error::Io(error.into()))?;
                records.insert(key.as_bytes(), record.as_slice())?;
                rows.insert(key.as_bytes(), row.as_slice())?;
            }
        }
        writing.commit()?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let database = self.0.take();
        // Closing writes, so it too can meet what only a damaged file has.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::warn!("the file of kept answers could not be closed in good order");
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGES).create_with_file_format_v3(true);
    builder
}

/// What a record of so many bytes takes in the file: redb gives whole pages, a large record the next power of two of them.
pub(super) fn cost(record: usize) -> u64 {
    let (record, page) = (record as u64, 4096);
    // Its key, its row and what the trees need.
    let with_row = record + 512;
    if with_row > page { with_row.next_power_of_two() } else { with_row + with_row / 2 }
}
