//! What the runtime tells its callers: how things are, how they ended, why they failed.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use skep_types::{ContainerId, Time};
use tokio::net::UnixStream;

use crate::protocol::{self, Failure};

/// Which streams a client attaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Bytes that it sends become the process's input, if that is open.
    pub stdin: bool,
    /// It receives standard output; with a terminal, everything.
    pub stdout: bool,
    /// It receives standard error.
    pub stderr: bool,
}

/// A client that is attached from the first byte of output on.
#[derive(Debug)]
pub struct Attached {
    /// One end of a unix stream socket pair.
    pub socket: OwnedFd,
    /// What it wants.
    pub streams: Attach,
}

/// A container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its first process, as the host counts.
    pub pid: u32,
    /// When that was started.
    pub started_at: Time,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, or 128 + the number of the signal that killed it.
    pub code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it ended.
    pub finished_at: Time,
    /// Whether its shim was killed, so that code and time are guesses (137, the time of discovery).
    pub lost: bool,
}

/// What became of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running(Started),
    /// It has ended and was not deleted yet.
    Exited(Exit),
    /// It was never started, or was deleted.
    Absent,
}

/// What became of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecState {
    /// It runs.
    Running {
        /// As the host counts.
        pid: u32,
    },
    /// It ended with this code.
    Exited(i32),
    /// There is none of this name.
    Absent,
}

/// A started exec.
#[derive(Debug)]
pub struct Exec {
    /// Its process, as the host counts.
    pub pid: u32,
    /// Its streams, when any was attached; as [`Runtime::attach`] describes.
    pub stream: Option<UnixStream>,
}

/// The runtime could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct OpenError {
    what: String,
    #[source]
    source: io::Error,
}

impl OpenError {
    pub(super) fn because(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let what = what.into();
        |source| OpenError { what, source }
    }
}

/// A container or an exec was not started. The message is Docker's.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The exit code that Docker reports: 125 our own failure, 126 not executable, 127 not found, 128 other.
    pub code: i32,
    /// Docker's words.
    pub message: String,
}

impl StartError {
    pub(super) fn ours(what: &str, error: &io::Error) -> StartError {
        StartError { code: 125, message: format!("{what}: {}", protocol::words(error)) }
    }

    /// What moby finds out before it asks its runtime, and so says in its own words alone.
    fn by_moby(failure: &Failure) -> Option<StartError> {
        let is_its_own = failure.message.starts_with("unable to find user");
        is_its_own.then(|| StartError { code: failure.code, message: failure.message.clone() })
    }

    /// Docker's words around the runtime's; they end in the error class of containerd's wire.
    pub(super) fn create(failure: &Failure) -> StartError {
        if let Some(found) = StartError::by_moby(failure) {
            return found;
        }
        // As moby adds where a mount is of the wrong kind.
        let hint = if failure.message.contains("not a directory") {
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
             exists and is the expected type"
        } else {
            ""
        };
        let message = format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc \
             create failed: unable to start container process: error during container init: {}: unknown{hint}",
            failure.message
        );
        StartError { code: failure.code, message }
    }

    pub(super) fn exec(failure: &Failure) -> StartError {
        if let Some(found) = StartError::by_moby(failure) {
            return found;
        }
        let message = format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            failure.message
        );
        StartError { code: failure.code, message }
    }
}

/// A request to a container's shim failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not there, or ended already.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// No exec of this name.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// exec-root could not be read.
    #[error("listing the containers")]
    List(#[source] io::Error),
    /// The shim refused or could not be reached.
    #[error("{what} of container {id}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// On which container.
        id: ContainerId,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}
