//! Mounts as descriptors: made or cloned detached, set up, and only then put in their place.
//!
//! Every target is resolved inside the container's root (openat2(2)), so that no link of an image leads out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::sys::{self, MountAttributes};

/// A new file system, mounted nowhere. An option with an empty value is a flag.
pub fn filesystem(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What the first column of /proc/mounts and df say: else "none".
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context).map_err(|error| explained(&context, error))?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// An error of a file system context with what the kernel wrote about it.
pub fn explained(context: &OwnedFd, error: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(error);
    let mut text = [0; 256];
    match rustix::io::read(context, &mut text) {
        Ok(length) if length > 2 => {
            let text = String::from_utf8_lossy(&text[2..length]).trim_end().to_owned();
            io::Error::new(error.kind(), format!("{} ({text})", crate::protocol::words(&error)))
        }
        _ => error,
    }
}

/// A copy of the mount at `path` below `base`, with those below it if `recursive`, mounted nowhere.
pub fn copy(base: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    Ok(open_tree(base, path, flags)?)
}

/// A copy of a mount of the host.
pub fn copy_host(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    copy(CWD, path, recursive)
}

/// Puts a detached mount on what `target` refers to.
pub fn put(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// Makes a mount read-only, and with `recursive` all below it.
pub fn make_read_only(mount: impl AsFd, recursive: bool) -> io::Result<()> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    sys::mount_setattr(mount.as_fd(), recursive, &MountAttributes { set, ..MountAttributes::default() })
}

/// The root of a container's files.
#[derive(Debug)]
pub struct Root(pub OwnedFd);

impl Root {
    /// Opens `path` inside the root; links in it stay inside.
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        open_inside(&self.0, path, flags)
    }

    /// Opens the folder `path`, making what is missing of it; no link may be on the way (CVE-2019-19921).
    pub fn plain_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT) => self.folder(path),
            Err(rustix::io::Errno::LOOP) => Err(io::Error::other("must be mounted on ordinary directory")),
            opened => Ok(opened?),
        }
    }

    /// Opens the folder `path`, making what is missing of it.
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
        match self.open(path, FLAGS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let mut parent = self.open(Path::new("/"), FLAGS)?;
        let mut reached = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            reached.push(name);
            parent = match self.open(&reached, FLAGS) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    self.open(&reached, FLAGS)?
                }
                opened => opened?,
            };
        }
        Ok(parent)
    }

    /// Opens the file `path`, making it, empty, and what is missing of its folder.
    pub fn file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(rustix::io::Errno::ISDIR.into());
        };
        let parent = self.folder(parent)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755))?;
        self.open(path, OFlags::PATH)
    }

    /// Opens the place for `mount`: a folder for a folder, a file for anything else.
    pub fn place_for(&self, mount: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
        if is_folder(mount)? { self.folder(path) } else { self.file(path) }
    }
}

/// How often a resolution that a busy machine disturbed is begun anew.
const AGAIN_LIMIT: u32 = 10_000;

/// Opens `path` below `base` as if that were the root.
pub fn open_inside(base: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(&base, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A mount or rename elsewhere while `..` was followed: openat2(2) asks to try again.
            Err(rustix::io::Errno::AGAIN) if tries < AGAIN_LIMIT => tries += 1,
            opened => return Ok(opened?),
        }
    }
}

/// Whether this is a folder.
pub fn is_folder(descriptor: impl AsFd) -> io::Result<bool> {
    let status = rustix::fs::fstat(descriptor)?;
    Ok(rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir())
}
