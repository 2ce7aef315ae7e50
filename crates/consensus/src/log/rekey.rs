//! A log under another key.

use std::path::Path;

use super::{FILE, Log, LogError, LogKey};

/// The new log while it is written; what a crash leaves of it is dropped by the next try.
const NEXT_FILE: &str = "log.redb.next";
/// Entries copied in one transaction.
const BATCH: usize = 256;

/// Writes the log in `dir` anew under `new`, and puts it in the old one's place. All or nothing.
pub(crate) fn rekey(dir: &Path, old: &LogKey, new: &LogKey) -> Result<(), LogError> {
    let action = "encrypt the log under another key";
    let io = |error: std::io::Error| LogError::io(action, error);
    match std::fs::remove_file(dir.join(NEXT_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    let from = Log::open(dir, old)?;
    // It counts on from there, and leaves the mark alone: until it is in the old one's place that stands for this one.
    let mut to =
        Log { writes: from.writes, ..Log::with_database(Log::open_file(dir, NEXT_FILE)?, new, None)? };
    if let Some(vote) = from.vote()? {
        to.save_vote(from.term(), &vote)?;
    }
    to.begin_after(from.first_index() - 1, from.purged_term())?;
    loop {
        let entries = from.read(to.last_index() + 1, BATCH)?;
        if entries.is_empty() {
            break;
        }
        to.extend(&entries)?;
    }
    if let Some(snapshot) = from.snapshot()? {
        to.save_snapshot(&snapshot)?;
    }
    drop(to);
    std::fs::rename(dir.join(NEXT_FILE), dir.join(FILE)).map_err(io)?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}
