//! Reading the log, also while a write is under way, and the form of what is in it.

use std::sync::Arc;

use redb::{Database, ReadableDatabase};

use super::cipher::Cipher;
use super::{
    ENTRIES, Entry, FACT_KEY, FACTS, FORMAT, Index, LogError, NUMBER_FORMAT, NUMBER_PURGED_INDEX,
    NUMBER_SNAPSHOT_INDEX, NUMBERS, SNAPSHOT, Snapshot, Term,
};

/// Reads what is on the disk, also while a write is under way.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(super) database: Arc<Database>,
    pub(super) cipher: Arc<Cipher>,
}

impl Reader {
    /// Makes the tables of a new log.
    pub(super) fn prepare(&self) -> Result<(), redb::Error> {
        match self.database.begin_read()?.open_table(NUMBERS) {
            Ok(_) => return Ok(()),
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let write = self.database.begin_write()?;
        write.open_table(ENTRIES)?;
        write.open_table(SNAPSHOT)?;
        let sealed = self.cipher.seal(FACT_KEY.as_bytes(), &[]);
        write.open_table(FACTS)?.insert(FACT_KEY, sealed.as_slice())?;
        write.open_table(NUMBERS)?.insert(NUMBER_FORMAT, FORMAT)?;
        write.commit()?;
        Ok(())
    }

    /// The entries from `from` on, at most `limit` of them.
    pub(crate) fn read(&self, from: Index, limit: usize) -> Result<Vec<Entry>, LogError> {
        let action = "read the log";
        let fail = |error: redb::Error| LogError::new(action, error);
        let read = self.database.begin_read().map_err(|error| fail(error.into()))?;
        let table = read.open_table(ENTRIES).map_err(|error| fail(error.into()))?;
        let range = table.range(from..).map_err(|error| fail(error.into()))?;
        let mut entries = Vec::new();
        for (expected, item) in (from..).zip(range.take(limit)) {
            let (index, stored) = item.map_err(|error| fail(error.into()))?;
            if index.value() != expected {
                let numbers = read.open_table(NUMBERS).map_err(|error| fail(error.into()))?;
                let purged = numbers.get(NUMBER_PURGED_INDEX).map_err(|error| fail(error.into()))?;
                return Err(match purged.is_some_and(|purged| expected <= purged.value()) {
                    true => LogError::Purged { index: expected },
                    false => LogError::Damaged { action, detail: format!("entry {expected} is missing") },
                });
            }
            entries.push(self.decode(action, "entry", expected, stored.value())?);
        }
        Ok(entries)
    }

    pub(crate) fn snapshot(&self) -> Result<Option<Snapshot>, LogError> {
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
        let Entry { index, term, payload } =
            self.decode(action, "snapshot", index.value(), stored.value())?;
        Ok(Some(Snapshot { index, term, payload }))
    }

    #[cfg(test)]
    pub(super) fn stored(&self, index: Index) -> Vec<u8> {
        let read = self.database.begin_read().expect("a test's disk");
        let table = read.open_table(ENTRIES).expect("a log has entries");
        table.get(index).expect("a test's disk").expect("it was appended").value().to_vec()
    }

    /// Term (8 bytes, little-endian), then the payload sealed for its place. The seal is also the checksum: redb
    /// checks its pages when it repairs a file, not when it reads one.
    pub(super) fn encode(&self, kind: &str, index: Index, term: Term, payload: &[u8]) -> Vec<u8> {
        let mut stored = term.to_le_bytes().to_vec();
        stored.extend_from_slice(&self.cipher.seal(&place(kind, index, term), payload));
        stored
    }

    pub(super) fn decode(
        &self,
        action: &'static str,
        kind: &str,
        index: Index,
        stored: &[u8],
    ) -> Result<Entry, LogError> {
        let opened = stored.split_first_chunk::<8>().and_then(|(term, sealed)| {
            let term = u64::from_le_bytes(*term);
            Some(Entry { index, term, payload: self.cipher.open(&place(kind, index, term), sealed)? })
        });
        let damaged =
            || LogError::Damaged { action, detail: format!("{kind} {index} is not what was written") };
        opened.ok_or_else(damaged)
    }
}

/// What a payload is bound to: it opens nowhere else.
fn place(kind: &str, index: Index, term: Term) -> Vec<u8> {
    [kind.as_bytes(), &index.to_le_bytes(), &term.to_le_bytes()].concat()
}
