//! The daemon's side: starts shims, talks to them, and finds them again after a restart.

mod connection;
mod nursery;
mod outcome;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use skep_types::{ContainerId, Time};
use tokio::net::UnixStream;

use crate::capability::CapabilitySet;
use crate::cgroup::Layout;
use crate::protocol::{
    self, ATTACHED_LIMIT, EXIT_FILE, ExitRecord, RUN_FILE, Request, Response, RunRecord, StartRequest,
};
use crate::seccomp::{self, ProfileError};
use crate::spec::{ContainerSpec, Process, Seccomp};
use connection::Connection;
use nursery::Nursery;
pub use outcome::{
    Attach, Attached, Exec, ExecState, Exit, OpenError, RuntimeError, StartError, Started, State,
};

/// The containers below one exec-root. Clones share everything.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    containers: PathBuf,
    layout: Layout,
    nursery: tokio::sync::Mutex<Nursery>,
    /// Filters that were compiled, by what they depend on.
    filters: Mutex<BTreeMap<u64, Arc<Vec<u64>>>>,
}

/// The most instructions of a filter (linux/bpf_common.h, BPF_MAXINSNS).
const INSTRUCTIONS_LIMIT: usize = 4096;

/// Reads and compiles a user's policy.
fn compile_profile(text: &str, capabilities: CapabilitySet) -> Result<Vec<u64>, ProfileError> {
    let (policy, architectures) = seccomp::read(text, capabilities)?;
    let programme = seccomp::compile(&policy, capabilities, &architectures);
    if programme.len() > INSTRUCTIONS_LIMIT {
        return Err(ProfileError::NotBuilt(format!("a filter of {} instructions", programme.len())));
    }
    Ok(programme.into_iter().map(protocol::pack).collect())
}

/// Whether a user's policy can be used for a container with these capabilities.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_profile(text: &str, capabilities: CapabilitySet) -> Result<(), ProfileError> {
    compile_profile(text, capabilities).map(drop)
}

fn unusable(error: ProfileError) -> StartError {
    StartError { code: 125, message: error.to_string() }
}

/// The most compiled filters that are kept; few sets of capabilities are ever in use.
const FILTERS_LIMIT: usize = 32;

/// How often another nursery is asked for a shim that was not forked.
const FORK_RETRIES: u32 = 1;

impl Runtime {
    /// Opens `exec_root` (made when missing; on a memory file system), finds the layout of the cgroups, and
    /// takes a read-only view of `executable`, our own binary, to run shims from: a container can reach it as
    /// /proc/1/exe, and must not be able to write to it (CVE-2019-5736). The view is mounted nowhere.
    ///
    /// Needs root and Linux 5.14.
    pub fn open(exec_root: &Path, executable: &Path) -> Result<Runtime, OpenError> {
        let containers = exec_root.join("containers");
        // Nobody else reaches a shim's socket, whatever mode it has.
        std::fs::create_dir_all(&containers)
            .and_then(|()| std::fs::set_permissions(&containers, PermissionsExt::from_mode(0o700)))
            .map_err(OpenError::because(format!("making {}", containers.display())))?;
        let containers = containers
            .canonicalize()
            .map_err(OpenError::because(format!("resolving {}", containers.display())))?;
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(OpenError::because("reading /proc/self/mountinfo"))?;
        let layout = Layout::detect(&mountinfo).ok_or_else(|| {
            OpenError::because("finding the control groups")(io::Error::other(
                "no cgroup file system is mounted",
            ))
        })?;
        let nursery = Nursery::new(executable)
            .map_err(OpenError::because(format!("taking a read-only view of {}", executable.display())))?;
        let nursery = tokio::sync::Mutex::new(nursery);
        let filters = Mutex::new(BTreeMap::new());
        Ok(Runtime { inner: Arc::new(Inner { containers, layout, nursery, filters }) })
    }

    fn folder(&self, id: ContainerId) -> PathBuf {
        self.inner.containers.join(id.to_string())
    }

    /// The compiled filter for these capabilities, as numbers. Docker's own are kept.
    fn filter(&self, seccomp: &Seccomp, capabilities: CapabilitySet) -> Result<Arc<Vec<u64>>, ProfileError> {
        match seccomp {
            Seccomp::Unconfined => return Ok(Arc::default()),
            Seccomp::Custom(text) => return compile_profile(text, capabilities).map(Arc::new),
            Seccomp::Default => {}
        }
        let mut filters = self.inner.filters.lock().expect("nobody panics while it is held");
        if filters.len() == FILTERS_LIMIT {
            filters.clear();
        }
        let compiled = filters.entry(capabilities.bits()).or_insert_with(|| {
            let programme =
                seccomp::compile(&seccomp::docker_default(), capabilities, seccomp::Architecture::NATIVE);
            Arc::new(programme.into_iter().map(protocol::pack).collect())
        });
        Ok(compiled.clone())
    }

