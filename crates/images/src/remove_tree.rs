//! Removing folders that strangers filled.
//!
//! An archive can make folders deeper than a stack or a table of open files reaches. So nothing here
//! recurses: folders inside are moved up next to the tree first, and then are trees themselves.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::error::StoreError;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Removes the file or folder `path` with all that is in it, at whatever depth; done if it is not there. A symbolic
/// link is removed itself, not its target. What is cut off by a crash, the next call goes on with.
pub fn remove_all(path: &Path) -> std::io::Result<()> {
    let remove = || -> Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
        let parent = rustix::fs::openat(CWD, parent, FOLDER, Mode::empty())?;
        remove_child(&parent, name.as_encoded_bytes())
    };
    match remove() {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// As [`remove_all`], of what `name` stands for in an open folder; an error if there is nothing.
pub fn remove_in(folder: impl AsFd, name: &[u8]) -> std::io::Result<()> {
    Ok(remove_child(folder, name)?)
}

/// As [`remove_all`], with the store's error.
pub(crate) fn remove_tree(path: &Path) -> std::result::Result<(), StoreError> {
    remove_all(path).map_err(StoreError::at("removing", path))
}

/// Removes what `name` stands for in the folder `parent`; a symbolic link itself, not its target.
pub(crate) fn remove_child(parent: impl AsFd, name: &[u8]) -> Result<()> {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        removed => return removed,
    }
    if rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
        return Ok(());
    }
    let top = rustix::fs::openat(parent, name, FOLDER, Mode::empty())?;
    let mut moved = 0u64;
    // Each round empties the top folder of all but folders moved up from deeper down; ends as depth does.
    while empty(&top, &top, &mut moved)? {}
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes what is in `folder`; folders that are not empty have their own folders moved up into `top`
/// and go the same way. Whether something was moved up.
fn empty(folder: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> Result<bool> {
    let before = *moved;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                removed => {
                    removed?;
                    continue;
                }
            }
        }
        let child = rustix::fs::openat(folder, name, FOLDER, Mode::empty())?;
        lift(&child, top, moved)?;
        rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?;
    }
    Ok(*moved > before)
}

/// Removes the files of `folder`, and moves its folders up into `top`.
fn lift(folder: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            removed => {
                removed?;
                continue;
            }
        }
        if rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        loop {
            *moved += 1;
            let target = format!(".lifted-{moved}");
            match rustix::fs::renameat_with(folder, name, top, target, rustix::fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                renamed => {
                    renamed?;
                    break;
                }
            }
        }
    }
    Ok(())
}
