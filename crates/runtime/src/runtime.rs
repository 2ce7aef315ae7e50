//! The daemon's side: starts shims, talks to them, and finds them again after a restart.

use std::os::fd::OwnedFd;
use std::path::Path;

use serde::{Deserialize, Serialize};
use skep_types::{ContainerId, Time};
use tokio::net::UnixStream;

use crate::spec::{ContainerSpec, Process};

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
    source: std::io::Error,
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

/// A request to a container's shim failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not there, or ended already.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// No exec of this name.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// The shim refused or could not be reached.
    #[error("{what} of container {id}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// On which container.
        id: ContainerId,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// The containers below one exec-root. Clones share everything.
#[derive(Clone, Debug)]
pub struct Runtime {}

impl Runtime {
    /// Opens `exec_root` (made when missing; on a memory file system), finds the layout of the cgroups, and
    /// takes a read-only view of `executable`, our own binary, to run shims from: a container can reach it as
    /// /proc/1/exe, and must not be able to write to it (CVE-2019-5736).
    pub fn open(exec_root: &Path, executable: &Path) -> Result<Runtime, OpenError> {
        let _ = (exec_root, executable);
        todo!()
    }

    /// Starts a container. `attached` clients receive its output from the first byte on.
    ///
    /// Returns when its program was executed. After an error nothing is left of it.
    pub async fn start(&self, spec: &ContainerSpec, attached: Vec<Attached>) -> Result<Started, StartError> {
        let _ = (spec, attached);
        todo!()
    }

    /// Waits for the end of a container; at once if it has ended, whoever saw it. When this returns, its log is complete.
    pub async fn wait(&self, id: ContainerId) -> Result<Exit, RuntimeError> {
        let _ = id;
        todo!()
    }

    /// What became of a container.
    pub async fn state(&self, id: ContainerId) -> Result<State, RuntimeError> {
        let _ = id;
        todo!()
    }

    /// Sends a signal, by number, to a container's first process.
    pub async fn signal(&self, id: ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let _ = (id, signal);
        todo!()
    }

    /// Attaches to a running container.
    ///
    /// Bytes out are Docker's multiplexed frames {stream, 0, 0, 0, big-endian u32 length}, or raw with a
    /// terminal; end of file means that the container has ended and all output was delivered. Bytes in are
    /// its standard input; shutting down the writing side is the input's end. A client that does not read
    /// stops the container's output: nothing is dropped, and no memory grows.
    pub async fn attach(&self, id: ContainerId, streams: Attach) -> Result<UnixStream, RuntimeError> {
        let _ = (id, streams);
        todo!()
    }

    /// Sets the size of the terminal of a container, or of one of its execs.
    pub async fn resize(
        &self,
        id: ContainerId,
        exec: Option<&str>,
        rows: u16,
        columns: u16,
    ) -> Result<(), RuntimeError> {
        let _ = (id, exec, rows, columns);
        todo!()
    }

    /// Runs one more process in a running container, under a name of the caller's choice. `streams` are attached
    /// from the first byte on; what is not attached is discarded.
    pub async fn exec(
        &self,
        id: ContainerId,
        exec: &str,
        process: &Process,
        streams: Attach,
    ) -> Result<Exec, StartError> {
        let _ = (id, exec, process, streams);
        todo!()
    }

    /// Waits for the end of an exec; its exit code, or 128 + the number of the signal that killed it.
    pub async fn exec_wait(&self, id: ContainerId, exec: &str) -> Result<i32, RuntimeError> {
        let _ = (id, exec);
        todo!()
    }

    /// What became of an exec.
    pub async fn exec_state(&self, id: ContainerId, exec: &str) -> Result<ExecState, RuntimeError> {
        let _ = (id, exec);
        todo!()
    }

    /// The processes of a container, as the host counts.
    pub fn pids(&self, id: ContainerId) -> Result<Vec<u32>, RuntimeError> {
        let _ = id;
        todo!()
    }

    /// Removes what is left of a container: its processes, if any still run, its cgroups and its folder below
    /// exec-root. One that is not there is no error.
    pub async fn delete(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let _ = id;
        todo!()
    }

    /// The containers that exec-root knows: those started and not deleted yet, in order of their ids.
    pub fn list(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        todo!()
    }
}
