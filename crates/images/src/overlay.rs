//! Whether overlayfs works where the layers are.
//!
//! The mount made here is never attached to any tree: it is a descriptor, and goes when that is closed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::OpenError;
use crate::remove_tree::remove_tree;
use crate::unpack::OPAQUE_ATTRIBUTE;

/// Stacks a layer with a whiteout and an opaque folder on another one, and writes on top. On a full disk
/// it proves nothing and refuses nothing, so that images can still be removed.
pub(crate) fn check(root: &Path) -> Result<(), OpenError> {
    let folder = root.join("tmp").join("overlay-check");
    let checked = try_stack(&folder);
    let removed = remove_tree(&folder);
    match checked {
        Err((_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))) | Ok(()) => Ok(removed?),
        Err((problem, _)) => Err(OpenError::Overlay { path: root.to_owned(), problem }),
    }
}

/// What failed, and with which kind of error if with one.
fn try_stack(folder: &Path) -> Result<(), (String, Option<io::ErrorKind>)> {
    let step = |name: &'static str| move |error: io::Error| (format!("{name}: {error}"), Some(error.kind()));
    let prepare = || -> io::Result<OwnedFd> {
        for name in ["low/opaque", "high/opaque", "upper", "work"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("low/hidden"), "")?;
        fs::write(folder.join("low/opaque/hidden"), "")?;
        let whiteout = folder.join("high/hidden");
        rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0)?;
        rustix::fs::setxattr(folder.join("high/opaque"), OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())?;
        Ok(rustix::fs::openat(
            CWD,
            folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    };
    let base = prepare().map_err(step("preparing folders"))?;
    let mount = mount(&base).map_err(|error| step("mounting")(error.into()))?;
    let is_hidden =
        |name: &str| matches!(rustix::fs::statat(&mount, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT));
    if !is_hidden("hidden") || !is_hidden("opaque/hidden") {
        return Err(("whiteouts hide nothing".to_owned(), None));
    }
    let written = rustix::fs::openat(&mount, "opaque/new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    written.map(drop).map_err(|error| step("writing")(error.into()))
}

fn mount(base: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    // Short, whatever the path of the store: a value may have 255 bytes.
    let path = |name: &str| format!("/proc/self/fd/{}/{name}", base.as_raw_fd());
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: String| rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
    set("lowerdir", format!("{}:{}", path("high"), path("low")))?;
    set("upperdir", path("upper"))?;
    set("workdir", path("work"))?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
