//! `docker exec`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_runtime::spec::{Process, Rlimit};
use skep_runtime::{Attach, CapabilitySet, ExecState, RuntimeError};
use skep_types::ContainerId;
use skep_types::container::ExecConfig;
use tokio::net::UnixStream;

use super::registry::Container;
use super::{kernel, merge};
use crate::events::attributes;
use crate::options::ExecStart;
use crate::view::ExecView;
use crate::{Engine, Error, ErrorKind, Result};

/// How many execs that do not run are remembered: those that are yet to be started, and those that ended, so that
/// clients learn their exit codes. Docker keeps the latter for five minutes.
const IDLE_LIMIT: usize = 1024;

/// How many bytes their commands and environments may have together.
const IDLE_BYTES_LIMIT: usize = 4 << 20;

/// Where an exec is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    /// Its start is under way.
    Starting,
    Running {
        pid: u32,
    },
    Ended {
        pid: u32,
        code: i32,
    },
}

#[derive(Debug)]
struct Exec {
    container: ContainerId,
    config: ExecConfig,
    phase: Phase,
    /// In the order of their creation.
    number: u64,
}

/// The execs of a machine. They do not outlive the daemon, as in Docker.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<String, Exec>,
    made: u64,
}

impl Known {
    /// Forgets the oldest idle ones beyond the limits, but never the newest.
    fn forget_idle(&mut self) {
        let is_idle = |exec: &&Exec| matches!(exec.phase, Phase::Created | Phase::Ended { .. });
        let weight =
            |exec: &Exec| -> usize { exec.config.cmd.iter().chain(&exec.config.env).map(String::len).sum() };
        let idle = self.by_id.values().filter(is_idle);
        let mut idle: Vec<(u64, usize)> = idle.map(|exec| (exec.number, weight(exec))).collect();
        idle.sort_unstable();
        let (mut count, mut bytes) = (idle.len(), idle.iter().map(|(_, bytes)| bytes).sum::<usize>());
        for (number, weight) in idle {
            if (count <= IDLE_LIMIT && bytes <= IDLE_BYTES_LIMIT) || count == 1 {
                break;
            }
            self.by_id.retain(|_, exec| exec.number != number);
            count -= 1;
            bytes -= weight;
        }
    }
}

impl Execs {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, id: &str, container: ContainerId, config: ExecConfig) {
        let mut known = self.known();
        known.made += 1;
        let exec = Exec { container, config, phase: Phase::Created, number: known.made };
        known.by_id.insert(id.to_owned(), exec);
        known.forget_idle();
    }

    /// Moves an exec on, unless it is not there any more.
    fn advance(&self, id: &str, phase: Phase) {
        if let Some(exec) = self.known().by_id.get_mut(id) {
            exec.phase = phase;
        }
    }

    /// Claims an exec for its one start.
    fn claim(&self, id: &str) -> Result<(ContainerId, ExecConfig)> {
        let mut known = self.known();
        let exec = known.by_id.get_mut(id).ok_or_else(|| no_such(id))?;
        match exec.phase {
            Phase::Created => exec.phase = Phase::Starting,
            Phase::Starting | Phase::Running { .. } => {
                return Err(Error::conflict(format!("Error: Exec command {id} is already running")));
            }
            Phase::Ended { .. } => {
                return Err(Error::conflict(format!("Error: Exec command {id} has already run")));
            }
        }
        Ok((exec.container, exec.config.clone()))
    }

    /// The container of an exec and whether it runs.
    fn running(&self, id: &str) -> Result<(ContainerId, bool)> {
        let known = self.known();
        let exec = known.by_id.get(id).ok_or_else(|| no_such(id))?;
        Ok((exec.container, matches!(exec.phase, Phase::Running { .. })))
    }

    fn view(&self, id: &str) -> Result<ExecView> {
        let known = self.known();
        let exec = known.by_id.get(id).ok_or_else(|| no_such(id))?;
        let (pid, exit_code) = match exec.phase {
            Phase::Created | Phase::Starting => (0, None),
            Phase::Running { pid } => (pid, None),
            Phase::Ended { pid, code } => (pid, Some(code)),
        };
        Ok(ExecView {
            id: id.to_owned(),
            container: exec.container,
            config: exec.config.clone(),
            running: matches!(exec.phase, Phase::Running { .. }),
            exit_code,
            pid,
        })
    }

    /// The execs that run in a container.
    pub(crate) fn running_in(&self, container: ContainerId) -> Vec<String> {
        let known = self.known();
        let here = known.by_id.iter().filter(|(_, exec)| exec.container == container);
        here.filter(|(_, exec)| matches!(exec.phase, Phase::Running { .. }))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Execs that were made and never started end with their container.
    pub(crate) fn container_ended(&self, container: ContainerId) {
        self.known().by_id.retain(|_, exec| exec.container != container || exec.phase != Phase::Created);
    }

    /// All execs of a container are forgotten with it.
    pub(crate) fn container_removed(&self, container: ContainerId) {
        self.known().by_id.retain(|_, exec| exec.container != container);
    }
}

