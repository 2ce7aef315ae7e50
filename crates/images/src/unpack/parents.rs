//! The folder that is worked in.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{attributes, lossy};
use crate::error::{ArchiveError, Failure, StoreError};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Docker's for folders that no entry describes.
const IMPLICIT_MODE: Mode = Mode::from_raw_mode(0o755);

/// Opens a folder by its name in another; a symbolic link is none.
pub(super) fn open_child(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
}

/// Keeps the folder of the last entry open: the next one mostly lies in it too.
pub(super) struct Parents {
    root: OwnedFd,
    path: Vec<u8>,
    folder: OwnedFd,
    /// The folder's times before work in it began.
    times: Timestamps,
}

impl Parents {
    pub(super) fn open(root: &Path) -> Result<Parents, StoreError> {
        let open = || -> rustix::io::Result<Parents> {
            let root = rustix::fs::openat(CWD, root, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            let folder = rustix::io::fcntl_dupfd_cloexec(&root, 0)?;
            let times = times_of(&folder)?;
            Ok(Parents { root, path: Vec::new(), folder, times })
        };
        open().map_err(|error| StoreError::at("opening", root)(error.into()))
    }

    pub(super) fn current(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Opens a folder of the layer, following its links within it.
    pub(super) fn resolve(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&self.root, path, FOLDER, Mode::empty(), how) {
                // The kernel could not rule out a rename while it resolved a `..` of a link.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    }

    /// Makes `path` the folder that is worked in, making what is missing, which `made` is told.
    pub(super) fn enter(
        &mut self,
        path: &[u8],
        layer: &Path,
        made: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Failure> {
        if self.path == path {
            return Ok(());
        }
        match self.resolve(path) {
            Ok(folder) => self.replace(path, folder),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make(path, layer, made),
            Err(error) => Err(cannot_open(layer, path, error)),
        }
    }

    fn make(&mut self, path: &[u8], layer: &Path, made: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let ends: Vec<usize> = ends.chain([path.len()]).collect();
        for (index, end) in ends.iter().enumerate() {
            let folder = &path[..*end];
            match self.resolve(folder) {
                Ok(_) => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(cannot_open(layer, folder, error)),
            }
            let start = if index == 0 { 0 } else { ends[index - 1] + 1 };
            self.enter(&path[..start.saturating_sub(1)], layer, made)?;
            self.make_child(folder, &folder[start..], layer)?;
            made(folder);
        }
        let folder = self.resolve(path).map_err(|error| cannot_open(layer, path, error))?;
        self.replace(path, folder)
    }

    /// Makes a folder for which there is no entry.
    fn make_child(&mut self, path: &[u8], name: &[u8], layer: &Path) -> Result<(), Failure> {
        let failed = |error| failed("creating", layer, path, error);
        match rustix::fs::mkdirat(&self.folder, name, IMPLICIT_MODE) {
            Ok(()) => {}
            Err(Errno::EXIST) => match attributes::kind_of(&self.folder, name).map_err(failed)? {
                attributes::Found::Whiteout => {
                    rustix::fs::unlinkat(&self.folder, name, rustix::fs::AtFlags::empty()).map_err(failed)?;
                    rustix::fs::mkdirat(&self.folder, name, IMPLICIT_MODE).map_err(failed)?;
                    open_child(&self.folder, name)
                        .and_then(|folder| attributes::set_opaque(&folder))
                        .map_err(failed)?;
                }
                attributes::Found::Directory => {}
                attributes::Found::Other => {
                    return Err(refuse(path, "something else is where a folder must be"));
                }
            },
            Err(error) => return Err(failed(error)),
        }
        // The process's own mask must not show in images.
        open_child(&self.folder, name)
            .and_then(|folder| rustix::fs::fchmod(folder, IMPLICIT_MODE))
            .map_err(failed)
    }

    fn replace(&mut self, path: &[u8], folder: OwnedFd) -> Result<(), Failure> {
        self.leave()?;
        self.times = times_of(&folder).map_err(times_failed)?;
        self.folder = folder;
        self.path.clear();
        self.path.extend_from_slice(path);
        Ok(())
    }

    /// Ends work in the current folder.
    pub(super) fn leave(&mut self) -> Result<(), Failure> {
        rustix::fs::futimens(&self.folder, &self.times).map_err(times_failed)
    }

    /// The current folder got new times that shall last.
    pub(super) fn remember_times(&mut self) {
        if let Ok(times) = times_of(&self.folder) {
            self.times = times;
        }
    }
}

fn times_of(folder: &OwnedFd) -> rustix::io::Result<Timestamps> {
    let stat = rustix::fs::fstat(folder)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    Ok(Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as _),
    })
}

fn times_failed(error: Errno) -> Failure {
    StoreError::at("setting times in", Path::new("a layer"))(error.into()).into()
}

fn failed(action: &'static str, layer: &Path, path: &[u8], error: Errno) -> Failure {
    StoreError::at(action, &layer.join(OsStr::from_bytes(path)))(error.into()).into()
}

/// The archive is at fault where its links go round in circles, or are too many for the kernel.
fn cannot_open(layer: &Path, path: &[u8], error: Errno) -> Failure {
    match error {
        Errno::LOOP => refuse(path, "it leads through too many links"),
        error => failed("opening", layer, path, error),
    }
}

fn refuse(path: &[u8], problem: &'static str) -> Failure {
    ArchiveError::Path { path: lossy(path), problem }.into()
}
