//! A machine made of a network namespace: its daemon, its clients, its neighbours.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::{Output, eventually, http};

/// The address of every [`Host`] on the link to its neighbour.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The neighbour's address: an outside client.
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// How long a daemon may take to answer, generous for a loaded machine.
const READY: Duration = Duration::from_secs(20);

/// How long a client may run. Only one that hangs takes as long.
const LONGEST: Duration = Duration::from_secs(120);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A machine with a daemon. Dropping it removes everything that it made.
pub struct Host {
    name: String,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    program: Program,
    /// Added to the daemon's command line.
    flags: Vec<String>,
    /// The ids of all containers seen so far by [`Host::traces`], also those that are gone.
    pub(crate) known_containers: Mutex<BTreeSet<String>>,
}

/// Whose daemon a [`Host`] runs.
#[derive(Clone, Copy)]
enum Program {
    Skep,
    /// Docker's own, to compare with.
    Dockerd,
}

impl Host {
    /// A machine whose daemon answers.
    pub fn new() -> Host {
        Host::with_flags(&[])
    }

    /// A machine whose daemon is Docker's, of the Debian package `docker.io`.
    pub fn of_dockerd() -> Host {
        let mut host = Host::without_daemon();
        host.program = Program::Dockerd;
        host.start_daemon();
        host
    }

    /// A machine whose daemon was started with more flags and answers.
    pub fn with_flags(flags: &[&str]) -> Host {
        let mut host = Host::without_daemon();
        host.set_flags(flags);
        host.start_daemon();
        host
    }

    /// A machine on which no daemon was started yet.
    pub fn without_daemon() -> Host {
        let name = format!("skc{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let neighbour = format!("{name}n");
        for namespace in [&name, &neighbour] {
            system("ip", &["netns", "add", namespace]);
            system("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        }
        system(
            "ip",
            &["-n", &name, "link", "add", "up0", "type", "veth", "peer", "up0", "netns", &neighbour],
        );
        for (namespace, address) in [(&name, ADDRESS), (&neighbour, NEIGHBOUR)] {
            system("ip", &["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "up0"]);
            system("ip", &["-n", namespace, "link", "set", "up0", "up"]);
        }
        let folder = tempfile::Builder::new().prefix("skep-conformance-").tempdir().unwrap();
        Host {
            name,
            folder,
            daemon: None,
            program: Program::Skep,
            flags: Vec::new(),
            known_containers: Mutex::default(),
        }
    }

    /// The folder that holds the daemon's folders, its socket and its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The daemon's data root.
    pub fn data_root(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The daemon's exec root.
    pub fn exec_root(&self) -> PathBuf {
        self.folder.path().join("exec")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("skep.sock")
    }

    /// What the daemons of this host wrote to standard error.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }

    /// The daemon's process id, 0 when none runs.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }

    /// The command line of this host's daemon, to be started by the caller.
    pub fn daemon_command(&self) -> Command {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("daemon.log"))
            .unwrap();
        let mut command = match self.program {
            Program::Skep => self.command_with(binary(), &["daemon"]),
            Program::Dockerd => {
                let mut command = self.command("dockerd");
                command.arg("--pidfile").arg(self.folder.path().join("dockerd.pid"));
                command
            }
        };
        command
            .args(["--debug", "--data-root"])
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let mut daemon = self.daemon_command().spawn().unwrap();
        eventually("the daemon answers", READY, || {
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.daemon_log());
            }
            self.api_get("/_ping").and_then(|answer| match answer.status {
                200 => Ok(()),
                status => Err(format!("status {status}")),
            })
        });
        self.daemon = Some(daemon);
    }

    /// `kill -9`: no chance to tidy up.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon to kill");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// The machine loses its power: daemon, shims and containers are gone, and so is what only memory held.
    pub fn lose_power(&mut self) {
        self.kill_daemon();
        let inode = |path: String| std::fs::metadata(path).map(|found| found.ino());
        let ours = inode(format!("/run/netns/{}", self.name)).unwrap();
        let shims = std::fs::read_dir("/proc").unwrap().flatten();
        let shims = shims.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // A shim lives in the daemon's network; its container dies with it.
        for pid in shims.filter(|pid| inode(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs == ours))
        {
            signal(pid, libc::SIGKILL);
        }
        unmount_all_below(self.folder.path());
        std::fs::remove_dir_all(self.exec_root()).unwrap();
    }

    /// SIGTERM; asserts that it ends with exit code 0.
    #[track_caller]
    pub fn stop_daemon(&mut self) {
        self.end_daemon(libc::SIGTERM);
    }

    /// Ends the daemon by a signal that it handles; asserts that its exit code is 0.
    #[track_caller]
    pub fn end_daemon(&mut self, number: i32) {
        let mut daemon = self.daemon.take().expect("a daemon to stop");
        signal(daemon.id(), number);
        let status = eventually("the daemon ends", Duration::from_secs(10), || {
            daemon.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        });
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.daemon_log());
    }

    /// Replaces what is added to the command line of the daemons started from now on.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// A command with arguments that runs in this host's network.
    pub fn command_with(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = self.command(program);
        command.args(arguments);
        command
    }

    /// A command that runs in this host's network.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs the stock client with this host's daemon.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_with_input(arguments, b"")
    }

    /// The same with something on standard input.
    pub fn docker_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.docker_command();
        command.args(arguments);
        finish(command, &format!("docker {}", arguments.join(" ")), input)
    }

