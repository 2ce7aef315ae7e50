//! The durable log: one redb file, one transaction and one sync a batch.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

mod checksum;
mod cipher;
#[cfg(test)]
mod tests;

pub use cipher::LogKey;

/// Position of an entry in the log; the first is 1, 0 is before all.
pub type Index = u64;
/// A period with at most one leader.
pub type Term = u64;

/// The largest payload of one entry, in bytes.
pub const MAX_ENTRY_BYTES: usize = 64 << 20;

/// Memory that redb keeps of the file, in bytes: the log is written once and read at start.
const CACHE_BYTES: usize = 1 << 20;
/// Layout of the tables, raised by what an older program could not read.
const FORMAT: u64 = 1;

/// Entries by index: term, checksum, payload; see [`encode`].
const ENTRIES: TableDefinition<Index, &[u8]> = TableDefinition::new("entries");
/// The snapshot under key 0, in the form of an entry whose index is in [`NUMBERS`].
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const NUMBER_FORMAT: &str = "format";
const NUMBER_TERM: &str = "term";
const NUMBER_SNAPSHOT_INDEX: &str = "snapshot_index";
/// Facts of the driver above that must survive: its vote.
const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
const FACT_VOTE: &str = "vote";

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: Index,
    /// The term it was proposed in.
    pub term: Term,
    /// What it says.
    pub payload: Vec<u8>,
}

/// A state that stands for every entry up to `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it stands for.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The state.
    pub payload: Vec<u8>,
}

/// Why the log could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. What was being written is not acknowledged.
    #[error("cannot {action}: the disk is full")]
    Full {
        /// What was tried.
        action: &'static str,
    },
    /// What is on the disk is not what was written there.
    #[error("cannot {action}: the log is damaged: {detail}")]
    Damaged {
        /// What was tried.
        action: &'static str,
        /// What was found.
        detail: String,
    },
    /// Another process has the log open.
    #[error("cannot {action}: another process has the log open")]
    InUse {
        /// What was tried.
        action: &'static str,
    },
    /// The log was written by a newer program.
    #[error("the log has format {found}; this program reads format {FORMAT}")]
    Format {
        /// The format on the disk.
        found: u64,
    },
    /// The log is encrypted under another key.
    #[error("cannot open the log: it is encrypted under another key")]
    Key,
    /// A payload above [`MAX_ENTRY_BYTES`].
    #[error("an entry of {bytes} bytes is above the limit of {MAX_ENTRY_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// An earlier write failed; the log has to be opened again.
    #[error("cannot {action}: an earlier write failed, and the log was not opened again")]
    Closed {
        /// What was tried.
        action: &'static str,
    },
    /// The disk refused for another reason.
    #[error("cannot {action}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<redb::Error>,
    },
}

impl LogError {
    fn new(action: &'static str, error: impl Into<redb::Error>) -> LogError {
        match error.into() {
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                LogError::Full { action }
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                LogError::Damaged { action, detail: error.to_string() }
            }
            redb::Error::Corrupted(detail) => LogError::Damaged { action, detail },
            redb::Error::DatabaseAlreadyOpen => LogError::InUse { action },
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => LogError::Closed { action },
            source => LogError::Disk { action, source: Box::new(source) },
        }
    }
}

/// The durable log of one node. Every method that writes returns after the disk has confirmed.
#[derive(Debug)]
pub struct Log {
    database: Database,
    /// The first index that is kept, one above the snapshot's.
    first: Index,
    /// The last index, 0 or the snapshot's when there is no entry.
    last: Index,
    last_term: Term,
    term: Term,
    failed: bool,
}

