//! Attributes of folders that a layer has without saying what they are like.
//!
//! A layer may hold `tmp/file` and no entry for `tmp`. Overlayfs shows the topmost folder's attributes, so
//! the folder that had to be made must look like the one below, or `/tmp` would lose its sticky bit. As
//! containerd; Docker leaves 0755.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Result;

use crate::error::StoreError;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Gives the folders `implicit` of `layer` the attributes that they have in the layers `below`, topmost
/// first.
pub(crate) fn inherit(
    layer: &Path,
    implicit: &[PathBuf],
    below: &[PathBuf],
) -> std::result::Result<(), StoreError> {
    for path in implicit {
        inherit_one(layer, path, below)
            .map_err(|error| StoreError::at("setting attributes of", &layer.join(path))(error.into()))?;
    }
    Ok(())
}

fn inherit_one(layer: &Path, path: &Path, below: &[PathBuf]) -> Result<()> {
    for lower in below {
        let lower = rustix::fs::openat(CWD, lower, FOLDER, Mode::empty())?;
        let Ok(found) =
            rustix::fs::openat2(&lower, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), WITHIN)
        else {
            continue;
        };
        let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        let source = rustix::fs::openat2(&lower, path, FOLDER, Mode::empty(), WITHIN)?;
        let layer = rustix::fs::openat(CWD, layer, FOLDER, Mode::empty())?;
        // It was reached through a link of this layer: then the target has its own attributes.
        let Ok(target) = rustix::fs::openat2(&layer, path, FOLDER, Mode::empty(), WITHIN) else {
            return Ok(());
        };
        return copy(&source, &stat, &target);
    }
    Ok(())
}

fn copy(source: &OwnedFd, stat: &Stat, target: &OwnedFd) -> Result<()> {
    rustix::fs::fchown(target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    copy_xattrs(source, target)?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    rustix::fs::futimens(target, &Timestamps { last_access: time, last_modification: time })
}

fn copy_xattrs(source: impl AsFd, target: impl AsFd) -> Result<()> {
    let mut names = vec![0; 64 * 1024];
    let length = rustix::fs::flistxattr(&source, names.as_mut_slice())?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.") {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::fgetxattr(&source, name, value.as_mut_slice())?;
        rustix::fs::fsetxattr(&target, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
