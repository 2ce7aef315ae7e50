//! Owner, mode, extended attributes and times of what was unpacked.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::OPAQUE_ATTRIBUTE;
use crate::tar::{Entry, Kind};

/// What a name stands for, as far as unpacking cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Directory,
    Whiteout,
    Other,
}

pub(super) fn kind_of(parent: impl AsFd, name: &[u8]) -> Result<Found> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Directory,
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
        _ => Found::Other,
    })
}

/// Whether two names, each in its folder, stand for one file.
pub(super) fn is_same(one: (BorrowedFd<'_>, &[u8]), other: (BorrowedFd<'_>, &[u8])) -> bool {
    let identity = |(parent, name): (BorrowedFd<'_>, &[u8])| {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    identity(one).is_some() && identity(one) == identity(other)
}

pub(super) fn make_whiteout(parent: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

pub(super) fn set_opaque(folder: impl AsFd) -> Result<()> {
    rustix::fs::fsetxattr(folder, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
}

/// Gives an open file or folder what its entry says.
pub(super) fn apply(file: impl AsFd, entry: &Entry) -> Result<()> {
    let file = file.as_fd();
    // The order matters: a new owner clears set-user-id and capabilities.
    rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    for (name, value) in wanted_xattrs(entry) {
        ignore_unsupported(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    rustix::fs::futimens(file, &times(entry))
}

/// Gives a symbolic link, device or pipe what its entry says. It is never opened: that could block, or do
/// something to the device.
pub(super) fn apply_at(parent: impl AsFd, name: &[u8], entry: &Entry) -> Result<()> {
    let parent = parent.as_fd();
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    for (attribute, value) in wanted_xattrs(entry) {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        path.push(OsStr::from_bytes(name));
        // Of these kinds the kernel refuses user attributes.
        match rustix::fs::lsetxattr(&path, attribute, value, XattrFlags::empty()) {
            Err(Errno::PERM) if attribute.starts_with(b"user.") => {}
            set => ignore_unsupported(set)?,
        }
    }
    if entry.kind != Kind::Symlink {
        // Just made by us, so that it is no link.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
}

/// All but those by which an archive could steer overlayfs, or the system. As containerd.
fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(|(name, _)| !name.starts_with(b"trusted.") && !name.starts_with(b"user.overlay."))
}

/// As Docker: what the file system cannot keep is left out.
fn ignore_unsupported(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

fn times(entry: &Entry) -> Timestamps {
    // As Docker: times before 1970 count as 1970.
    let (seconds, nanos) = if entry.mtime.0 < 0 { (0, 0) } else { entry.mtime };
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
