//! Writing a merged tree to a folder of the host.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fgetxattr, flistxattr, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, readlinkat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::merged::{Dir, Node, is};

/// Deepest folder that is copied: each level holds file descriptors.
const DEPTH_LIMIT: usize = 256;

/// Attributes that describe a layer rather than the file.
const OVERLAY_ATTRIBUTES: &[u8] = b"trusted.overlay.";

/// Where each file with several names was written first: by device and inode.
type Written = BTreeMap<(u64, u64), (OwnedFd, CString)>;

/// Copies the content and the properties of `from` to the folder `into`.
pub(super) fn into_existing(from: &Dir, into: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let into = openat(CWD, into, flags, Mode::empty())?;
    copy_dir(from, &into, &mut Written::new(), 0)
}

fn copy_dir(from: &Dir, into: &OwnedFd, written: &mut Written, depth: usize) -> io::Result<()> {
    if depth > DEPTH_LIMIT {
        return Err(Errno::NAMETOOLONG.into());
    }
    for (name, node) in from.entries()? {
        match node {
            Node::Dir(dir) => {
                mkdirat(into, &name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(into, &name, flags, Mode::empty())?;
                copy_dir(&dir, &made, written, depth + 1)?;
            }
            Node::Leaf { parent, name, stat } => copy_leaf(&parent, &name, &stat, into, written)?,
        }
    }
    // Last, because the entries above changed the folder's times.
    let top = from.0.first().expect("a merged folder is made of at least one");
    copy_properties(top.as_fd(), into.as_fd(), &rustix::fs::fstat(top)?)
}

fn copy_leaf(
    parent: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    into: &OwnedFd,
    written: &mut Written,
) -> io::Result<()> {
    let identity = (stat.st_dev, stat.st_ino);
    if let Some((first_dir, first_name)) = written.get(&identity) {
        return Ok(linkat(first_dir, first_name, into, name, AtFlags::empty())?);
    }
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let source =
                openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = openat(into, name, flags, Mode::RUSR | Mode::WUSR)?;
            let (mut source, mut copy) = (File::from(source), File::from(copy));
            // The standard library lets the kernel copy (copy_file_range, which may share blocks).
            io::copy(&mut source, &mut copy)?;
            copy_properties(source.as_fd(), copy.as_fd(), stat)?;
        }
        FileType::Symlink => {
            symlinkat(readlinkat(parent, name, Vec::new())?, into, name)?;
            chownat(into, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            mknodat(into, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            chownat(into, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
            set_mode_of_node(into, name, kind, stat)?;
            utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // A socket without its listener is nothing.
        _ => return Ok(()),
    }
    if stat.st_nlink > 1 && !is(stat, FileType::Directory) {
        written.insert(identity, (into.try_clone()?, name.to_owned()));
    }
    Ok(())
}

/// Gives a node its mode, despite the umask. A container that runs on the same volume could have put a link to a file
/// of the host in its place: the mode is changed through a descriptor of what was seen to be the node.
fn set_mode_of_node(into: &OwnedFd, name: &CStr, kind: FileType, stat: &Stat) -> io::Result<()> {
    let node = openat(into, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !is(&rustix::fs::fstat(&node)?, kind) {
        return Err(io::Error::other(format!("{name:?} of the volume was replaced while it was filled")));
    }
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(stat.st_mode))?)
}

/// Gives an open file the owner, mode, attributes and times of another.
fn copy_properties(from: BorrowedFd<'_>, into: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(into, Mode::from_raw_mode(stat.st_mode))?;
    for name in attribute_names(from)? {
        let value = attribute(from, &name)?;
        match fsetxattr(into, &*name, &value, XattrFlags::empty()) {
            // The folder's file system may hold fewer kinds than the image's.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(futimens(into, &times(stat))?)
}

fn attribute_names(file: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // The kernel's limit (xattr(7)).
    let mut names = vec![0; 65_536];
    let length = match flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let wanted = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(OVERLAY_ATTRIBUTES));
    Ok(wanted.map(|name| CString::new(name).expect("it was split at every zero")).collect())
}

fn attribute(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 65_536];
    let length = fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// The times of a file, to be given to another.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.try_into().expect("nanoseconds of a file are below 10^9"),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_link_put_in_a_node_s_place_changes_no_mode_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let into = openat(CWD, dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        mknodat(&into, c"pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let mut stat = rustix::fs::statat(&into, c"pipe", AtFlags::SYMLINK_NOFOLLOW).unwrap();
        stat.st_mode |= 0o666;
        set_mode_of_node(&into, c"pipe", FileType::Fifo, &stat).unwrap();
        let mode =
            |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("pipe"), 0o666);
        std::fs::remove_file(dir.path().join("pipe")).unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("pipe")).unwrap();
        set_mode_of_node(&into, c"pipe", FileType::Fifo, &stat).unwrap_err();
        assert_eq!(mode("secret"), 0o600);
    }
}
