//! The nursery: the one process that the daemon executes to have shims forked from.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::connection::Connection;
use crate::shim::NURSERY;
use crate::sys::{self, MountAttributes};

/// Knows how to start a nursery, and the one that runs.
#[derive(Debug)]
pub struct Nursery {
    /// Our binary on a read-only mount that is attached nowhere.
    executable: OwnedFd,
    running: Option<OwnedFd>,
}

impl Nursery {
    /// Takes a read-only view of the executable. No process is started yet.
    pub fn new(executable: &Path) -> io::Result<Nursery> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let executable = rustix::mount::open_tree(rustix::fs::CWD, executable, flags)?;
        let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::mount_setattr(
            executable.as_fd(),
            false,
            &MountAttributes { set, ..MountAttributes::default() },
        )?;
        Ok(Nursery { executable, running: None })
    }

    /// Has a shim forked, and returns the connection to it.
    pub fn fork(&mut self) -> io::Result<Connection> {
        let pair =
            || rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, shims) = pair()?;
        if let Some(running) = &self.running
            && give(running.as_fd(), shims.as_fd()).is_ok()
        {
            return Connection::new(ours);
        }
        // The first, or one that was killed.
        let running = self.execute()?;
        give(running.as_fd(), shims.as_fd())?;
        self.running = Some(running);
        Connection::new(ours)
    }

    fn execute(&self) -> io::Result<OwnedFd> {
        let (ours, nurserys) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let path = format!("/proc/self/fd/{}", self.executable.as_raw_fd());
        let child = std::process::Command::new(path)
            .arg0("skep")
            // The last makes room for a shim to show its container's id.
            .args(["shim", NURSERY, &"-".repeat(64)])
            .env_clear()
            // One arena and no thread caches: the heap stays a few pages.
            .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0")
            .stdin(File::from(nurserys))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        // It ends with our end of the socket. Whoever waits for it is a thread that costs nothing until then.
        std::thread::Builder::new().name("nursery".to_owned()).stack_size(64 << 10).spawn(move || {
            let mut child = child;
            let _ = child.wait();
        })?;
        Ok(ours)
    }
}

/// Sends a shim its connection.
fn give(nursery: BorrowedFd<'_>, connection: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [connection];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(nursery, &[IoSlice::new(b"+")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