    /// Starts a container. `attached` clients receive its output from the first byte on.
    ///
    /// Returns when its program was executed. After an error nothing is left of it. A container of this id that has ended must be
    /// deleted before.
    pub async fn start(&self, spec: &ContainerSpec, attached: Vec<Attached>) -> Result<Started, StartError> {
        if attached.len() > ATTACHED_LIMIT {
            let message = format!("more than {ATTACHED_LIMIT} clients attached before the start");
            return Err(StartError { code: 125, message });
        }
        let folder = self.folder(spec.id);
        std::fs::create_dir(&folder)
            .map_err(|error| StartError::ours(&format!("making {}", folder.display()), &error))?;
        let started = self.start_in(&folder, spec, &attached).await;
        if started.is_err() {
            // A shim that could say what failed has removed all; one that was killed has not.
            let group = self.inner.layout.group(&spec.cgroup);
            let _ = group.kill();
            let _ = remove_group(&group).await;
            let _ = std::fs::remove_dir_all(&folder);
        }
        started
    }

    async fn start_in(
        &self,
        folder: &Path,
        spec: &ContainerSpec,
        attached: &[Attached],
    ) -> Result<Started, StartError> {
        let request = StartRequest {
            spec: Cow::Borrowed(spec),
            layout: Cow::Borrowed(&self.inner.layout),
            folder: folder.to_string_lossy().into_owned(),
            attached: attached.iter().map(|client| client.streams).collect(),
        };
        let filter = self.filter(&spec.seccomp, spec.process.capabilities).map_err(unusable)?;
        let filter: Vec<u8> = filter.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut frames = protocol::frame_of(&request);
        frames.extend(protocol::frame(&filter));
        let sockets: Vec<_> = attached.iter().map(|client| client.socket.as_fd()).collect();
        let exchange = async {
            let mut connection = self.fork().await?;
            connection.send(&frames, &sockets).await?;
            connection.receive().await
        };
        match exchange.await {
            Ok(Response::Started(started)) => Ok(started),
            Ok(Response::Failed(failure)) => Err(StartError::create(&failure)),
            Ok(other) => {
                let error = io::Error::other(format!("unexpected answer {other:?}"));
                Err(StartError::ours("starting the shim", &error))
            }
            Err(error) => Err(StartError::ours("starting the shim", &error)),
        }
    }

    /// Has a shim forked. A nursery that is killed takes what it was asked with it: the next one is asked again.
    async fn fork(&self) -> io::Result<Connection> {
        let mut tries = 0;
        loop {
            let mut connection = self.inner.nursery.lock().await.fork()?;
            match connection.receive().await {
                Err(_) if tries < FORK_RETRIES => tries += 1,
                Ok(Response::Forked) => return Ok(connection),
                Ok(other) => return Err(io::Error::other(format!("unexpected greeting {other:?}"))),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks a container's shim. `None` when it has none any more.
    async fn ask(&self, id: ContainerId, request: &Request) -> io::Result<Option<(Response, Connection)>> {
        let gone = |error: &io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
            matches!(
                error.kind(),
                BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof
            )
        };
        let exchange = async {
            let mut connection = Connection::open(&self.folder(id)).await?;
            connection.send(&protocol::frame_of(request), &[]).await?;
            Ok((connection.receive().await?, connection))
        };
        match exchange.await {
            Err(error) if gone(&error) => Ok(None),
            answered => answered.map(Some),
        }
    }

    /// Asks for something that only a running container can do.
    async fn demand(
        &self,
        id: ContainerId,
        what: &'static str,
        request: &Request,
    ) -> Result<(Response, Connection), RuntimeError> {
        let failed = |source| RuntimeError::Failed { what, id, source };
        match self.ask(id, request).await.map_err(failed)? {
            None | Some((Response::Error(libc::ESRCH), _)) => Err(RuntimeError::NotRunning(id)),
            Some((Response::Error(number), _)) => Err(failed(io::Error::from_raw_os_error(number))),
            Some(answered) => Ok(answered),
        }
    }

    /// Waits for the end of a container; at once if it has ended, whoever saw it. When this returns, its log is complete.
    pub async fn wait(&self, id: ContainerId) -> Result<Exit, RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "waiting for the end", id, source };
        if let Some(record) = self.read::<ExitRecord>(id, EXIT_FILE).map_err(failed)? {
            return Ok(record.exit);
        }
        match self.ask(id, &Request::Wait).await.map_err(failed)? {
            Some((Response::Exit(exit), _)) => Ok(exit),
            Some((other, _)) => Err(failed(io::Error::other(format!("unexpected answer {other:?}")))),
            None => self.exit_without_shim(id).map_err(failed)?.ok_or(RuntimeError::NotRunning(id)),
        }
    }

