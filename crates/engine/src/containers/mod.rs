//! Containers: from `create` to `rm`.

mod filter;

use std::future::Future;

use skep_types::Time;
use skep_types::container::{ContainerConfig, ExecConfig};
use tokio::net::UnixStream;

use crate::options::{
    AttachOptions, ContainerFilter, Created, ExecStart, LogQuery, RemoveOptions, WaitCondition, WaitResult,
};
use crate::view::{ContainerSummary, ContainerView, ExecView};
use crate::{Engine, Result};

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
pub struct LogStream {}

impl LogStream {
    /// The next line; `None` at the end, which a following stream reaches when the container ends.
    ///
    /// # Errors
    /// Internal, when the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogLine>> {
        todo!()
    }
}

/// In all of these, `name` is a container's id, a unique prefix of its id, or its name; what fits none is
/// 404 `No such container: x`.
impl Engine {
    /// Makes a container; nothing runs yet. `None` draws a name.
    ///
    /// # Errors
    /// 404 `No such image: x:latest`; 409 for a name in use; 400 for a configuration that makes no sense.
    pub async fn create(&self, _name: Option<String>, _config: ContainerConfig) -> Result<Created> {
        todo!()
    }

    /// Starts a container.
    ///
    /// # Errors
    /// 304 when it runs; 409 when it is being removed; else Docker's words, by which clients tell 125, 126
    /// and 127 apart.
    pub async fn start(&self, _name: &str) -> Result<()> {
        todo!()
    }

    /// Asks a container to end with `signal` (`None`: its own stop signal) and kills it after `timeout`
    /// seconds (`None`: its own; negative: never).
    ///
    /// # Errors
    /// 304 when it does not run; 400 for a signal that is none.
    pub async fn stop(&self, _name: &str, _signal: Option<&str>, _timeout: Option<i64>) -> Result<()> {
        todo!()
    }

    /// Stops a container if it runs, then starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`], without 304.
    pub async fn restart(&self, _name: &str, _signal: Option<&str>, _timeout: Option<i64>) -> Result<()> {
        todo!()
    }

    /// Sends a signal, by name or number, to a container's first process. SIGKILL returns when it is dead.
    ///
    /// # Errors
    /// 409 when it does not run; 400 for a signal that is none.
    pub async fn kill(&self, _name: &str, _signal: &str) -> Result<()> {
        todo!()
    }

    /// Removes a container.
    ///
    /// # Errors
    /// 409 when it runs and `force` is not set, or when it is being removed.
    pub async fn remove(&self, _name: &str, _options: RemoveOptions) -> Result<()> {
        todo!()
    }

    /// Registers a wait; the inner future ends when the condition holds.
    ///
    /// # Errors
    /// 404.
    pub async fn wait(
        &self,
        _name: &str,
        _condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitResult> + Send + 'static> {
        if true {
            todo!()
        }
        Ok(std::future::ready(WaitResult { code: 0, error: None }))
    }

    /// The containers that a filter lets through, youngest first.
    ///
    /// # Errors
    /// 404 when `before` or `since` name no container; 400 for a port that is none.
    pub async fn list(&self, _filter: &ContainerFilter) -> Result<Vec<ContainerSummary>> {
        todo!()
    }

    /// Everything about one container.
    ///
    /// # Errors
    /// 404.
    pub fn inspect(&self, _name: &str) -> Result<ContainerView> {
        todo!()
    }

    /// Bytes that a container takes; walks its file system.
    ///
    /// # Errors
    /// 404.
    pub async fn size(&self, _name: &str) -> Result<crate::view::ContainerSize> {
        todo!()
    }

    /// A container's log, and whether it has a terminal.
    ///
    /// # Errors
    /// 404; internal, when the log cannot be read.
    pub async fn logs(&self, _name: &str, _query: LogQuery) -> Result<(bool, LogStream)> {
        todo!()
    }

    /// Attaches to a container's streams, and tells whether it has a terminal. Before its start the stream is
    /// held and sees the first byte. Bytes out are raw with a terminal, else Docker's frames; bytes in are
    /// standard input.
    ///
    /// # Errors
    /// 404; 409 when it is being removed.
    pub async fn attach(&self, _name: &str, _options: AttachOptions) -> Result<(bool, UnixStream)> {
        todo!()
    }

    /// Gives a container's terminal a size.
    ///
    /// # Errors
    /// 409 when it does not run.
    pub async fn resize(&self, _name: &str, _rows: u16, _columns: u16) -> Result<()> {
        todo!()
    }

    /// Prepares an exec and returns its id.
    ///
    /// # Errors
    /// 409 `container x is not running`; 400 without a command.
    pub async fn exec_create(&self, _name: &str, _config: ExecConfig) -> Result<String> {
        todo!()
    }

    /// Runs an exec. Returns its streams unless it is detached.
    ///
    /// # Errors
    /// 404 `No such exec instance: x`; 409 when it ran already or the container does not run.
    pub async fn exec_start(&self, _id: &str, _start: ExecStart) -> Result<Option<UnixStream>> {
        todo!()
    }

    /// One exec.
    ///
    /// # Errors
    /// 404 `No such exec instance: x`.
    pub fn exec_inspect(&self, _id: &str) -> Result<ExecView> {
        todo!()
    }

    /// Gives an exec's terminal a size.
    ///
    /// # Errors
    /// 404; 409 when it does not run.
    pub async fn exec_resize(&self, _id: &str, _rows: u16, _columns: u16) -> Result<()> {
        todo!()
    }
}