    /// The stock client, to be started by the caller. Its settings folder is the host's own.
    pub fn docker_command(&self) -> Command {
        let mut command = self.command("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.folder.path().join("client"))
            .env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Loads one of the images that `scripts/images` made.
    #[track_caller]
    pub fn load_image(&self, name: &str) {
        let archive = image_archive(name);
        let printed = self.docker(&["load", "--input", archive.to_str().unwrap()]).ok();
        assert!(printed.contains(&format!("Loaded image: {name}:latest")), "{printed}");
    }

    /// GET on the daemon's API.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn api_get(&self, path: &str) -> Result<http::Answer, String> {
        let mut stream = self.api_connect()?;
        http::get(&mut stream, path)
    }

    /// Any request on the daemon's API, with a JSON body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn api(&self, method: &str, path: &str, body: &str) -> Result<http::Answer, String> {
        let mut stream = self.api_connect()?;
        http::request(&mut stream, method, path, body)
    }

    /// A fresh connection to the daemon's API.
    ///
    /// # Errors
    /// When it is refused.
    pub fn api_connect(&self) -> Result<UnixStream, String> {
        let stream = UnixStream::connect(self.socket()).map_err(|error| format!("connecting: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|error| error.to_string())?;
        Ok(stream)
    }

    /// Runs `work` on a thread inside this host's network.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.name, work)
    }

    /// Runs `work` on a thread in the neighbour's network: an outside client.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&format!("{}n", self.name), work)
    }

    /// The name of the neighbour's network namespace, for `ip -n`.
    pub fn neighbour_namespace(&self) -> String {
        format!("{}n", self.name)
    }

    /// The name of this host's network namespace, for `ip -n`.
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// How many clients are connected to the daemon's socket.
    pub fn open_connections(&self) -> usize {
        let table = self.inside(|| std::fs::read_to_string("/proc/thread-self/net/unix").unwrap());
        let socket = self.socket();
        // State 03 is connected; the listening socket itself is 01.
        let ours = |line: &&str| line.ends_with(socket.to_str().unwrap()) && line.contains(" 03 ");
        table.lines().filter(ours).count()
    }

    /// The body that `http://127.0.0.1:port/` answers inside this host.
    ///
    /// # Errors
    /// When there is no answer of status 200.
    pub fn curl(&self, port: u16) -> Result<String, String> {
        self.inside(|| http::fetch(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
    }

    /// The body that the host's own address answers to an outside client.
    ///
    /// # Errors
    /// When there is no answer of status 200.
    pub fn curl_from_outside(&self, port: u16) -> Result<String, String> {
        self.outside(|| http::fetch(SocketAddr::new(IpAddr::V4(ADDRESS), port)))
    }
}

impl Default for Host {
    fn default() -> Self {
        Host::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon log\n{}", tail(&self.daemon_log(), 60));
        }
        if self.daemon.is_none() && self.socket().exists() {
            // A test that failed while its daemon was dead: the next one knows what the last one left.
            self.daemon = self.daemon_command().spawn().ok();
            let deadline = std::time::Instant::now() + READY;
            while self.api_get("/_ping").is_err() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if self.daemon.is_some() {
            self.docker(&["swarm", "leave", "--force"]);
            let containers = self.docker(&["ps", "--all", "--quiet", "--no-trunc"]).stdout;
            for container in containers.lines() {
                self.docker(&["rm", "--force", "--volumes", container]);
            }
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        kill_all_below(self.folder.path());
        unmount_all_below(self.folder.path());
        for namespace in [self.name.clone(), format!("{}n", self.name)] {
            let _ = Command::new("ip").args(["netns", "delete", &namespace]).status();
        }
    }
}

/// The executable under test: `$SKEP`, or the debug build beside this test.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("SKEP").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a test has an executable");
        // A test is in `target/<triple>/debug/deps`, a program beside the debug build.
        let folder = test.parent().expect("a program is in a folder");
        let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
        folder.join("skep")
    });
    assert!(path.exists(), "{} is missing: build it with `cargo build --package skep`", path.display());
    path
}

