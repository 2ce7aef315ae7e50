//! What can go wrong, one enum an operation.

use std::io;
use std::path::{Path, PathBuf};

use crate::{ImageId, ParseReferenceError};

/// The store's own files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room is left for what was being written.
    #[error("{action} {path:?}: no space left on device")]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of the store does not hold what the store wrote.
    #[error("{path:?} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl StoreError {
    /// For `map_err`: what was tried and on what.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StoreError::DiskFull { action, path }
                }
                _ => StoreError::Io { action, path, source },
            }
        }
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StoreError::DiskFull { .. })
    }
}

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It ends in the middle of something.
    #[error("unexpected EOF: the archive is truncated")]
    Truncated,
    /// Its compression is broken.
    #[error("corrupt compressed data: {0}")]
    Corrupt(String),
    /// It is not a tar archive, or a broken one.
    #[error("invalid tar header: {0}")]
    Header(&'static str),
    /// Something else that is not supported.
    #[error("{0} are not supported")]
    Unsupported(&'static str),
    /// A path that is none, or leads out.
    #[error("invalid path {path:?} in the archive: {problem}")]
    Path {
        /// As the archive has it.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A hard link to nothing.
    #[error("hard link {path:?} to {target:?}, which is not in the same layer")]
    LinkTarget {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
    /// An entry of a type that is not known.
    #[error("unhandled tar header type {flag} of {path:?}")]
    Kind {
        /// The entry.
        path: String,
        /// Its type.
        flag: u8,
    },
    /// A named limit is exceeded.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// It holds no image.
    #[error("not an image archive: it has neither a manifest.json nor an index.json")]
    NoManifest,
    /// A file that another one names is not there.
    #[error("the archive lacks {0:?}, which it refers to")]
    Missing(String),
    /// A JSON document is malformed.
    #[error("invalid {name:?} in the archive: {problem}")]
    Json {
        /// The document.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The bytes are not those that were announced.
    #[error("{name:?} in the archive has digest {actual}; expected {expected}")]
    Digest {
        /// The file.
        name: String,
        /// Its digest.
        actual: crate::Digest,
        /// What its name or descriptor says.
        expected: crate::Digest,
    },
    /// The bytes are not as many as were announced.
    #[error("{name:?} in the archive has {actual} bytes; expected {expected}")]
    Size {
        /// The file.
        name: String,
        /// Its size.
        actual: u64,
        /// What its descriptor says.
        expected: u64,
    },
    /// A configuration and the layers beside it disagree.
    #[error("invalid image configuration {name:?}: {problem}")]
    Config {
        /// The file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Of a multi-platform image, this machine's part is missing.
    #[error("no matching manifest for {0} in the archive")]
    Platform(String),
}

/// Why an image was not made here.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What it stands on is not there.
    #[error(transparent)]
    Find(#[from] FindError),
    /// An archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An archive could not be read.
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// The store is at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Failure> for BuildError {
    fn from(failure: Failure) -> BuildError {
        match failure {
            Failure::Archive(error) => BuildError::Archive(error),
            Failure::Read(error) => BuildError::Read(error),
            Failure::Store(error) => BuildError::Store(error),
        }
    }
}

/// Why an archive was not unpacked.
#[derive(Debug)]
pub(crate) enum Failure {
    Archive(ArchiveError),
    Read(io::Error),
    Store(StoreError),
}

impl Failure {
    /// For `map_err` on reads of an archive.
    pub(crate) fn from_read(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::Archive(ArchiveError::Truncated),
            _ => Failure::Read(error),
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Failure {
        Failure::Archive(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl From<Failure> for LoadError {
    fn from(failure: Failure) -> LoadError {
        match failure {
            Failure::Archive(error) => LoadError::Archive(error),
            Failure::Read(error) => LoadError::Read(error),
            Failure::Store(error) => LoadError::Store(error),
        }
    }
}

impl From<Failure> for ImportError {
    fn from(failure: Failure) -> ImportError {
        match failure {
            Failure::Archive(error) => ImportError::Archive(error),
            Failure::Read(error) => ImportError::Read(error),
            Failure::Store(error) => ImportError::Store(error),
        }
    }
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the image store {0:?} is in use by another process")]
    Locked(PathBuf),
    /// `store.json` was written by a later version.
    #[error("the image store {path:?} has format {found}; this version reads {known}")]
    Format {
        /// The store's folder.
        path: PathBuf,
        /// Format of the store.
        found: u32,
        /// Format that is understood.
        known: u32,
    },
    /// Images cannot be unpacked or stacked here.
    #[error("overlayfs does not work in {path:?}: {problem}")]
    Overlay {
        /// The store's folder.
        path: PathBuf,
        /// What failed.
        problem: String,
    },
    /// The store's files are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// No image is known by a name.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing by that name. Docker's words: clients look for them.
    #[error("No such image: {0}")]
    NotFound(String),
    /// A prefix that several ids have.
    #[error("image id prefix {0} is ambiguous: several images match")]
    Ambiguous(String),
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] ParseReferenceError),
    /// The store's files are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An archive could not be loaded. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive could not be read: its compression is corrupt, or its sender went away.
    #[error("reading the archive: {0}")]
    Read(io::Error),
    /// The store's disk is at fault, or full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A layer's archive could not be put together again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The image was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The store's files are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Images could not be chosen for an archive.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An image was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The store's files are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A root file system could not be imported. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive could not be read: its compression is corrupt, or its sender went away.
    #[error("reading the archive: {0}")]
    Read(io::Error),
    /// A tag is needed where a digest was given.
    #[error("cannot import digest reference")]
    DigestReference,
    /// The store's disk is at fault, or full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image could not be tagged.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// The image was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A tag is needed where a digest was given.
    #[error("refusing to create a tag with a digest reference")]
    DigestReference,
    /// The store's files are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image could not be removed. The conflicts are worded as Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The image was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The last reference to an image that a container uses.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {}",
        id.short()
    )]
    ReferenceInUse {
        /// As typed.
        name: String,
        /// Short id of the container.
        container: String,
        /// The image.
        id: ImageId,
    },
    /// A running container uses the image.
    #[error(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container {container}",
        id.short()
    )]
    Running {
        /// The image.
        id: ImageId,
        /// Short id of the container.
        container: String,
    },
    /// A build, a push or a save works with the image.
    #[error("conflict: unable to delete {} (cannot be forced) - image is being used by a build, push or save", id.short())]
    Held {
        /// The image.
        id: ImageId,
    },
    /// A stopped container uses the image.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is being used by stopped container {container}",
        id.short()
    )]
    Stopped {
        /// The image.
        id: ImageId,
        /// Short id of the container.
        container: String,
    },
    /// The image has several names and was asked for by id.
    #[error("conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", id.short())]
    ManyReferences {
        /// The image.
        id: ImageId,
    },
    /// Another image was made from it.
    #[error("conflict: unable to delete {} (cannot be forced) - image has dependent child images", id.short())]
    Children {
        /// The image.
        id: ImageId,
    },
    /// The store's files are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoveError {
    /// Whether Docker answers 409.
    pub fn is_conflict(&self) -> bool {
        match self {
            RemoveError::ReferenceInUse { .. }
            | RemoveError::Running { .. }
            | RemoveError::Held { .. }
            | RemoveError::Stopped { .. }
            | RemoveError::ManyReferences { .. }
            | RemoveError::Children { .. } => true,
            RemoveError::Find(_) | RemoveError::Store(_) => false,
        }
    }
}
