//! The durable log: one redb file, one transaction and one sync a batch.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

mod cipher;
mod error;
mod guard;
mod mark;
mod reader;
mod rekey;
#[cfg(test)]
pub(crate) mod tests;

use cipher::Cipher;
pub use cipher::LogKey;
pub use error::LogError;
pub(crate) use guard::guarded;
pub use guard::is_guarded;
use mark::Mark;
pub(crate) use reader::Reader;
pub(crate) use rekey::rekey;

/// Position of an entry in the log; the first is 1, 0 is before all.
pub type Index = u64;
/// A period with at most one leader.
pub type Term = u64;

/// The largest payload of one entry, in bytes.
pub const MAX_ENTRY_BYTES: usize = 64 << 20;

/// The file's name in the log's folder.
pub(crate) const FILE: &str = "log.redb";
/// Memory that redb keeps of the file, in bytes: the log is written once and read at start.
const CACHE_BYTES: usize = 1 << 20;
/// Layout of the tables, raised by what an older program could not read.
const FORMAT: u64 = 2;
/// What is tried while a log is opened.
const OPEN: &str = "open the log";

/// Entries by index: term, sealed payload; see [`encode`].
const ENTRIES: TableDefinition<Index, &[u8]> = TableDefinition::new("entries");
/// The snapshot under key 0, in the form of an entry whose index is in [`NUMBERS`].
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const NUMBER_FORMAT: &str = "format";
const NUMBER_TERM: &str = "term";
const NUMBER_SNAPSHOT_INDEX: &str = "snapshot_index";
/// The last entry that was purged, 0 when none was.
const NUMBER_PURGED_INDEX: &str = "purged_index";
const NUMBER_PURGED_TERM: &str = "purged_term";
/// Transactions so far; see [`Mark`].
const NUMBER_WRITES: &str = "writes";
/// Entries read at once when all are checked.
const CHECK_BATCH: usize = 64;
/// Facts of the driver above that must survive: its vote.
const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
const FACT_VOTE: &str = "vote";
/// Something sealed under the log's key, to tell a wrong key from a damaged entry.
const FACT_KEY: &str = "key";

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

/// The durable log of one node. Every method that writes returns after the disk has confirmed.
#[derive(Debug)]
pub struct Log {
    reader: Reader,
    /// The first index that is kept.
    first: Index,
    /// Term of the entry before [`Log::first`].
    purged_term: Term,
    /// The last index, one below `first` when there is no entry.
    last: Index,
    last_term: Term,
    term: Term,
    snapshot_index: Index,
    /// Transactions so far.
    writes: u64,
    mark: Option<Mark>,
    failed: bool,
}

