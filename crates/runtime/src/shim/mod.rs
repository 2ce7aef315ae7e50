//! The shim: one small process a container, without threads, that outlives the daemon.
//!
//! The daemon runs one *nursery*: our binary re-executed once, which forks a shim for each container when asked. A shim so
//! shares the nursery's pages (relocated data, heap) instead of having its own, and starts without an exec. The
//! nursery ends with the daemon; shims do not.

mod exec;
mod log;
mod serve;
mod streams;
mod task;

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::protocol::{ATTACHED_LIMIT, FRAME_LIMIT};
use crate::sys;

/// The argument that starts a nursery.
pub const NURSERY: &str = "--nursery";

/// How little a shim likes to be killed for want of memory, as containerd's.
const OOM_SCORE_ADJ: &str = "-999";

/// Signals that nursery and shims ignore; a container's processes must not.
pub const IGNORED_SIGNALS: [i32; 4] = [libc::SIGHUP, libc::SIGPIPE, libc::SIGINT, libc::SIGTERM];

/// The body of `skep shim --nursery`: never returns. The daemon starts it; nobody types it. Its standard input is a
/// socket, each message on which brings the connection that a new shim serves.
///
/// `arguments` are those after the word `shim`.
pub fn shim_main(arguments: &[OsString]) -> ! {
    if arguments.first().is_none_or(|argument| argument != NURSERY) {
        let _ = rustix::io::write(rustix::stdio::stderr(), b"skep shim is started by skep daemon only\n");
        sys::exit(2);
    }
    settle();
    loop {
        let (length, mut descriptors) = match receive(rustix::stdio::stdin(), &mut [0]) {
            Ok(received) => received,
            Err(_) => sys::exit(1),
        };
        if length == 0 {
            sys::exit(0);
        }
        let Some(connection) = descriptors.pop() else { continue };
        // After an error the daemon sees its connection end.
        if let Ok(None) = sys::fork() {
            become_shim(connection);
        }
    }
}

/// What nursery and shims have in common.
fn settle() {
    let _ = rustix::process::setsid();
    // What the daemon inherited from whoever started it: a shim would hold it open for as long as it lives.
    let _ = sys::close_from(3);
    sys::reset_signals();
    for signal in IGNORED_SIGNALS {
        sys::ignore_signal(signal);
    }
    // Ended shims vanish by themselves; a shim itself waits for its children.
    sys::ignore_signal(libc::SIGCHLD);
    let _ = rustix::thread::set_name(c"skep-shim");
    // Nothing in a container may look into a process that is on its way there.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // Memory is so little that it is never worth a huge page.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Refused without the capability: no reason not to run.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = rustix::process::chdir("/");
}

fn become_shim(connection: OwnedFd) -> ! {
    sys::reset_signal(libc::SIGCHLD);
    let _ = rustix::process::setsid();
    if let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        // The nursery's socket: the daemon's end must not wait for shims.
        let _ = rustix::stdio::dup2_stdin(null);
    }
    sys::exit(serve::serve(connection))
}

/// Receives bytes, and descriptors that come with them.
fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHED_LIMIT))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

/// Reads a whole frame, and the descriptors that come with it; waits for it.
fn receive_frame(socket: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut all = Vec::new();
    let mut fill = |bytes: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let (received, descriptors) = receive(socket.as_fd(), &mut bytes[filled..])?;
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += received;
            all.extend(descriptors);
        }
        Ok(())
    };
    fill(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_LIMIT {
        return Err(io::Error::other("a frame is too long"));
    }
    let mut body = vec![0; length];
    fill(&mut body)?;
    Ok((body, all))
}
