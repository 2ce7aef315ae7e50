//! Network namespaces: made, entered and forgotten by one helper thread.
//!
//! A thread's namespace is its own. The helper visits a namespace for one job and comes home again, so that no other
//! thread of the daemon is ever anywhere else, and no thread is started for each container.
#![expect(unsafe_code, reason = "unshare is unsafe to call; see its one use")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::netlink::{Messages, Socket, Subsystem};
use crate::route;

/// The namespace of the thread that looks.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// What `statfs` says of a namespace's file.
const NAMESPACE_FILE_SYSTEM: rustix::fs::FsWord = 0x6e73_6673;

type Job = Box<dyn FnOnce() + Send>;

/// The helper thread. It lives in the network namespace of the thread that started it.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the helper.
    pub(crate) fn start() -> io::Result<Worker> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("skep-netns".to_owned())
            .spawn(move || inbox.into_iter().for_each(|job| job()))?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Makes a new network namespace with its loopback up, and binds it to the file `path`, which exists.
    pub(crate) fn create(&self, path: PathBuf) -> io::Result<()> {
        self.away(move || {
            // SAFETY: CLONE_NEWNET neither unshares memory, files nor signal handlers; it only changes which
            // network this helper thread sees, which nothing else depends on.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            disable_ipv6()?;
            let mut socket = Socket::open(Subsystem::Route)?;
            let mut messages = Messages::default();
            route::bring_up(&mut messages, "lo", None);
            socket.transact(messages)?;
            Ok(rustix::mount::mount_bind(OWN_NAMESPACE, &path)?)
        })
    }

    /// Does `work` with a route socket of the given namespace.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        namespace: OwnedFd,
        work: impl FnOnce(&mut Socket) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.away(move || {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work(&mut Socket::open(Subsystem::Route)?)
        })
    }

    /// Opens a netfilter socket of the given namespace that any thread may use. Connections are tracked there as rules
    /// that rewrite destinations need it.
    pub(crate) fn netfilter(&self, namespace: OwnedFd) -> io::Result<Socket> {
        self.away(move || {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            track_liberally();
            Socket::open(Subsystem::Netfilter)
        })
    }

    /// Runs `work`, which may leave the helper's namespace, and brings the helper home.
    fn away<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the namespace helper thread has ended");
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            let result = own().and_then(|home| {
                let result = work();
                // A helper that cannot come home would do its next job in a stranger's network.
                rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("the namespace that a thread came from takes it back");
                result
            });
            // The asker waits for the answer, unless its thread was killed.
            let _ = answer.send(result);
        });
        self.jobs.as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the helper was reported to whoever asked for the job.
            let _ = thread.join();
        }
    }
}

/// Interfaces that come into the calling thread's namespace get no IPv6 address by themselves; loopback keeps its own.
/// As Docker does for networks without IPv6: a container must not find, or be found by, what no network gave it.
fn disable_ipv6() -> io::Result<()> {
    match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
        // A kernel without IPv6 has nothing to disable.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets an interface of the calling thread's namespace have IPv6 addresses, and none that routers on the link hand out.
pub(crate) fn enable_ipv6(interface: &str) -> io::Result<()> {
    let settings = format!("/proc/sys/net/ipv6/conf/{interface}");
    fs::write(format!("{settings}/accept_ra"), "0")?;
    fs::write(format!("{settings}/disable_ipv6"), "0")
}

/// Turns forwarding of IPv6 on for the calling thread's namespace. Interfaces that listen to routers go on to do so, which
/// Linux else ends with this.
pub(crate) fn forward_ipv6() -> io::Result<()> {
    const FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    const ALSO_WHEN_FORWARDING: &str = "2";
    if fs::read(FORWARDING)?.starts_with(b"1") {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let setting = entry?.path().join("accept_ra");
        if fs::read(&setting).is_ok_and(|value| value.starts_with(b"1")) {
            fs::write(&setting, ALSO_WHEN_FORWARDING)?;
        }
    }
    fs::write(FORWARDING, "1")
}

/// A TCP packet that is out of its connection's window, such as a late repetition, is still rewritten as its connection is.
/// Otherwise it goes out as it came in, is answered with a reset, and the connection ends: kube-proxy's users met that.
fn track_liberally() {
    // Without the setting connections are as good as Linux makes them.
    let _ = fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1");
}

/// The namespace of the calling thread.
fn own() -> io::Result<OwnedFd> {
    Ok(File::open(OWN_NAMESPACE)?.into())
}

/// Opens the namespace that is bound to `path`; `None` when nothing, or no namespace, is there.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file_system = rustix::fs::fstatfs(&file)?.f_type;
    Ok((file_system == NAMESPACE_FILE_SYSTEM).then(|| file.into()))
}

/// Makes the file to which a namespace will be bound. One that a crash left is used again.
pub(crate) fn place(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map(drop)
}

/// Takes the name of a namespace away; it ends with its last process. Idempotent.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        // Not a mount point: a crash came between the file and its mount.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
