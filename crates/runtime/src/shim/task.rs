//! One process that the shim runs: the container's first, or an exec.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::streams::Streams;
use crate::container::{SYNC_FAILURE, SYNC_LIMIT, SYNC_TERMINAL, Stdio};
use crate::protocol::Failure;
use crate::runtime::{Attach, Started};
use crate::spec::Process;

/// Where a process is in its life.
#[derive(Debug)]
pub enum Stage {
    /// On its way to its program. `reply` is who asked for it; `sync` tells how it goes.
    Starting { sync: OwnedFd, reply: OwnedFd, streams: Attach },
    /// Its program runs.
    Running,
    /// It has ended.
    Ended,
}

/// A process.
#[derive(Debug)]
pub struct Task {
    /// Its name; `None` is the container's first.
    pub exec: Option<String>,
    pub started: Started,
    pub pidfd: OwnedFd,
    pub streams: Streams,
    pub stage: Stage,
    /// Connections to be told its end.
    pub waiters: Vec<OwnedFd>,
}

/// What came over the sync socket.
#[derive(Debug)]
pub enum Sync {
    /// Nothing that decides.
    Pending,
    /// The program runs.
    Running,
    /// It will not.
    Failed(Failure),
}

impl Task {
    /// Reads the sync socket.
    pub fn synchronise(&mut self) -> Sync {
        let Stage::Starting { sync, .. } = &self.stage else { return Sync::Pending };
        let mut message = vec![0; SYNC_LIMIT];
        let (length, mut descriptors) = match super::receive(sync.as_fd(), &mut message) {
            Ok(received) => received,
            Err(error) => return Sync::Failed(Failure::new("sync", error)),
        };
        match message[..length].split_first() {
            None => Sync::Running,
            Some((&SYNC_TERMINAL, _)) => {
                match descriptors.pop().map(|terminal| self.use_terminal(terminal)) {
                    Some(Ok(())) => Sync::Pending,
                    Some(Err(error)) => Sync::Failed(Failure::new("using the terminal", error)),
                    None => Sync::Failed(Failure { code: 128, message: "the terminal got lost".to_owned() }),
                }
            }
            Some((&SYNC_FAILURE, text)) => {
                let lost = || Failure { code: 128, message: String::from_utf8_lossy(text).into_owned() };
                Sync::Failed(serde_json::from_slice(text).unwrap_or_else(|_| lost()))
            }
            Some(_) => Sync::Failed(Failure { code: 128, message: "garbled sync message".to_owned() }),
        }
    }

    fn use_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&terminal, true)?;
        self.streams.stdin = Some(terminal.try_clone()?);
        self.streams.stdout = Some(terminal.try_clone()?);
        self.streams.terminal = Some(terminal);
        Ok(())
    }

    /// Its sync socket, while it starts.
    pub fn sync(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Starting { sync, .. } => Some(sync.as_fd()),
            Stage::Running | Stage::Ended => None,
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }
}

/// Both ends of a new process's streams, and of its sync socket: the shim's first.
pub struct Ends {
    pub streams: Streams,
    pub stdio: Stdio,
    pub shim_sync: OwnedFd,
    pub child_sync: OwnedFd,
}

/// Makes the ends for `process`.
pub fn ends(process: &Process) -> io::Result<Ends> {
    let (shim_sync, child_sync) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let mut streams = Streams::new(process.tty, process.stdin, process.stdin_once);
    let mut stdio = Stdio::default();
    if !process.tty {
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?) };
        if process.stdin {
            let (reader, writer) = pipe()?;
            rustix::io::ioctl_fionbio(&writer, true)?;
            (stdio.stdin, streams.stdin) = (Some(reader), Some(writer));
        }
        let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
        rustix::io::ioctl_fionbio(&stdout, true)?;
        rustix::io::ioctl_fionbio(&stderr, true)?;
        (streams.stdout, streams.stderr) = (Some(stdout), Some(stderr));
        (stdio.stdout, stdio.stderr) = (Some(out), Some(err));
    }
    Ok(Ends { streams, stdio, shim_sync, child_sync })
}