impl Log {
    #[cfg(test)]
    fn open_on(backend: impl redb::StorageBackend) -> Result<Log, LogError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Log::with_database(database.map_err(|error| LogError::new("open the log", error))?)
    }

    /// Opens the log in the folder `dir`, or makes an empty one there. Repairs what a crash left.
    ///
    /// # Errors
    /// See [`LogError`]; a damaged log is refused, never emptied.
    pub fn open(dir: &Path) -> Result<Log, LogError> {
        let action = "open the log";
        let io = |error: io::Error| LogError::new(action, redb::Error::Io(error));
        std::fs::create_dir_all(dir).map_err(io)?;
        let path: PathBuf = dir.join("log.redb");
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| LogError::new(action, error))?;
        // The file's name must survive a power failure as its content does.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Log::with_database(database)
    }

    fn with_database(database: Database) -> Result<Log, LogError> {
        let action = "open the log";
        let fail = |error: redb::Error| LogError::new(action, error);
        let mut log = Log { database, first: 1, last: 0, last_term: 0, term: 0, failed: false };
        log.prepare().map_err(fail)?;
        let read = log.database.begin_read().map_err(|error| fail(error.into()))?;
        let numbers = read.open_table(NUMBERS).map_err(|error| fail(error.into()))?;
        let number = |key| -> Result<u64, LogError> {
            Ok(numbers.get(key).map_err(|error| fail(error.into()))?.map_or(0, |value| value.value()))
        };
        match number(NUMBER_FORMAT)? {
            FORMAT => {}
            found => return Err(LogError::Format { found }),
        }
        log.term = number(NUMBER_TERM)?;
        let snapshot_index = number(NUMBER_SNAPSHOT_INDEX)?;
        if let Some(snapshot) = log.snapshot()? {
            log.last_term = snapshot.term;
        }
        log.first = snapshot_index + 1;
        log.last = snapshot_index;
        let entries = read.open_table(ENTRIES).map_err(|error| fail(error.into()))?;
        if let Some((index, stored)) = entries.last().map_err(|error| fail(error.into()))? {
            log.last = index.value();
            log.last_term = decode(action, index.value(), stored.value())?.term;
        }
        Ok(log)
    }

    /// Makes the tables of a new log.
    fn prepare(&self) -> Result<(), redb::Error> {
        match self.database.begin_read()?.open_table(NUMBERS) {
            Ok(_) => return Ok(()),
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let write = self.database.begin_write()?;
        write.open_table(ENTRIES)?;
        write.open_table(SNAPSHOT)?;
        write.open_table(FACTS)?;
        write.open_table(NUMBERS)?.insert(NUMBER_FORMAT, FORMAT)?;
        write.commit()?;
        Ok(())
    }

    /// The last index, 0 when nothing was ever appended.
    pub fn last_index(&self) -> Index {
        self.last
    }

    /// The last entry's term, 0 when nothing was ever appended.
    pub fn last_term(&self) -> Term {
        self.last_term
    }

    /// The first index that can be read: older entries are part of the snapshot.
    pub fn first_index(&self) -> Index {
        self.first
    }

    /// The highest term that this node has seen.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Appends `payloads` under the current term, in one transaction: all of them or none. Returns the
    /// index of the last once all are on the disk.
    ///
    /// # Errors
    /// After any error but [`LogError::TooLarge`] the entries' fate is unknown until the log is opened again.
    pub fn append(&mut self, payloads: &[impl AsRef<[u8]>]) -> Result<Index, LogError> {
        let too_large =
            payloads.iter().map(|payload| payload.as_ref().len()).find(|len| *len > MAX_ENTRY_BYTES);
        if let Some(bytes) = too_large {
            return Err(LogError::TooLarge { bytes });
        }
        let (term, first) = (self.term, self.last + 1);
        self.write("append to the log", |write| {
            let mut entries = write.open_table(ENTRIES)?;
            for (index, payload) in (first..).zip(payloads) {
                entries.insert(index, encode(index, term, payload.as_ref()).as_slice())?;
            }
            Ok(())
        })?;
        if !payloads.is_empty() {
            self.last += payloads.len() as u64;
            self.last_term = term;
        }
        Ok(self.last)
    }

    /// Drops every entry from `index` on, which a new leader does not have.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn truncate(&mut self, index: Index) -> Result<(), LogError> {
        assert!(index >= self.first, "what a snapshot stands for is committed and never taken back");
        self.write("shorten the log", |write| {
            write.open_table(ENTRIES)?.retain_in(index.., |_, _| false)?;
            Ok(())
        })?;
        self.last = self.last.min(index - 1);
        self.last_term = match self.read(self.last, 1)?.pop() {
            Some(entry) => entry.term,
            None => self.snapshot()?.map_or(0, |snapshot| snapshot.term),
        };
        Ok(())
    }

    /// The entries from `from` on, at most `limit` of them.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when an entry is missing or not what was written.
    pub fn read(&self, from: Index, limit: usize) -> Result<Vec<Entry>, LogError> {
        let action = "read the log";
        let fail = |error: redb::Error| LogError::new(action, error);
        let read = self.database.begin_read().map_err(|error| fail(error.into()))?;
        let table = read.open_table(ENTRIES).map_err(|error| fail(error.into()))?;
        let range = table.range(from.max(self.first)..).map_err(|error| fail(error.into()))?;
        let mut entries = Vec::new();
        for (expected, item) in (from.max(self.first)..).zip(range.take(limit)) {
            let (index, stored) = item.map_err(|error| fail(error.into()))?;
            if index.value() != expected {
                return Err(LogError::Damaged { action, detail: format!("entry {expected} is missing") });
            }
            entries.push(decode(action, expected, stored.value())?);
        }
        Ok(entries)
    }

    /// Replaces the snapshot and drops every entry that it stands for, in one transaction. A snapshot from
    /// elsewhere that is ahead of the log replaces all of it.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn compact(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        self.write("write a snapshot to the log", |write| {
            let stored = encode(snapshot.index, snapshot.term, &snapshot.payload);
            write.open_table(SNAPSHOT)?.insert(0, stored.as_slice())?;
            write.open_table(NUMBERS)?.insert(NUMBER_SNAPSHOT_INDEX, snapshot.index)?;
            write.open_table(ENTRIES)?.retain_in(..=snapshot.index, |_, _| false)?;
            Ok(())
        })?;
        self.first = snapshot.index + 1;
        if snapshot.index >= self.last {
            self.last = snapshot.index;
            self.last_term = snapshot.term;
        }
        Ok(())
    }

    /// The snapshot, if one was ever written.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when it is not what was written.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, LogError> {
        let action = "read the log's snapshot";
        let fail = |error: redb::Error| LogError::new(action, error);
        let read = self.database.begin_read().map_err(|error| fail(error.into()))?;
        let numbers = read.open_table(NUMBERS).map_err(|error| fail(error.into()))?;
        let Some(index) = numbers.get(NUMBER_SNAPSHOT_INDEX).map_err(|error| fail(error.into()))? else {
            return Ok(None);
        };
        let table = read.open_table(SNAPSHOT).map_err(|error| fail(error.into()))?;
        let Some(stored) = table.get(0).map_err(|error| fail(error.into()))? else {
            return Err(LogError::Damaged { action, detail: "it is missing".to_owned() });
        };
        let Entry { index, term, payload } = decode(action, index.value(), stored.value())?;
        Ok(Some(Snapshot { index, term, payload }))
    }

    /// Enters a higher term, with the driver's vote in it.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn save_vote(&mut self, term: Term, vote: &[u8]) -> Result<(), LogError> {
        assert!(term >= self.term, "terms only rise");
        self.write("record a vote in the log", |write| {
            write.open_table(NUMBERS)?.insert(NUMBER_TERM, term)?;
            write.open_table(FACTS)?.insert(FACT_VOTE, vote)?;
            Ok(())
        })?;
        self.term = term;
        Ok(())
    }

    /// The last vote given to [`Log::save_vote`].
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn vote(&self) -> Result<Option<Vec<u8>>, LogError> {
        let fail = |error: redb::Error| LogError::new("read the vote from the log", error);
        let read = self.database.begin_read().map_err(|error| fail(error.into()))?;
        let facts = read.open_table(FACTS).map_err(|error| fail(error.into()))?;
        let vote = facts.get(FACT_VOTE).map_err(|error| fail(error.into()))?;
        Ok(vote.map(|vote| vote.value().to_vec()))
    }

    fn write(
        &mut self,
        action: &'static str,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Closed { action });
        }
        let attempt = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            change(&write)?;
            Ok(write.commit()?)
        };
        attempt().map_err(|error| {
            // The write may or may not have reached the disk: a second one on top would be built on a guess.
            self.failed = true;
            LogError::new(action, error)
        })
    }
}

/// Term (8 bytes), checksum over index, term and payload (4 bytes), payload. All little-endian. redb checks
/// its pages when it repairs a file, not when it reads one.
fn encode(index: Index, term: Term, payload: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(12 + payload.len());
    stored.extend_from_slice(&term.to_le_bytes());
    stored.extend_from_slice(&check(index, term, payload).to_le_bytes());
    stored.extend_from_slice(payload);
    stored
}

fn decode(action: &'static str, index: Index, stored: &[u8]) -> Result<Entry, LogError> {
    let parts = stored.split_first_chunk::<8>().and_then(|(term, rest)| {
        let (check, payload) = rest.split_first_chunk::<4>()?;
        Some((u64::from_le_bytes(*term), u32::from_le_bytes(*check), payload))
    });
    match parts {
        Some((term, expected, payload)) if check(index, term, payload) == expected => {
            Ok(Entry { index, term, payload: payload.to_vec() })
        }
        Some(_) | None => {
            Err(LogError::Damaged { action, detail: format!("entry {index} fails its checksum") })
        }
    }
}

fn check(index: Index, term: Term, payload: &[u8]) -> u32 {
    checksum::crc32c(&[&index.to_le_bytes(), &term.to_le_bytes(), payload])
}
