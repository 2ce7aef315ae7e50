//! A shim's execs: more processes in its container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::serve::{Shim, answer, clone, now};
use super::task::{self, Stage, Task};
use crate::container::{self, Launch};
use crate::protocol::{self, Failure, Response};
use crate::runtime::{Attach, ExecState, Started};
use crate::spec::Process;
use crate::sys::{Instruction, Side};

impl Shim {
    /// One that is known by its name.
    pub(super) fn find_exec(&mut self, exec: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.exec.as_deref() == Some(exec))
    }

    /// The exit code of one that has ended.
    pub(super) fn ended_exec(&mut self, exec: &str) -> io::Result<i32> {
        let found = self.ended_execs.iter().position(|(name, _)| name == exec);
        let index = found.ok_or(Errno::SRCH)?;
        Ok(self.ended_execs[index].1)
    }

    /// What became of one.
    pub(super) fn exec_state(&mut self, exec: &str) -> ExecState {
        match self.find_exec(exec) {
            Some(task) if !task.has_ended() => ExecState::Running { pid: task.started.pid },
            _ => self.ended_exec(exec).map_or(ExecState::Absent, ExecState::Exited),
        }
    }

    /// Starts one, and answers if that fails.
    pub(super) fn exec(
        &mut self,
        exec: String,
        process: &Process,
        streams: Attach,
        filter: &[u64],
        socket: OwnedFd,
    ) {
        let filter: Vec<Instruction> = filter.iter().copied().map(protocol::unpack).collect();
        match self.start_exec(exec, process, streams, &filter, &socket) {
            Ok(task) => self.tasks.push(task),
            Err(failure) => answer(&socket, &Response::Failed(failure)),
        }
    }

    fn start_exec(
        &mut self,
        exec: String,
        process: &Process,
        streams: Attach,
        filter: &[Instruction],
        socket: &OwnedFd,
    ) -> Result<Task, Failure> {
        if self.exit.is_some() {
            return Err(Failure { code: 128, message: "container is not running".to_owned() });
        }
        if self.find_exec(&exec).is_some() {
            return Err(Failure { code: 128, message: format!("exec {exec} exists already") });
        }
        let mut ends = task::ends(process).map_err(|error| Failure::new("making streams", error))?;
        // As Docker's: an exec's input ends with its client's.
        ends.streams.close_input = true;
        let reply = socket.try_clone().map_err(|error| Failure::new("duplicating", error))?;
        let group = self.layout.group(&self.cgroup);
        let init = self.tasks[0].pidfd.as_fd();
        let clone_inside = || -> io::Result<(Side, bool)> {
            rustix::thread::move_into_thread_name_spaces(init, ThreadNameSpaceType::PROCESS_ID)?;
            let cloned = clone(&group, 0);
            if let Ok((Side::Child, _)) = cloned {
                return cloned;
            }
            let own = self.pid_namespace.as_fd();
            rustix::thread::move_into_link_name_space(own, Some(LinkNameSpaceType::ProcessID))?;
            cloned
        };
        let (side, born_into_unified) = clone_inside().map_err(|error| Failure::new("clone", error))?;
        let (pid, pidfd) = match side {
            Side::Parent { pid, pidfd } => (pid, pidfd),
            Side::Child => {
                let (oom_score_adj, stdio, sync) = (self.oom_score_adj, ends.stdio, ends.child_sync);
                let launch = Launch { group, born_into_unified, oom_score_adj, filter, stdio, sync };
                container::enter(init, self.layout.is_v2(), process, launch)
            }
        };
        let started = Started { pid, started_at: now() };
        let stage = Stage::Starting { sync: ends.shim_sync, reply, streams };
        Ok(Task { exec: Some(exec), started, pidfd, streams: ends.streams, stage, waiters: Vec::new() })
    }
}
