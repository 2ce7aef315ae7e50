//! `docker logs`.

use std::pin::Pin;

use skep_runtime::logs::{self, LogReader};
use skep_types::Time;
use skep_types::container::LogDriver;

use super::registry::Container;
use crate::options::LogQuery;
use crate::view::Status;
use crate::{Engine, Error, ErrorKind, Result, blocking};

/// Which stream of a container a log line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a container's log, or a part of a very long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its stream.
    pub source: LogSource,
    /// When it was written.
    pub time: Time,
    /// Its bytes, line end included if it had one.
    pub bytes: Vec<u8>,
}

/// Log lines, oldest first.
#[derive(Debug)]
pub struct LogStream {
    reader: LogReader,
}

impl LogStream {
    /// The next line; `None` at the end, which a following stream reaches when the container ends.
    ///
    /// # Errors
    /// Internal, when the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogLine>> {
        let line = self.reader.next().await.map_err(|error| Error::failed("cannot read the log", &error))?;
        Ok(line.map(|logs::LogLine { stream, time, bytes }| {
            let source = match stream {
                logs::Stream::Stdout => LogSource::Stdout,
                logs::Stream::Stderr => LogSource::Stderr,
            };
            LogLine { source, time, bytes }
        }))
    }
}

impl Engine {
    /// A container's log, and whether it has a terminal.
    ///
    /// # Errors
    /// 404; 501, when no log is kept; internal, when it cannot be read.
    pub async fn logs(&self, name: &str, query: LogQuery) -> Result<(bool, LogStream)> {
        let container = self.find(name)?;
        if container.record.config.host.log == LogDriver::None {
            // In moby's words.
            let message = "configured logging driver does not support reading";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let follow = query.follow.then(|| ended(&container));
        let path = container.home.log(container.id());
        let LogQuery { stdout, stderr, since, until, tail, follow: _ } = query;
        let query = logs::LogQuery { stdout, stderr, since, until, tail };
        let reader = blocking(move || LogReader::open(&path, query, follow)).await?;
        let reader = reader.map_err(|error| Error::failed("cannot open the log", &error))?;
        Ok((container.record.config.tty, LogStream { reader }))
    }
}

/// Completes when a container does not run.
fn ended(container: &Container) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let mut state = container.state.subscribe();
    Box::pin(async move {
        // An error says that the container is gone: it does not run.
        let _ = state.wait_for(|state| state.status != Status::Running).await;
    })
}
