//! Copying files between trees that are not to be trusted: what a client sent, and images.
//!
//! Every path is resolved by the kernel with the tree's top as its root (`RESOLVE_IN_ROOT`): neither `..` nor a symbolic
//! link leads out of it.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::copy_up::times;

/// Deepest folder that is copied: each level holds descriptors.
const DEPTH_LIMIT: usize = 256;
/// The kernel's limit of symbolic links in one path.
const LINK_LIMIT: usize = 40;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// What copies are like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copying {
    /// Whose they are; `None` leaves them whose they were.
    pub(super) owner: Option<(u32, u32)>,
    /// Their mode; `None` leaves it.
    pub(super) mode: Option<u32>,
}

/// Opens what `path` means in a tree, links followed within it.
pub(super) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), WITHIN) {
            // The kernel could not rule out a rename meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// Opens a folder, making it and those above it where they are missing, for `owner`. Whether it was there.
pub(super) fn make_folder(
    root: BorrowedFd<'_>,
    path: &str,
    owner: (u32, u32),
) -> io::Result<(OwnedFd, bool)> {
    if let Ok(folder) = open(root, path, FOLDER) {
        return Ok((folder, true));
    }
    let mut here = open(root, "", FOLDER)?;
    let mut prefix = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        prefix.push('/');
        prefix.push_str(name);
        here = match open(root, &prefix, FOLDER) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&here, name, Mode::RWXU)?;
                let made = rustix::fs::openat(&here, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                rustix::fs::fchown(&made, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                made
            }
            opened => opened?,
        };
    }
    Ok((here, false))
}

/// The path that a path means once the links at its end are followed.
pub(super) fn settle(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let mut path = path.to_owned();
    for _ in 0..LINK_LIMIT {
        let (parent, name) = split(&path);
        let Ok(folder) = open(root, parent, FOLDER) else { return Ok(path) };
        let Ok(link) = rustix::fs::readlinkat(&folder, name, Vec::new()) else { return Ok(path) };
        let link = link.into_string().map_err(|_| io::Error::from(Errno::ILSEQ))?;
        path = if link.starts_with('/') { link } else { format!("{parent}/{link}") };
    }
    Err(Errno::LOOP.into())
}

/// Parent and name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path))
}

/// Copies one file, whatever its kind but a folder, to `name` in the folder `into`, in place of what is there.
pub(super) fn copy_file(
    from: &OwnedFd,
    name: &CStr,
    into: &OwnedFd,
    to: &str,
    copying: Copying,
) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Copier { copying, written: BTreeMap::new() }.leaf(from, name, &stat, into, &CString::new(to)?)
}

/// Writes a file that comes from nowhere.
pub(super) fn write_file(into: &OwnedFd, to: &str, content: &[u8], copying: Copying) -> io::Result<()> {
    let name = CString::new(to)?;
    remove(into, &name)?;
    let mut file = File::from(create(into, &name)?);
    io::Write::write_all(&mut file, content)?;
    let (uid, gid) = copying.owner.unwrap_or_default();
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(copying.mode.unwrap_or(0o644)))?)
}

/// Copies what is in a folder into another, over what is there.
pub(super) fn copy_folder(from: &OwnedFd, into: &OwnedFd, copying: Copying) -> io::Result<()> {
    Copier { copying, written: BTreeMap::new() }.contents(from, into, 0)
}

struct Copier {
    copying: Copying,
    /// Where each file with several names was written first: by device and inode.
    written: BTreeMap<(u64, u64), (OwnedFd, CString)>,
}

impl Copier {
    fn contents(&mut self, from: &OwnedFd, into: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth > DEPTH_LIMIT {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in names(from)? {
            let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let child = rustix::fs::openat(from, &name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                let made = enter(into, &name)?;
                self.contents(&child, &made, depth + 1)?;
                self.properties(child.as_fd(), made.as_fd(), &stat)?;
            } else {
                self.leaf(from, &name, &stat, into, &name)?;
            }
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        from: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        into: &OwnedFd,
        to: &CStr,
    ) -> io::Result<()> {
        remove(into, to)?;
        let identity = (stat.st_dev, stat.st_ino);
        if let Some((folder, first)) = self.written.get(&identity) {
            return Ok(rustix::fs::linkat(folder, first, into, to, AtFlags::empty())?);
        }
        let (uid, gid) = self.copying.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
                let mut copy = File::from(create(into, to)?);
                // The standard library lets the kernel copy, which may share blocks.
                io::copy(&mut source, &mut copy)?;
                self.properties(source.as_fd(), copy.as_fd(), stat)?;
            }
            FileType::Symlink => {
                rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, into, to)?;
                rustix::fs::chownat(into, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::utimensat(into, to, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                rustix::fs::mknodat(into, to, kind, Mode::empty(), stat.st_rdev)?;
                rustix::fs::chownat(into, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                let mode = self.copying.mode.unwrap_or(stat.st_mode & 0o7777);
                rustix::fs::chmodat(into, to, Mode::from_raw_mode(mode), AtFlags::empty())?;
                rustix::fs::utimensat(into, to, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // A socket without its listener is nothing.
            _ => return Ok(()),
        }
        if stat.st_nlink > 1 {
            self.written.insert(identity, (into.try_clone()?, to.to_owned()));
        }
        Ok(())
    }

    /// Gives a copy what its original has. A new owner comes last: it takes set-user-id and capabilities from a program, as in
    /// Docker.
    fn properties(&self, from: BorrowedFd<'_>, copy: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        let own = |(uid, gid): (u32, u32)| {
            rustix::fs::fchown(copy, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        };
        own((stat.st_uid, stat.st_gid))?;
        rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        let capability = "security.capability";
        let mut value = [0; 64];
        if let Ok(length) = rustix::fs::fgetxattr(from, capability, &mut value[..]) {
            rustix::fs::fsetxattr(copy, capability, &value[..length], XattrFlags::empty())?;
        }
        if let Some(owner) = self.copying.owner {
            own(owner)?;
        }
        if let Some(mode) = self.copying.mode {
            rustix::fs::fchmod(copy, Mode::from_raw_mode(mode))?;
        }
        Ok(rustix::fs::futimens(copy, &times(stat))?)
    }
}

/// Opens a folder to copy into, in place of anything else by that name.
fn enter(into: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let open = || rustix::fs::openat(into, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        Ok(folder) => return Ok(folder),
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => remove(into, name)?,
        Err(error) => return Err(error.into()),
    }
    rustix::fs::mkdirat(into, name, Mode::RWXU)?;
    Ok(open()?)
}

fn create(into: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(into, name, flags, Mode::RUSR | Mode::WUSR)
}

fn remove(into: &OwnedFd, name: &CStr) -> io::Result<()> {
    match skep_images::remove_in(into, name.to_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The names in a folder, in order.
pub(super) fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A path by which the kernel opens what is open already.
pub(super) fn by_descriptor(file: &OwnedFd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
