//! The consensus of one node: what is on its disk is agreed.

use std::path::Path;

use crate::log::{Entry, Index, Log, LogError, LogKey, Snapshot, Term};

/// Entries read at a time while recovering: bounds memory to what the reader keeps.
const READ_BATCH: usize = 256;

/// What a node knew when it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The last snapshot.
    pub snapshot: Option<Snapshot>,
    /// All that was agreed on after it, in order.
    pub entries: Vec<Entry>,
}

/// A leader without followers.
#[derive(Debug)]
pub struct Solo {
    log: Log,
}

impl Solo {
    /// Opens the log in `dir`, begins a new term, and tells what was agreed on before.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn open(dir: &Path) -> Result<(Solo, Recovery), LogError> {
        let mut log = Log::open(dir, &LogKey::new([0; 32]))?;
        let snapshot = log.snapshot()?;
        let mut entries = Vec::new();
        loop {
            let from = log.first_index() + entries.len() as u64;
            let batch = log.read(from, READ_BATCH)?;
            if batch.is_empty() {
                break;
            }
            entries.extend(batch);
        }
        if log.first_index() + entries.len() as u64 != log.last_index() + 1 {
            let detail = "entries are missing at its end".to_owned();
            return Err(LogError::Damaged { action: "read the log", detail });
        }
        log.save_vote(log.term() + 1, b"self")?;
        Ok((Solo { log }, Recovery { snapshot, entries }))
    }

    /// The term that this node leads in.
    pub fn term(&self) -> Term {
        self.log.term()
    }

    /// The last entry that is agreed on.
    pub fn committed(&self) -> Index {
        self.log.last_index()
    }

    /// Agrees on `payload`. Returns its index once it is on the disk: it is never lost from then on.
    ///
    /// # Errors
    /// See [`Log::append`].
    pub fn propose(&mut self, payload: &[u8]) -> Result<Index, LogError> {
        self.log.append(&[payload])
    }

    /// Lets `payload` stand for everything that is agreed on up to `index`.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn compact(&mut self, index: Index, payload: Vec<u8>) -> Result<(), LogError> {
        assert!(index <= self.committed(), "a snapshot stands for what is agreed on");
        let term = match self.log.read(index, 1)?.pop() {
            Some(entry) if entry.index == index => entry.term,
            Some(_) | None => self.log.last_term(),
        };
        self.log.compact(&Snapshot { index, term, payload })
    }
}