fn no_such(id: &str) -> Error {
    Error::not_found(format!("No such exec instance: {id}"))
}

/// An exec that nobody else can start any more.
#[derive(Debug)]
pub struct ClaimedExec {
    id: String,
    container: Arc<Container>,
    config: ExecConfig,
}

impl Engine {
    /// Prepares an exec and returns its id.
    ///
    /// # Errors
    /// 409 `container x is not running`; 400 without a command.
    pub async fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String> {
        let container = self.find(name)?;
        if config.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        check_running(&container)?;
        let id = self.draw_id();
        let action = format!("exec_create: {}", config.cmd.join(" "));
        self.shared.execs.insert(&id, container.id(), config);
        self.container_event_with(&container, action, attributes([("execID", id.clone())]));
        Ok(id)
    }

    /// Runs an exec. Returns its streams unless it is detached; their end means that it has ended.
    ///
    /// # Errors
    /// 404 `No such exec instance: x`; 409 when it ran already or the container does not run; 400 when its program
    /// cannot be run: then its exit code is 126 or 127, which [`Engine::exec_inspect`] tells.
    pub async fn exec_start(&self, id: &str, start: ExecStart) -> Result<Option<UnixStream>> {
        let claimed = self.exec_claim(id)?;
        self.exec_start_claimed(claimed, start).await
    }

    /// The first half of [`Engine::exec_start`]: all that refuses. Who has the exec must start it.
    ///
    /// # Errors
    /// 404; 409 when it ran already, or its container does not run.
    pub fn exec_claim(&self, id: &str) -> Result<ClaimedExec> {
        let container = self.exec_container(id)?;
        check_running(&container)?;
        let (_, config) = self.shared.execs.claim(id)?;
        Ok(ClaimedExec { id: id.to_owned(), container, config })
    }

    /// The second half of [`Engine::exec_start`].
    ///
    /// # Errors
    /// When its program cannot be started.
    pub async fn exec_start_claimed(
        &self,
        claimed: ClaimedExec,
        start: ExecStart,
    ) -> Result<Option<UnixStream>> {
        let (engine, ClaimedExec { id, container, config }) = (self.clone(), claimed);
        self.shared.tasks.run(async move { engine.exec_run(id, container, config, start).await }).await
    }

    async fn exec_run(
        &self,
        id: String,
        container: Arc<Container>,
        config: ExecConfig,
        start: ExecStart,
    ) -> Result<Option<UnixStream>> {
        let execs = &self.shared.execs;
        let streams = if start.detach {
            Attach::default()
        } else {
            Attach { stdin: config.attach_stdin, stdout: config.attach_stdout, stderr: config.attach_stderr }
        };
        let action = format!("exec_start: {}", config.cmd.join(" "));
        self.container_event_with(&container, action, attributes([("execID", id.clone())]));
        let process = process(&container, &config, start, self.default_limits()).inspect_err(|_| {
            execs.advance(&id, Phase::Ended { pid: 0, code: 126 });
        })?;
        let seccomp = kernel::filter(&container.record.config.host);
        match self.shared.runtime.exec(container.id(), &id, &process, &seccomp, streams).await {
            Ok(exec) => {
                execs.advance(&id, Phase::Running { pid: exec.pid });
                self.watch_exec(id, container, exec.pid);
                Ok(exec.stream)
            }
            Err(error) => {
                execs.advance(&id, Phase::Ended { pid: 0, code: error.code });
                self.exec_died(&container, &id, error.code);
                let kind = if matches!(error.code, 126 | 127) {
                    ErrorKind::InvalidParameter
                } else {
                    ErrorKind::Internal
                };
                Err(Error::new(kind, error.message))
            }
        }
    }

    fn watch_exec(&self, id: String, container: Arc<Container>, pid: u32) {
        let engine = self.clone();
        let closing = self.shared.tasks.closing();
        self.shared.tasks.spawn(async move {
            let code = tokio::select! {
                code = engine.shared.runtime.exec_wait(container.id(), &id) => code,
                () = closing => return,
            };
            // One whose container died with it was killed.
            let code = code.unwrap_or(128 + crate::signals::KILL);
            engine.shared.execs.advance(&id, Phase::Ended { pid, code });
            engine.exec_died(&container, &id, code);
        });
    }

    /// Kills the process of an exec that runs.
    pub(crate) async fn kill_exec(&self, id: &str) {
        let Ok(ExecView { running: true, pid, .. }) = self.exec_inspect(id).await else { return };
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        // One that ended meanwhile needs no more.
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    }

