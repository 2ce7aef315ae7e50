//! `docker attach`, and the size of terminals.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, PoisonError};

use skep_runtime::{Attach, Attached, RuntimeError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::logs::{LogLine, LogSource, LogStream};
use super::registry::Container;
use crate::options::{AttachOptions, LogQuery};
use crate::view::Status;
use crate::{Engine, Error, Result};

/// How many clients may wait for the start of one container.
const WAITING_LIMIT: usize = 64;

impl Engine {
    /// Attaches to a container's streams, and tells whether it has a terminal. Before its start the stream is
    /// held and sees the first byte. Bytes out are raw with a terminal, else Docker's frames; bytes in are
    /// standard input.
    ///
    /// # Errors
    /// 404; 409 when it is being removed.
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<(bool, UnixStream)> {
        let container = self.find(name)?;
        let tty = container.record.config.tty;
        let stream = if options.logs {
            self.attach_with_logs(&container, options).await?
        } else if options.stream {
            self.attach_live(&container, options).await?
        } else {
            // Nothing was asked for: a stream that ends at once.
            pair()?.0
        };
        self.container_event(&container, "attach");
        Ok((tty, stream))
    }

    async fn attach_live(&self, container: &Container, options: AttachOptions) -> Result<UnixStream> {
        let AttachOptions { stdin, stdout, stderr, logs: _, stream: _ } = options;
        let streams = Attach { stdin: stdin && container.record.config.open_stdin, stdout, stderr };
        let _gate = container.gate.lock().await;
        match container.status() {
            Status::Running => match self.shared.runtime.attach(container.id(), streams).await {
                Ok(stream) => return Ok(stream),
                // It ended a moment ago: its output was delivered, the stream is at its end.
                Err(RuntimeError::NotRunning(_)) => return Ok(pair()?.0),
                Err(error) => return Err(Error::failed("cannot attach", &error)),
            },
            Status::Created | Status::Exited => {}
            Status::Removing | Status::Dead => {
                return Err(Error::conflict("container is marked for removal and cannot be attached to"));
            }
        }
        let mut waiting = container.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|attached| !has_left(attached));
        if waiting.len() >= WAITING_LIMIT {
            return Err(Error::conflict(format!(
                "{WAITING_LIMIT} clients wait for the container's start already"
            )));
        }
        let (ours, theirs) = pair()?;
        waiting.push(Attached { socket: theirs.into(), streams });
        Ok(ours)
    }

    /// What was logged so far, then, if asked for, what comes.
    async fn attach_with_logs(
        &self,
        container: &Arc<Container>,
        options: AttachOptions,
    ) -> Result<UnixStream> {
        let query = LogQuery {
            stdout: options.stdout,
            stderr: options.stderr,
            since: None,
            until: None,
            tail: None,
            follow: false,
        };
        let (tty, log) = self.logs(&container.id().to_string(), query).await?;
        let live = if options.stream { Some(self.attach_live(container, options).await?) } else { None };
        let (ours, theirs) = pair()?;
        let theirs = UnixStream::from_std(theirs).map_err(|error| Error::failed("cannot attach", &error))?;
        let closing = self.shared.tasks.closing();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                // A client that went away ends the copying; nobody is left to tell.
                _ = replay(theirs, log, live, tty) => {}
                () = closing => {}
            }
        });
        Ok(ours)
    }

    /// Gives a container's terminal a size.
    ///
    /// # Errors
    /// 409 when it does not run.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.find(name)?;
        let not_running = || Error::conflict(format!("container {} is not running", container.id()));
        if !container.is_running() {
            return Err(not_running());
        }
        match self.shared.runtime.resize(container.id(), None, rows, columns).await {
            Ok(()) => {}
            Err(RuntimeError::NotRunning(_)) => return Err(not_running()),
            Err(error) => return Err(Error::failed("cannot resize the terminal", &error)),
        }
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.container_event_with(&container, "resize", crate::events::attributes(size));
        Ok(())
    }
}

/// Whether a client that waits for a start has hung up.
fn has_left(attached: &Attached) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut watched = [PollFd::new(&attached.socket, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().contains(PollFlags::HUP)
}

/// Two connected sockets: one for the client's side, one to give away.
fn pair() -> Result<(UnixStream, StdStream)> {
    let make = || {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs))
    };
    make().map_err(|error: std::io::Error| Error::failed("cannot make a pair of sockets", &error))
}

async fn replay(
    mut client: UnixStream,
    mut log: LogStream,
    live: Option<UnixStream>,
    tty: bool,
) -> std::io::Result<()> {
    while let Some(line) = log.next().await.map_err(std::io::Error::other)? {
        client.write_all(&framed(line, tty)).await?;
    }
    if let Some(mut live) = live {
        tokio::io::copy_bidirectional(&mut client, &mut live).await?;
    }
    Ok(())
}

/// A line as the client reads it: raw from a terminal, else behind Docker's header of eight bytes.
fn framed(line: LogLine, tty: bool) -> Vec<u8> {
    if tty {
        return line.bytes;
    }
    let stream = match line.source {
        LogSource::Stdout => 1,
        LogSource::Stderr => 2,
    };
    let length = u32::try_from(line.bytes.len()).expect("a log line is far shorter than 4 GiB");
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend(length.to_be_bytes());
    frame.extend(line.bytes);
    frame
}
