//! What the kernel needs in a certain way.

#![expect(unsafe_code, reason = "closing descriptors that nobody here owns")]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// A path to a socket by its folder's descriptor: a folder's path may be longer than a socket's address.
pub(crate) struct ShortPath {
    path: PathBuf,
    _folder: OwnedFd,
}

impl ShortPath {
    /// Opens the socket's folder.
    pub(crate) fn of(socket: &Path) -> io::Result<ShortPath> {
        let folder = socket.parent().filter(|folder| *folder != OsStr::new("")).unwrap_or(Path::new("."));
        let name = socket.file_name().unwrap_or_default();
        let folder =
            rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(ShortPath { path, _folder: folder })
    }

    /// The path, while this lives.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Closes every descriptor from `first` on. Only for a process that uses none of them yet.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller is a process that has just begun and has opened nothing, so no owner is left to be surprised.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