    fn exec_died(&self, container: &Container, id: &str, code: i32) {
        let ended = attributes([("execID", id.to_owned()), ("exitCode", code.to_string())]);
        self.container_event_with(container, "exec_die", ended);
    }

    fn exec_container(&self, id: &str) -> Result<Arc<Container>> {
        let (container, _) = self.shared.execs.running(id)?;
        self.shared.containers.get(container).ok_or_else(|| no_such(id))
    }

    /// One exec. Right as soon as its streams have ended.
    ///
    /// # Errors
    /// 404 `No such exec instance: x`.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecView> {
        let view = self.shared.execs.view(id)?;
        if !view.running {
            return Ok(view);
        }
        // Its end may have reached the client's stream before it reached the task that watches it.
        match self.shared.runtime.exec_state(view.container, id).await {
            Ok(ExecState::Exited(code)) => Ok(ExecView { running: false, exit_code: Some(code), ..view }),
            _ => self.shared.execs.view(id),
        }
    }

    /// Gives an exec's terminal a size.
    ///
    /// # Errors
    /// 404; 409 when it does not run.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let (container, running) = self.shared.execs.running(id)?;
        let not_running = || Error::conflict(format!("exec {id} is not running"));
        if !running {
            return Err(not_running());
        }
        match self.shared.runtime.resize(container, Some(id), rows, columns).await {
            Ok(()) => Ok(()),
            Err(RuntimeError::NotRunning(_) | RuntimeError::NoSuchExec(_)) => Err(not_running()),
            Err(error) => Err(Error::failed("cannot resize the terminal", &error)),
        }
    }
}

fn check_running(container: &Container) -> Result<()> {
    if container.is_running() {
        return Ok(());
    }
    Err(Error::conflict(format!("container {} is not running", container.id())))
}

fn process(
    container: &Container,
    config: &ExecConfig,
    start: ExecStart,
    default_limits: Vec<Rlimit>,
) -> Result<Process> {
    let of = &container.record.config;
    let mut env = merge::environment(of, &of.hostname);
    if config.tty {
        merge::override_environment(&mut env, &["TERM=xterm".to_owned()]);
    }
    merge::override_environment(&mut env, &config.env);
    let or = |own: &String, inherited: &String| if own.is_empty() { inherited.clone() } else { own.clone() };
    Ok(Process {
        args: config.cmd.clone(),
        env,
        cwd: or(&config.working_dir, &of.working_dir),
        user: or(&config.user, &of.user),
        groups: of.host.group_add.clone(),
        tty: config.tty,
        tty_size: start.console_size,
        stdin: config.attach_stdin,
        stdin_once: true,
        capabilities: if config.privileged { CapabilitySet::ALL } else { kernel::capabilities(&of.host)? },
        // As Docker's: an exec is a process of its container.
        no_new_privileges: of.host.security.no_new_privileges,
        rlimits: kernel::limits(&of.host.ulimits, default_limits),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_exec_starts_once() {
        let execs = Execs::default();
        let container = ContainerId([1; 32]);
        execs.insert("x", container, ExecConfig::default());
        assert_eq!(execs.claim("x").unwrap().0, container);
        assert_eq!(execs.claim("x").unwrap_err().kind, ErrorKind::Conflict);
        execs.advance("x", Phase::Running { pid: 7 });
        assert_eq!(execs.running_in(container), ["x"]);
        execs.advance("x", Phase::Ended { pid: 7, code: 3 });
        assert_eq!(execs.view("x").unwrap().exit_code, Some(3));
        assert_eq!(execs.claim("y").unwrap_err().message, "No such exec instance: y");
        execs.container_removed(container);
        assert!(execs.view("x").is_err());
    }

    #[test]
    fn idle_execs_are_remembered_up_to_a_limit() {
        let execs = Execs::default();
        for number in 0..IDLE_LIMIT + 10 {
            let id = number.to_string();
            execs.insert(&id, ContainerId([1; 32]), ExecConfig::default());
            execs.advance(&id, Phase::Ended { pid: 0, code: 0 });
        }
        assert!(execs.known().by_id.len() <= IDLE_LIMIT + 1);
        assert!(execs.view("0").is_err());
        assert!(execs.view(&(IDLE_LIMIT + 9).to_string()).is_ok());
    }

    #[test]
    fn long_commands_are_remembered_for_a_shorter_time() {
        let execs = Execs::default();
        for number in 0..100 {
            let config = ExecConfig { cmd: vec!["x".repeat(IDLE_BYTES_LIMIT / 4)], ..ExecConfig::default() };
            execs.insert(&number.to_string(), ContainerId([1; 32]), config);
        }
        assert_eq!(execs.known().by_id.len(), 4);
        assert!(execs.view("99").is_ok());
    }
}
