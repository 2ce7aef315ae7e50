//! What clients can ask along with an operation.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::{ContainerId, Time};

use crate::view::Status;

/// What `docker create` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The container's id.
    pub id: ContainerId,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// How `docker rm` removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// `-f`: kill it first if it runs.
    pub force: bool,
    /// `-v`: its anonymous volumes too.
    pub volumes: bool,
}

/// What `docker wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run; true at once for a container that does not.
    #[default]
    NotRunning,
    /// It ends the next time, also if it is yet to be started.
    NextExit,
    /// It is gone.
    Removed,
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitResult {
    /// The exit code.
    pub code: i32,
    /// Why the container could not start or be removed, if so.
    pub error: Option<String>,
}

/// Which log lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Only lines of this time or later.
    pub since: Option<Time>,
    /// Only lines of this time or earlier.
    pub until: Option<Time>,
    /// Only the last so many; `None` is all.
    pub tail: Option<u64>,
    /// Go on until the container ends.
    pub follow: bool,
}

/// What a client attaches to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Replay what was logged so far first.
    pub logs: bool,
    /// Stay attached; false only replays.
    pub stream: bool,
}

/// How an exec is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecStart {
    /// Do not attach.
    pub detach: bool,
    /// Rows and columns of the client's terminal.
    pub console_size: Option<(u16, u16)>,
}

/// Which containers `docker ps` shows. Values of one field are alternatives; fields must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// `-a`: those that do not run too. Filters by state, and `limit`, imply it.
    pub all: bool,
    /// `--size`
    pub size: bool,
    /// `-n`: only the so many youngest.
    pub limit: Option<usize>,
    /// Prefixes of ids.
    pub id: Vec<String>,
    /// Patterns anywhere in the name; `^` and `$` anchor.
    pub name: Vec<String>,
    /// Labels, all of which must be there: with this value if one is given.
    pub label: Vec<(String, Option<String>)>,
    /// States.
    pub status: BTreeSet<Status>,
    /// Exit codes of containers that ended.
    pub exited: BTreeSet<i32>,
    /// Images: names, or ids and their prefixes. Descendants count.
    pub ancestor: Vec<String>,
    /// Only those made before this one.
    pub before: Option<String>,
    /// Only those made after this one.
    pub since: Option<String>,
    /// Volume names or mount points.
    pub volume: Vec<String>,
    /// Network names or ids.
    pub network: Vec<String>,
    /// Published ports: `80`, `80/tcp`, `8000-8080/udp`.
    pub publish: Vec<String>,
    /// Exposed ports, in the same forms.
    pub expose: Vec<String>,
    /// Whether it is a task of a service.
    pub is_task: Option<bool>,
    /// States of health, `none` for containers whose health is not probed; empty is all.
    pub health: BTreeSet<String>,
}

/// A volume to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeCreate {
    /// Its name; empty draws one.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Past events from this time on; `None` is none of them.
    pub since: Option<Time>,
    /// End there; `None` goes on.
    pub until: Option<Time>,
}
