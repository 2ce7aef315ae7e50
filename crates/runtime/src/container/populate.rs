//! Docker's rule for new volumes: an empty one first receives what the image has at its place.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timestamps, XattrFlags};

use super::mounts::Root;

const READ_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies the folder `target` of `root`, if there is one, into `volume`, if that is empty: files, folders, links, nodes, with
/// owner, mode, times and extended attributes. A file that is linked twice becomes two.
pub fn populate(root: &Root, target: &Path, volume: &OwnedFd) -> io::Result<()> {
    let source = match root.open(target, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        opened => opened?,
    };
    // The volume came as a bare mount; reading it needs a real opening.
    let volume = rustix::fs::openat(volume, c".", READ_FOLDER & !OFlags::NOFOLLOW, Mode::empty())?;
    if names(&volume)?.next().is_some() {
        return Ok(());
    }
    copy_folder(&source, &volume)?;
    copy_attributes(&source, &volume)
}

fn names(folder: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<std::ffi::CString>>> {
    let entries = Dir::read_from(folder)?.map(|entry| Ok(entry?.file_name().to_owned()));
    Ok(entries.filter(|name| !name.as_ref().is_ok_and(|name| matches!(name.to_bytes(), b"." | b".."))))
}

fn copy_folder(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for name in names(from)? {
        copy_entry(from, to, &name?)?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let source = rustix::fs::openat(from, name, READ_FOLDER, Mode::empty())?;
            let made = rustix::fs::openat(to, name, READ_FOLDER, Mode::empty())?;
            copy_folder(&source, &made)?;
            copy_attributes(&source, &made)
        }
        FileType::RegularFile => {
            let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let source = rustix::fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty())?;
            let made = rustix::fs::openat(
                to,
                name,
                flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
                Mode::RUSR,
            )?;
            let mut source = std::fs::File::from(source);
            let mut made = std::fs::File::from(made);
            io::copy(&mut source, &mut made)?;
            copy_attributes(&source.into(), &made.into())
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
            copy_owner_and_times(to, name, &status)
        }
        kind => {
            // The umask is empty. No chmod by name: who shares the volume could have put a link there.
            rustix::fs::mknodat(to, name, kind, mode, status.st_rdev)?;
            copy_owner_and_times(to, name, &status)
        }
    }
}

fn owner(status: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(status.st_uid)), Some(rustix::fs::Gid::from_raw(status.st_gid)))
}

fn times(status: &Stat) -> Timestamps {
    let at = |seconds: i64, nanos| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    Timestamps {
        last_access: at(status.st_atime as _, status.st_atime_nsec),
        last_modification: at(status.st_mtime as _, status.st_mtime_nsec),
    }
}

fn copy_owner_and_times(to: &OwnedFd, name: &CStr, status: &Stat) -> io::Result<()> {
    let (user, group) = owner(status);
    rustix::fs::chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(to, name, &times(status), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner, mode, extended attributes and times of an open file or folder.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let status = rustix::fs::fstat(from)?;
    let (user, group) = owner(&status);
    rustix::fs::fchown(to, user, group)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    copy_extended_attributes(from.as_fd(), to.as_fd())?;
    Ok(rustix::fs::futimens(to, &times(&status))?)
}

fn copy_extended_attributes(from: impl AsFd + Copy, to: impl AsFd + Copy) -> io::Result<()> {
    let mut names = vec![0; 4096];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0; 65536];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Those of overlayfs belong to the layer, not to the file.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            set => set?,
        }
    }
    Ok(())
}