    /// How a container ended whose shim is gone: by the shim's record, or else by ours, after its remains were killed.
    fn exit_without_shim(&self, id: ContainerId) -> io::Result<Option<Exit>> {
        if let Some(record) = self.read::<ExitRecord>(id, EXIT_FILE)? {
            return Ok(Some(record.exit));
        }
        let Some(run) = self.read::<RunRecord>(id, RUN_FILE)? else { return Ok(None) };
        let group = self.inner.layout.group(&run.cgroup);
        group.kill()?;
        let finished_at = Time::from(std::time::SystemTime::now());
        let exit = Exit { code: 137, oom_killed: group.oom_kills() > 0, finished_at, lost: true };
        let record = serde_json::to_vec(&ExitRecord { exit, execs: Vec::new() })?;
        let file = self.folder(id).join(EXIT_FILE);
        std::fs::write(file.with_extension("new"), record)?;
        std::fs::rename(file.with_extension("new"), file)?;
        Ok(Some(exit))
    }

    /// Reads a record of a shim's. `None` when there is none, or what is there is none: records appear whole.
    fn read<T: serde::de::DeserializeOwned>(&self, id: ContainerId, file: &str) -> io::Result<Option<T>> {
        match std::fs::read(self.folder(id).join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(serde_json::from_slice(&text?).ok()),
        }
    }

