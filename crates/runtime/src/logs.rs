//! Reading json-file logs: tail, since, until, follow. Memory stays flat however long the file is.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use skep_types::Time;

/// Which standard stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it came from.
    pub stream: Stream,
    /// When it was written.
    pub time: Time,
    /// Its bytes with the newline; a part of a line longer than 16 KiB has none.
    pub bytes: Vec<u8>,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Only lines at or after this time.
    pub since: Option<Time>,
    /// Only lines at or before this time.
    pub until: Option<Time>,
    /// Only the last so many lines of those that are there at first; `None` is all.
    pub tail: Option<u64>,
}

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the log {path}")]
pub struct LogError {
    path: std::path::PathBuf,
    #[source]
    source: std::io::Error,
}

/// Completes when the container whose log is followed has ended.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads a log.
#[derive(Debug)]
pub struct LogReader {}

impl LogReader {
    /// Opens the log at `path`; one that does not exist reads as empty. With `follow`, reading goes on until that future
    /// completes and every line is read; without, it ends at the end of the file.
    pub fn open(path: &Path, query: LogQuery, follow: Option<Ended>) -> Result<LogReader, LogError> {
        let _ = (path, query, follow);
        todo!()
    }

    /// The next line that was asked for; `None` at the end. Torn and foreign lines are passed over.
    pub async fn next(&mut self) -> Result<Option<LogLine>, LogError> {
        todo!()
    }
}