/// The archive of an image that `scripts/images` made.
pub fn image_archive(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/images/{name}.tar"));
    assert!(path.exists(), "{} is missing: make it with `scripts/images target/images`", path.display());
    path
}

/// Runs a command with `input` to its end.
pub fn finish(mut command: Command, description: &str, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {description}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let (pid, start) = (child.id(), Instant::now());
    let (ended, watched) = std::sync::mpsc::channel::<()>();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that does not read its input is no fault.
            let _ = stdin.write_all(input);
        });
        scope.spawn(move || {
            if watched.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                signal(pid, libc::SIGKILL);
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        output
    });
    assert!(start.elapsed() < LONGEST, "{description} did not end within {LONGEST:?}: {output:?}");
    Output {
        command: description.to_owned(),
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends `number` to a process; one that is gone is no fault.
pub fn signal(pid: u32, number: i32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let signal = rustix::process::Signal::from_named_raw(number).expect("a signal that has a name");
    let _ = pid.map(|pid| rustix::process::kill_process(pid, signal));
}

fn system(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("starting {program}: {error}"));
    assert!(status.success(), "`{program} {}` ended with {status}: is this root?", arguments.join(" "));
}

/// Runs `work` on a thread in a network namespace.
pub(crate) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    in_namespace_at(&File::open(format!("/run/netns/{name}")).unwrap(), work)
}

/// Runs `work` on a thread in the network of a process. Fails when that has ended.
pub(crate) fn in_process_namespace<T: Send>(
    process: u32,
    work: impl FnOnce() -> T + Send,
) -> std::io::Result<T> {
    Ok(in_namespace_at(&File::open(format!("/proc/{process}/ns/net"))?, work))
}

fn in_namespace_at<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(namespace), kind).unwrap();
                work()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Ends what a failed test left behind: daemons and shims, and the processes of the containers whose folders
/// are below the data root. One by one, by their ids.
fn kill_all_below(folder: &Path) {
    for pid in processes_of(folder) {
        signal(pid, libc::SIGKILL);
    }
    for container in std::fs::read_dir(folder.join("data/containers")).into_iter().flatten().flatten() {
        groups_of(&container.file_name().to_string_lossy()).iter().for_each(|group| clear_group(group));
    }
}

/// The control groups of a container that exist, in every hierarchy.
pub(crate) fn groups_of(container: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let groups = hierarchies.chain([root.to_owned()]).map(|at| at.join("docker").join(container));
    groups.filter(|group| group.exists()).collect()
}

/// Kills the members of a control group and removes it once they are gone.
fn clear_group(group: &Path) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        members.lines().filter_map(|pid| pid.parse().ok()).for_each(|pid| signal(pid, libc::SIGKILL));
        if std::fs::remove_dir(group).is_ok() || !group.exists() || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Daemons and shims of a host: their program, their working folder or their command line is below its folder.
pub(crate) fn processes_of(folder: &Path) -> Vec<u32> {
    let text = folder.to_string_lossy().into_owned();
    let ours = |process: &Path| {
        let below =
            |link: &str| std::fs::read_link(process.join(link)).is_ok_and(|at| at.starts_with(folder));
        let command_line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        below("exe") || below("cwd") || String::from_utf8_lossy(&command_line).contains(&text)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter(|process| ours(&process.path()));
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).collect()
}

fn unmount_all_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let folder = folder.to_string_lossy();
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&*folder));
    let mut below: Vec<&str> = below.collect();
    below.reverse();
    for mount in below {
        let _ = Command::new("umount").args(["--lazy", mount]).status();
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What a program of the system prints.
pub(crate) fn printed(words: &[&str]) -> Result<String, String> {
    let output = Command::new(words[0]).args(&words[1..]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
