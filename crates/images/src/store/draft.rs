//! An image's files as one tree that can be read and written: what a step of a build works in.
//!
//! The tree is an overlay mount that is attached nowhere: it is a descriptor, and goes when that is closed. What is
//! written to it lies in a folder of the store's `tmp/`, and becomes a layer or goes with the draft.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{Pins, Staging, Store};
use crate::ImageId;
use crate::error::{BuildError, FindError, StoreError};

/// An image's files, with room to write.
pub struct Draft {
    mount: OwnedFd,
    upper: PathBuf,
    // In this order: the layers may go only once nothing is written above them.
    staging: Staging,
    _pins: Pins,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("upper", &self.upper).finish_non_exhaustive()
    }
}

impl Store {
    /// The files of an image, or an empty tree. The image's layers stay in the store as long as the draft lives.
    ///
    /// # Errors
    /// There is no such image; the disk or the kernel is at fault.
    pub fn draft(&self, image: Option<ImageId>) -> Result<Draft, BuildError> {
        let mut pins = Pins::new(self);
        let layers = match image {
            Some(id) => self.pin_image(id, &mut pins)?,
            None => vec![self.inner.root.join("empty")],
        };
        let staging = Staging::new(self)?;
        let (upper, work) = (staging.make_folder()?, staging.make_folder()?);
        let mount = mount(&layers, &upper, &work).map_err(|error| {
            BuildError::Store(StoreError::Io {
                action: "mounting",
                path: upper.clone(),
                source: error.into(),
            })
        })?;
        Ok(Draft { mount, upper, staging, _pins: pins })
    }

    /// The layers of an image for overlayfs, topmost first, which stay in the store as long as `pins` lives.
    fn pin_image(&self, id: ImageId, pins: &mut Pins) -> Result<Vec<PathBuf>, FindError> {
        {
            let mut shared = self.lock();
            let record = shared.state.images.get(&id).ok_or_else(|| FindError::NotFound(id.to_string()))?;
            let folders: Vec<String> = record.layers.iter().map(|layer| layer.folder.clone()).collect();
            pins.add(&mut shared, folders);
        }
        self.layer_paths(&id)
    }
}

impl Draft {
    /// The top folder of the tree. Paths must be resolved within it (`RESOLVE_IN_ROOT`): what links of images say is not to be
    /// believed.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// The folder that holds what was written, and where it came from; nothing can be written any more.
    pub(super) fn into_upper(self) -> (PathBuf, Staging, Pins) {
        (self.upper, self.staging, self._pins)
    }
}

/// Stacks `layers`, topmost first, below `upper`.
fn mount(layers: &[PathBuf], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    match mount_with(layers, upper, work, true) {
        // "lowerdir+" is Linux 6.8's.
        Err(Errno::INVAL) => mount_with(layers, upper, work, false),
        mounted => mounted,
    }
}

fn mount_with(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    one_by_one: bool,
) -> rustix::io::Result<OwnedFd> {
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    // Short, whatever the path of the store: a value may have 255 bytes.
    let short = |folder: &OwnedFd| format!("/proc/self/fd/{}", folder.as_raw_fd());
    let (upper, work) = (open(upper)?, open(work)?);
    let layers = layers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
    set("source", "overlay")?;
    if one_by_one {
        layers.iter().try_for_each(|layer| set("lowerdir+", &short(layer)))?;
    } else {
        set("lowerdir", &layers.iter().map(short).collect::<Vec<_>>().join(":"))?;
    }
    set("upperdir", &short(&upper))?;
    set("workdir", &short(&work))?;
    for option in ["index", "redirect_dir", "metacopy"] {
        // What is written must stand for itself; kernels that lack an option do not do what it names.
        let _ = set(option, "off");
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Gives the top folder of a layer the attributes that every layer's has: archives do not say them.
pub(super) fn settle_root(upper: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let settle = || {
        std::os::unix::fs::chown(upper, Some(0), Some(0))?;
        fs::set_permissions(upper, fs::Permissions::from_mode(0o755))
    };
    settle().map_err(StoreError::at("setting attributes of", upper))
}
