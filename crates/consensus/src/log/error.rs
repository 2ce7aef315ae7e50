//! What can go wrong with the log.

use std::io;

use super::{FORMAT, Index, MAX_ENTRY_BYTES};

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
    /// An entry that a snapshot stands for by now.
    #[error("entry {index} is no longer in the log")]
    Purged {
        /// Its position.
        index: Index,
    },
    /// Another process has the log open.
    #[error("cannot {action}: another process has the log open")]
    InUse {
        /// What was tried.
        action: &'static str,
    },
    /// The log was written by another version of the program.
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
    /// Whether what is on the disk is not what was written there: trying again does not help.
    pub fn is_damage(&self) -> bool {
        matches!(self, LogError::Damaged { .. })
    }

    pub(super) fn io(action: &'static str, error: io::Error) -> LogError {
        LogError::new(action, redb::Error::Io(error))
    }

    pub(super) fn new(action: &'static str, error: impl Into<redb::Error>) -> LogError {
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
