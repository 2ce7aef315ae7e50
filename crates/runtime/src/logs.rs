//! Reading json-file logs: tail, since, until, follow. Memory stays flat however long the file is.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustix::fs::inotify;
use serde::Deserialize;
use skep_types::Time;
use tokio::io::unix::AsyncFd;

/// Which standard stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As logs and frames name it.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
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
    /// Only lines at or before this time: reading ends at the first later one.
    pub until: Option<Time>,
    /// Only the last so many lines of those that are there at first; `None` is all.
    pub tail: Option<u64>,
}

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the log {path}")]
pub struct LogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Completes when the container whose log is followed has ended (or when following should end for another reason).
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bytes that are read from a file at once.
const BLOCK: usize = 64 << 10;

/// The longest line of a file. The shim's stay far below; a longer one is foreign and passed over.
const LINE_LIMIT: usize = 1 << 20;

/// Between two looks at a log that cannot be watched.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Reads a log.
pub struct LogReader {
    path: PathBuf,
    /// `None` for a log that does not exist.
    file: Option<File>,
    query: LogQuery,
    /// Where the next block is read.
    offset: u64,
    /// What was read and not given out: `taken` bytes of it are done with.
    buffer: Vec<u8>,
    taken: usize,
    follow: Option<Follow>,
}

struct Follow {
    /// Tells that the file has changed. `None` where the kernel has no more such watches for this user (128, by
    /// default): then the file is looked at every [`LOOK_PAUSE`].
    changes: Option<AsyncFd<OwnedFd>>,
    /// `None` once it has completed.
    ended: Option<Ended>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// A line of the file.
#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
}

impl Entry {
    fn into_line(self) -> Option<LogLine> {
        let stream = match self.stream.as_str() {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return None,
        };
        Some(LogLine { stream, time: self.time.parse().ok()?, bytes: self.log.into_bytes() })
    }
}

impl LogReader {
    /// Opens the log at `path`; one that does not exist reads as empty. With `follow`, reading goes on until that future
    /// completes and every line is read; without, it ends at the end of the file.
    ///
    /// With `follow` this must be called in a tokio runtime.
    pub fn open(path: &Path, query: LogQuery, follow: Option<Ended>) -> Result<LogReader, LogError> {
        LogReader::try_open(path, query, follow).map_err(|source| LogError { path: path.to_owned(), source })
    }

    fn try_open(path: &Path, query: LogQuery, follow: Option<Ended>) -> io::Result<LogReader> {
        let follow = match follow {
            None => None,
            Some(ended) => {
                // There must be something to watch; the shim appends to what it finds.
                use std::os::unix::fs::OpenOptionsExt;
                std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
                Some(Follow { changes: watch(path).ok(), ended: Some(ended) })
            }
        };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file?),
        };
        let offset = match (&file, query.tail) {
            (Some(file), Some(lines)) => tail(file, lines)?,
            _ => 0,
        };
        Ok(LogReader { path: path.to_owned(), file, query, offset, buffer: Vec::new(), taken: 0, follow })
    }

    /// The next line that was asked for; `None` at the end. Torn and foreign lines are passed over.
    ///
    /// Reads from the file block, shortly: a log that is read was mostly just written.
    pub async fn next(&mut self) -> Result<Option<LogLine>, LogError> {
        self.try_next().await.map_err(|source| LogError { path: self.path.clone(), source })
    }

    async fn try_next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            while let Some(line) = self.take_line() {
                if self.query.until.is_some_and(|until| line.time > until) {
                    return Ok(None);
                }
                let wanted = match line.stream {
                    Stream::Stdout => self.query.stdout,
                    Stream::Stderr => self.query.stderr,
                };
                if wanted && self.query.since.is_none_or(|since| line.time >= since) {
                    return Ok(Some(line));
                }
            }
            if self.fill()? {
                continue;
            }
            match &mut self.follow {
                Some(follow) if follow.ended.is_some() => follow.wait().await?,
                _ => return Ok(None),
            }
        }
    }

    /// The next whole line in the buffer that is one of a log.
    fn take_line(&mut self) -> Option<LogLine> {
        loop {
            let rest = &self.buffer[self.taken..];
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                if rest.len() > LINE_LIMIT {
                    self.taken = self.buffer.len();
                }
                return None;
            };
            let entry = serde_json::from_slice::<Entry>(&rest[..length]);
            self.taken += length + 1;
            if let Some(line) = entry.ok().and_then(Entry::into_line) {
                return Some(line);
            }
        }
    }

    /// Reads a block. False at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + BLOCK, 0);
        let read = file.read_at(&mut self.buffer[old..], self.offset)?;
        self.buffer.truncate(old + read);
        self.offset += read as u64;
        if read == 0 {
            // A shim takes back what a full disk let in of a line.
            let length = file.metadata()?.len();
            if length < self.offset {
                self.offset = length;
                self.buffer.clear();
            }
        }
        Ok(read > 0)
    }
}

impl Follow {
    /// Waits until the file may have grown or following should end.
    async fn wait(&mut self) -> io::Result<()> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        tokio::select! {
            () = ended => self.ended = None,
            changed = changed(self.changes.as_ref()) => changed?,
        }
        Ok(())
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&changes, path, inotify::WatchFlags::MODIFY)?;
    crate::sys::watch(changes)
}

/// Waits until a watched file has changed, or one that is not watched may have.
async fn changed(changes: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let Some(changes) = changes else {
        tokio::time::sleep(LOOK_PAUSE).await;
        return Ok(());
    };
    let mut events = [0u8; 1024];
    let mut ready = changes.readable().await?;
    // What changed is known; the events only wake.
    let _ = ready.try_io(|changes| Ok(rustix::io::read(changes.get_ref(), &mut events)?));
    Ok(())
}

/// Where the last `lines` whole lines of a file begin.
fn tail(file: &File, lines: u64) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline before those lines, counted from the one that ends the last.
            if newlines == lines {
                return Ok(start + index as u64 + 1);
            }
            newlines += 1;
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
