//! A terminal for a container's process, made in the container's own devpts.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::mounts::{self, Root};
use crate::protocol::Failure;

/// Both ends.
#[derive(Debug)]
pub struct Terminal {
    /// The shim's.
    pub master: OwnedFd,
    /// The process's.
    pub slave: OwnedFd,
}

/// What statfs(2) says of devpts.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Opens a new terminal of this many rows and columns.
pub fn open(root: &Root, size: Option<(u16, u16)>) -> Result<Terminal, Failure> {
    let open = || -> io::Result<Terminal> {
        let master = root.open(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?;
        if rustix::fs::fstatfs(&master)?.f_type as u64 != DEVPTS_MAGIC {
            return Err(io::Error::other("/dev/pts/ptmx is no terminal multiplexer"));
        }
        rustix::pty::unlockpt(&master)?;
        // By descriptor, not by name: nothing in the container can come between.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if let Some((rows, columns)) = size {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        Ok(Terminal { master, slave })
    };
    open().map_err(|error| Failure::new("opening a terminal", error))
}

/// Makes it appear as /dev/console.
pub fn mount_console(root: &Root, terminal: &Terminal) -> Result<(), Failure> {
    let mount = || {
        let place = root.file(Path::new("/dev/console"))?;
        mounts::put(mounts::copy(&terminal.slave, Path::new(""), false)?, place)
    };
    mount().map_err(|error| Failure::new("mounting /dev/console", error))
}

/// Makes it the controlling terminal of this session, and its standard streams.
pub fn become_controlling(terminal: &Terminal) -> Result<(), Failure> {
    let connect = || -> io::Result<()> {
        rustix::process::ioctl_tiocsctty(&terminal.slave)?;
        rustix::stdio::dup2_stdin(&terminal.slave)?;
        rustix::stdio::dup2_stdout(&terminal.slave)?;
        Ok(rustix::stdio::dup2_stderr(&terminal.slave)?)
    };
    connect().map_err(|error| Failure::new("setting the controlling terminal", error))
}
