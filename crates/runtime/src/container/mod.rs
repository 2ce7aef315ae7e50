//! What happens in a new process between its clone and its program: the inside of a container is built here.
//!
//! Nothing here returns to the shim's code: a process ends in its program, or with a message on the sync socket.

mod mounts;
mod pid1;
mod populate;
mod process;
mod protect;
mod rootfs;
mod terminal;
mod user;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::cgroup::{Group, Layout};
use crate::protocol::Failure;
use crate::spec::{ContainerSpec, NetworkNamespace, Process};
use crate::sys::{self, Instruction};
use mounts::Root;
#[cfg(test)]
pub use mounts::filesystem;

/// First byte of a message on the sync socket: a terminal comes with it.
pub const SYNC_TERMINAL: u8 = b'T';
/// First byte of a message on the sync socket: a [`Failure`] as JSON follows.
pub const SYNC_FAILURE: u8 = b'F';

/// Bytes of a failure's text on the sync socket, which carries a message whole or not at all: a name may be as long as
/// its user likes, and escapes make six bytes of one.
const MESSAGE_LIMIT: usize = 4 << 10;
/// The longest message on the sync socket.
pub const SYNC_LIMIT: usize = 8 * MESSAGE_LIMIT;

/// A new process's ends of its pipes. Without one, standard input is the null device; a terminal stands for all.
#[derive(Debug, Default)]
pub struct Stdio {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// What a new process needs to become what it should.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Its place among the cgroups.
    pub group: Group<'a>,
    /// Whether the clone placed it in the v2 tree already.
    pub born_into_unified: bool,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// Its system call filter; empty is none.
    pub filter: &'a [Instruction],
    /// Its pipes.
    pub stdio: Stdio,
    /// A packet socket to the shim; its end of file means that the program runs.
    pub sync: OwnedFd,
}

impl Launch<'_> {
    /// What must be done while the host's files are in sight.
    fn leave_host(&self) -> Result<(), Failure> {
        rustix::process::setsid().map_err(|error| Failure::new("setsid", error))?;
        // Not the daemon's keys.
        sys::join_new_session_keyring().map_err(|error| Failure::new("joining a session keyring", error))?;
        self.group
            .join(self.born_into_unified)
            .map_err(|error| Failure::new("unable to apply cgroup configuration", error))?;
        std::fs::write("/proc/self/oom_score_adj", self.oom_score_adj.to_string())
            .map_err(|error| Failure::new("setting oom_score_adj", error))
    }

    /// Connects the standard streams, inside the container.
    fn connect(&self, root: &Root, process: &Process, console: bool) -> Result<(), Failure> {
        if process.tty {
            let terminal = terminal::open(root, process.tty_size)?;
            if console {
                terminal::mount_console(root, &terminal)?;
            }
            send(self.sync.as_fd(), &[SYNC_TERMINAL], Some(terminal.master.as_fd()))
                .map_err(|error| Failure::new("sending the terminal", error))?;
            return terminal::become_controlling(&terminal);
        }
        let connect = || -> io::Result<()> {
            match &self.stdio.stdin {
                Some(stdin) => rustix::stdio::dup2_stdin(stdin)?,
                None => rustix::stdio::dup2_stdin(root.open(Path::new("/dev/null"), OFlags::RDWR)?)?,
            }
            if let (Some(stdout), Some(stderr)) = (&self.stdio.stdout, &self.stdio.stderr) {
                rustix::stdio::dup2_stdout(stdout)?;
                rustix::stdio::dup2_stderr(stderr)?;
            }
            Ok(())
        };
        connect().map_err(|error| Failure::new("connecting standard streams", error))
    }

    fn report(&self, failure: &Failure) -> ! {
        let mut message = vec![SYNC_FAILURE];
        message.extend(serde_json::to_vec(&failure.shortened(MESSAGE_LIMIT)).unwrap_or_default());
        // Without anybody left to tell, the exit code is all that remains.
        let _ = send(self.sync.as_fd(), &message, None);
        sys::exit(1)
    }
}

/// Sends a message, with a descriptor if there is one.
fn send(socket: BorrowedFd<'_>, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The first process of a container. It has new mount, pid, ipc and uts namespaces, and runs in a folder that
/// its root can be mounted on.
pub fn start(spec: &ContainerSpec, layout: &Layout, launch: Launch<'_>) -> ! {
    let failure = match build(spec, layout, &launch) {
        Ok(environment) if spec.init => pid1::run(&spec.process, &environment),
        Ok(environment) => process::execute(&spec.process, &environment),
        Err(failure) => failure,
    };
    launch.report(&failure)
}

/// Builds the container around the calling process. Returns the program's environment.
fn build(spec: &ContainerSpec, layout: &Layout, launch: &Launch<'_>) -> Result<Vec<String>, Failure> {
    crate::shim::IGNORED_SIGNALS.into_iter().for_each(sys::reset_signal);
    // Exact modes of the nodes and folders that are made.
    rustix::process::umask(rustix::fs::Mode::empty());
    launch.leave_host()?;
    enter_network(&spec.network)?;
    if layout.is_v2() {
        unshare(UnshareFlags::NEWCGROUP).map_err(|error| Failure::new("unshare cgroup namespace", error))?;
    }
    let named = |what| move |error| Failure::new(what, error);
    rustix::system::sethostname(spec.hostname.as_bytes()).map_err(named("sethostname"))?;
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes()).map_err(named("setdomainname"))?;
    }
    let root = rootfs::set_up(spec, layout)?;
    launch.connect(&root, &spec.process, true)?;
    if spec.rootfs.read_only {
        rootfs::seal(&root)?;
    }
    process::restrict(&spec.process, launch.filter)
}

#[expect(deprecated, reason = "its successor is unsafe for flags that this never passes")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

fn enter_network(network: &NetworkNamespace) -> Result<(), Failure> {
    let NetworkNamespace::Path(path) = network else { return Ok(()) };
    let enter = || -> io::Result<()> {
        let namespace = std::fs::File::open(path)?;
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?)
    };
    enter().map_err(|error| Failure::new(format_args!("joining network namespace {path:?}"), error))
}

/// One more process of a container. It has the container's pid namespace; `init` is a pidfd of PID 1 there.
pub fn enter(init: BorrowedFd<'_>, own_cgroup_namespace: bool, process: &Process, launch: Launch<'_>) -> ! {
    let entered = (|| {
        crate::shim::IGNORED_SIGNALS.into_iter().for_each(sys::reset_signal);
        launch.leave_host()?;
        let mut spaces = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::NETWORK;
        spaces.set(ThreadNameSpaceType::CONTROL_GROUP, own_cgroup_namespace);
        rustix::thread::move_into_thread_name_spaces(init, spaces)
            .map_err(|error| Failure::new("setns", error))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty());
        let root = Root(root.map_err(|error| Failure::new("open /", error))?);
        launch.connect(&root, process, false)?;
        process::restrict(process, launch.filter)
    })();
    let failure = match entered {
        Ok(environment) => process::execute(process, &environment),
        Err(failure) => failure,
    };
    launch.report(&failure)
}