    /// What became of a container.
    pub async fn state(&self, id: ContainerId) -> Result<State, RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "asking for the state", id, source };
        if let Some(record) = self.read::<ExitRecord>(id, EXIT_FILE).map_err(failed)? {
            return Ok(State::Exited(record.exit));
        }
        match self.ask(id, &Request::State).await.map_err(failed)? {
            Some((Response::Started(started), _)) => Ok(State::Running(started)),
            Some((other, _)) => Err(failed(io::Error::other(format!("unexpected answer {other:?}")))),
            None => Ok(self.exit_without_shim(id).map_err(failed)?.map_or(State::Absent, State::Exited)),
        }
    }

    /// Sends a signal, by number, to a container's first process.
    pub async fn signal(&self, id: ContainerId, signal: i32) -> Result<(), RuntimeError> {
        self.demand(id, "signalling", &Request::Signal(signal)).await.map(drop)
    }

    /// Attaches to a running container.
    ///
    /// Bytes out are Docker's multiplexed frames {stream, 0, 0, 0, big-endian u32 length}, or raw with a
    /// terminal; end of file means that the container has ended and all output was delivered. Bytes in are
    /// its standard input; shutting down the writing side is the input's end. A client that does not read
    /// stops the container's output: nothing is dropped, and no memory grows.
    pub async fn attach(&self, id: ContainerId, streams: Attach) -> Result<UnixStream, RuntimeError> {
        let (_, connection) = self.demand(id, "attaching", &Request::Attach(streams)).await?;
        Ok(connection.into_stream())
    }

    /// Sets the size of the terminal of a container, or of one of its execs.
    pub async fn resize(
        &self,
        id: ContainerId,
        exec: Option<&str>,
        rows: u16,
        columns: u16,
    ) -> Result<(), RuntimeError> {
        let request = Request::Resize { exec: exec.map(str::to_owned), rows, columns };
        self.demand(id, "resizing the terminal", &request).await.map(drop)
    }

    /// Runs one more process in a running container, under a name of the caller's choice and behind its container's
    /// filter `seccomp`. `streams` are attached from the first byte on; what is not attached is discarded.
    pub async fn exec(
        &self,
        id: ContainerId,
        exec: &str,
        process: &Process,
        seccomp: &Seccomp,
        streams: Attach,
    ) -> Result<Exec, StartError> {
        let filter = self.filter(seccomp, process.capabilities).map_err(unusable)?.to_vec();
        let request = Request::Exec { exec: exec.to_owned(), process: process.clone(), streams, filter };
        let ours = |error| StartError::ours("reaching the shim", &error);
        match self.ask(id, &request).await.map_err(ours)? {
            Some((Response::Started(started), connection)) => {
                let attached = streams != Attach::default();
                Ok(Exec { pid: started.pid, stream: attached.then(|| connection.into_stream()) })
            }
            Some((Response::Failed(failure), _)) => Err(StartError::exec(&failure)),
            Some((other, _)) => Err(ours(io::Error::other(format!("unexpected answer {other:?}")))),
            None => Err(StartError { code: 128, message: RuntimeError::NotRunning(id).to_string() }),
        }
    }

    /// An exec's end in the record of a shim that is gone.
    fn recorded_exec(&self, id: ContainerId, exec: &str) -> io::Result<Option<i32>> {
        let record = self.read::<ExitRecord>(id, EXIT_FILE)?;
        let mut execs = record.into_iter().flat_map(|record| record.execs);
        Ok(execs.find(|(name, _)| name == exec).map(|(_, code)| code))
    }

    /// Waits for the end of an exec; its exit code, or 128 + the number of the signal that killed it.
    pub async fn exec_wait(&self, id: ContainerId, exec: &str) -> Result<i32, RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "waiting for an exec", id, source };
        let unknown = || RuntimeError::NoSuchExec(exec.to_owned());
        match self.ask(id, &Request::ExecWait(exec.to_owned())).await.map_err(failed)? {
            Some((Response::ExecExit(code), _)) => Ok(code),
            Some((Response::Error(libc::ESRCH), _)) => Err(unknown()),
            Some((other, _)) => Err(failed(io::Error::other(format!("unexpected answer {other:?}")))),
            None => self.recorded_exec(id, exec).map_err(failed)?.ok_or_else(unknown),
        }
    }

    /// What became of an exec.
    pub async fn exec_state(&self, id: ContainerId, exec: &str) -> Result<ExecState, RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "asking for an exec", id, source };
        match self.ask(id, &Request::ExecState(exec.to_owned())).await.map_err(failed)? {
            Some((Response::Exec(state), _)) => Ok(state),
            Some((other, _)) => Err(failed(io::Error::other(format!("unexpected answer {other:?}")))),
            None => {
                let code = self.recorded_exec(id, exec).map_err(failed)?;
                Ok(code.map_or(ExecState::Absent, ExecState::Exited))
            }
        }
    }

    /// The processes of a container, as the host counts.
    pub fn pids(&self, id: ContainerId) -> Result<Vec<u32>, RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "listing the processes", id, source };
        let run = self.read::<RunRecord>(id, RUN_FILE).map_err(failed)?;
        let run = run.ok_or(RuntimeError::NotRunning(id))?;
        self.inner.layout.group(&run.cgroup).processes().map_err(failed)
    }

    /// Processor time that a container's processes have used, in nanoseconds; `None` where nobody counts it.
    pub fn cpu_nanos(&self, id: ContainerId) -> Result<Option<u64>, RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "asking for the processor time", id, source };
        let run = self.read::<RunRecord>(id, RUN_FILE).map_err(failed)?;
        let run = run.ok_or(RuntimeError::NotRunning(id))?;
        Ok(self.inner.layout.group(&run.cgroup).cpu_nanos())
    }

    /// Removes what is left of a container: its processes, if any still run, its cgroups and its folder below
    /// exec-root. One that is not there is no error.
    pub async fn delete(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::Failed { what: "deleting what is left", id, source };
        if let Some(run) = self.read::<RunRecord>(id, RUN_FILE).map_err(failed)? {
            let group = self.inner.layout.group(&run.cgroup);
            group.kill().map_err(failed)?;
            // A shim tells the end when the last process is gone; only then can the cgroups go.
            if self.read::<ExitRecord>(id, EXIT_FILE).map_err(failed)?.is_none() {
                self.wait(id).await?;
            }
            remove_group(&group).await.map_err(failed)?;
        }
        match std::fs::remove_dir_all(self.folder(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed),
        }
    }

    /// The containers that exec-root knows: those started and not deleted yet, in order of their ids.
    pub fn list(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        let list = || -> io::Result<Vec<ContainerId>> {
            let mut ids: Vec<ContainerId> = Vec::new();
            for entry in std::fs::read_dir(&self.inner.containers)? {
                ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok()));
            }
            ids.sort();
            Ok(ids)
        };
        list().map_err(RuntimeError::List)
    }
}

/// How often a cgroup is found busy before that is an error: killed processes leave it within moments.
const REMOVE_TRIES: u32 = 200;

async fn remove_group(group: &crate::cgroup::Group<'_>) -> io::Result<()> {
    for _ in 1..REMOVE_TRIES {
        match group.remove() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                // The kernel tells nobody on cgroup v1 when a cgroup can be removed.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            removed => return removed,
        }
    }
    group.remove()
}