impl Log {
    #[cfg(test)]
    pub(crate) fn open_on(backend: impl redb::StorageBackend) -> Result<Log, LogError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Log::with_database(database.map_err(|error| LogError::new("open the log", error))?, &tests::KEY, None)
    }

    /// Opens the log in the folder `dir`, or makes an empty one there. Repairs what a crash left, and reads all of
    /// it: damage is told now and not when somebody needs the entry.
    ///
    /// # Errors
    /// See [`LogError`]; a damaged log is refused, never emptied.
    pub fn open(dir: &Path, key: &LogKey) -> Result<Log, LogError> {
        guarded(OPEN, || {
            let database = Log::open_file(dir, FILE)?;
            let mark = Mark::open(dir).map_err(|error| LogError::io(OPEN, error))?;
            let log = Log::with_database(database, key, Some(mark))?;
            log.check()?;
            Ok(log)
        })
    }

    fn open_file(dir: &Path, name: &str) -> Result<Database, LogError> {
        let io = |error: io::Error| LogError::io(OPEN, error);
        std::fs::create_dir_all(dir).map_err(io)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(dir.join(name))
            .map_err(|error| LogError::new(OPEN, error))?;
        // The file's name must survive a power failure as its content does.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(database)
    }

    /// Reads everything.
    fn check(&self) -> Result<(), LogError> {
        let mut next = self.first;
        while next <= self.last {
            let read = self.read(next, CHECK_BATCH)?;
            if read.is_empty() {
                let detail = format!("entry {next} is missing");
                return Err(LogError::Damaged { action: OPEN, detail });
            }
            next += read.len() as u64;
        }
        self.snapshot().map(|_| ())
    }

    fn with_database(database: Database, key: &LogKey, mark: Option<Mark>) -> Result<Log, LogError> {
        let action = OPEN;
        let fail = |error: redb::Error| LogError::new(action, error);
        let reader = Reader { database: Arc::new(database), cipher: Arc::new(Cipher::new(key)) };
        reader.prepare().map_err(fail)?;
        let read = reader.database.begin_read().map_err(|error| fail(error.into()))?;
        let numbers = read.open_table(NUMBERS).map_err(|error| fail(error.into()))?;
        let number = |key| -> Result<u64, LogError> {
            Ok(numbers.get(key).map_err(|error| fail(error.into()))?.map_or(0, |value| value.value()))
        };
        match number(NUMBER_FORMAT)? {
            FORMAT => {}
            found => return Err(LogError::Format { found }),
        }
        let facts = read.open_table(FACTS).map_err(|error| fail(error.into()))?;
        let sealed = facts.get(FACT_KEY).map_err(|error| fail(error.into()))?;
        if sealed.is_none_or(|sealed| reader.cipher.open(FACT_KEY.as_bytes(), sealed.value()).is_none()) {
            return Err(LogError::Key);
        }
        let (purged, purged_term) = (number(NUMBER_PURGED_INDEX)?, number(NUMBER_PURGED_TERM)?);
        let mut log = Log {
            first: purged + 1,
            purged_term,
            last: purged,
            last_term: purged_term,
            term: number(NUMBER_TERM)?,
            snapshot_index: number(NUMBER_SNAPSHOT_INDEX)?,
            writes: number(NUMBER_WRITES)?,
            mark,
            failed: false,
            reader: reader.clone(),
        };
        let entries = read.open_table(ENTRIES).map_err(|error| fail(error.into()))?;
        if let Some((index, stored)) = entries.last().map_err(|error| fail(error.into()))? {
            log.last = index.value();
            log.last_term = reader.decode(action, "entry", index.value(), stored.value())?.term;
        }
        let confirmed = log.mark.as_ref().map_or(Ok(0), Mark::read);
        let confirmed = confirmed.map_err(|error| LogError::io(action, error))?;
        if log.writes < confirmed {
            let detail = format!("it holds {} writes of {confirmed} that were confirmed", log.writes);
            return Err(LogError::Damaged { action, detail });
        }
        Ok(log)
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

    /// The term of the entry before the first one that can be read, 0 when that is the first of all.
    pub fn purged_term(&self) -> Term {
        self.purged_term
    }

    /// The last entry that the snapshot stands for, 0 when there is none.
    pub fn snapshot_index(&self) -> Index {
        self.snapshot_index
    }

    pub(crate) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Appends `payloads` under the current term, in one transaction: all of them or none. Returns the
    /// index of the last once all are on the disk.
    ///
    /// # Errors
    /// After any error but [`LogError::TooLarge`] the entries' fate is unknown until the log is opened again.
    pub fn append(&mut self, payloads: &[impl AsRef<[u8]>]) -> Result<Index, LogError> {
        let term = self.term;
        let entries: Vec<Entry> = (self.last + 1..)
            .zip(payloads)
            .map(|(index, payload)| Entry { index, term, payload: payload.as_ref().to_vec() })
            .collect();
        self.extend(&entries)
    }

    /// Appends entries that go on where the log ends, in one transaction: all of them or none. Returns the
    /// index of the last once all are on the disk.
    ///
    /// # Errors
    /// After any error but [`LogError::TooLarge`] the entries' fate is unknown until the log is opened again.
    pub fn extend(&mut self, entries: &[Entry]) -> Result<Index, LogError> {
        for (expected, entry) in (self.last + 1..).zip(entries) {
            assert_eq!(entry.index, expected, "a log has no holes");
            if entry.payload.len() > MAX_ENTRY_BYTES {
                return Err(LogError::TooLarge { bytes: entry.payload.len() });
            }
        }
        let Some(last) = entries.last() else { return Ok(self.last) };
        let reader = self.reader.clone();
        self.write("append to the log", |write| {
            let mut table = write.open_table(ENTRIES)?;
            for Entry { index, term, payload } in entries {
                table.insert(index, reader.encode("entry", *index, *term, payload).as_slice())?;
            }
            Ok(())
        })?;
        (self.last, self.last_term) = (last.index, last.term);
        Ok(self.last)
    }

    /// Drops every entry from `index` on, which a new leader does not have.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn truncate(&mut self, index: Index) -> Result<(), LogError> {
        assert!(index >= self.first, "what was purged is committed and never taken back");
        self.write("shorten the log", |write| {
            write.open_table(ENTRIES)?.retain_in(index.., |_, _| false)?;
            Ok(())
        })?;
        self.last = self.last.min(index - 1);
        self.last_term = match self.read(self.last, 1)?.pop() {
            Some(entry) => entry.term,
            None => self.purged_term,
        };
        Ok(())
    }

    /// The entries from `from` on, at most `limit` of them.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when an entry is missing or not what was written.
    pub fn read(&self, from: Index, limit: usize) -> Result<Vec<Entry>, LogError> {
        guarded("read the log", || self.reader.read(from.max(self.first), limit))
    }

    /// Replaces the snapshot and drops every entry that it stands for, in one transaction. A snapshot from
    /// elsewhere that is ahead of the log replaces all of it.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn compact(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        self.replace_snapshot(snapshot, true)?;
        (self.first, self.purged_term) = (snapshot.index + 1, snapshot.term);
        if snapshot.index >= self.last {
            (self.last, self.last_term) = (snapshot.index, snapshot.term);
        }
        Ok(())
    }

    /// Replaces the snapshot, and keeps the entries for members that lag a little.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        assert!(snapshot.index <= self.last, "it stands for entries of this log");
        assert!(snapshot.index > self.snapshot_index || self.snapshot_index == 0, "snapshots only move on");
        self.replace_snapshot(snapshot, false)
    }

    fn replace_snapshot(&mut self, snapshot: &Snapshot, purge: bool) -> Result<(), LogError> {
        let Snapshot { index, term, payload } = snapshot;
        let reader = self.reader.clone();
        self.write("write a snapshot to the log", |write| {
            let stored = reader.encode("snapshot", *index, *term, payload);
            write.open_table(SNAPSHOT)?.insert(0, stored.as_slice())?;
            write.open_table(NUMBERS)?.insert(NUMBER_SNAPSHOT_INDEX, index)?;
            if purge { drop_until(write, *index, *term) } else { Ok(()) }
        })?;
        self.snapshot_index = *index;
        Ok(())
    }

    /// Drops the entries up to `index`, for which the snapshot stands.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn purge(&mut self, index: Index) -> Result<(), LogError> {
        assert!(index <= self.snapshot_index, "only what is in a snapshot may go");
        let Some(term) = self.read(index, 1)?.pop().filter(|entry| entry.index == index) else {
            return Ok(());
        };
        let term = term.term;
        self.write("drop old entries of the log", |write| drop_until(write, index, term))?;
        (self.first, self.purged_term) = (index + 1, term);
        Ok(())
    }

    /// Lets an empty log go on behind `index`.
    fn begin_after(&mut self, index: Index, term: Term) -> Result<(), LogError> {
        self.write("begin a log", |write| drop_until(write, index, term))?;
        (self.first, self.purged_term, self.last, self.last_term) = (index + 1, term, index, term);
        Ok(())
    }

    /// The snapshot, if one was ever written.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when it is not what was written.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, LogError> {
        guarded("read the log's snapshot", || self.reader.snapshot())
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
        let read = self.reader.database.begin_read().map_err(|error| fail(error.into()))?;
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
        let writes = self.writes + 1;
        let attempt = || -> Result<(), redb::Error> {
            let write = self.reader.database.begin_write()?;
            change(&write)?;
            write.open_table(NUMBERS)?.insert(NUMBER_WRITES, writes)?;
            write.commit()?;
            match &self.mark {
                Some(mark) => Ok(mark.set(writes)?),
                None => Ok(()),
            }
        };
        match guarded(action, || attempt().map_err(|error| LogError::new(action, error))) {
            Ok(()) => self.writes = writes,
            Err(error) => {
                // The write may or may not have reached the disk: a second one on top would be built on a guess.
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

fn drop_until(write: &redb::WriteTransaction, index: Index, term: Term) -> Result<(), redb::Error> {
    let mut numbers = write.open_table(NUMBERS)?;
    numbers.insert(NUMBER_PURGED_INDEX, index)?;
    numbers.insert(NUMBER_PURGED_TERM, term)?;
    write.open_table(ENTRIES)?.retain_in(..=index, |_, _| false)?;
    Ok(())
}
