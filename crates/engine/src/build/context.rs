//! What a client sends with a build: files, among them the Dockerfile.

use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use skep_dockerfile::Ignore;

use super::tree;
use crate::error::chain;
use crate::{Error, Result, disk};

/// Largest Dockerfile that is read, in bytes.
const DOCKERFILE_LIMIT: u64 = 4 << 20;
const DEFAULT_NAME: &str = "Dockerfile";

/// The files of a build, in a folder of their own that goes with this.
#[derive(Debug)]
pub(super) struct Context {
    root: OwnedFd,
    folder: PathBuf,
}

impl Context {
    /// Unpacks the archive that a client sends.
    pub(super) fn receive(input: &mut dyn Read, folder: PathBuf) -> Result<Context> {
        let failed = |error: std::io::Error| Error::failed("making a folder for the build", &error);
        disk::make_dir(&folder, 0o700).map_err(failed)?;
        let files = folder.join("files");
        disk::make_dir(&files, 0o755).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &files, flags, Mode::empty());
        let context = Context { root: root.map_err(|error| failed(error.into()))?, folder };
        skep_images::unpack_files(input, &files)
            .map_err(|error| Error::invalid(format!("Error processing tar file: {}", chain(&error))))?;
        Ok(context)
    }

    /// Where the build keeps what is its own; the files are in a folder of it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Reads the Dockerfile, then takes it out of the context where `.dockerignore` asks for that, as the client must send it all
    /// the same.
    pub(super) fn take_dockerfile(&self, name: &str) -> Result<String> {
        let mut name = if name.is_empty() { DEFAULT_NAME } else { name };
        let missing = |name: &str| Error::invalid(format!("Cannot locate specified Dockerfile: {name}"));
        let lower = name.to_ascii_lowercase();
        let file = match tree::open(self.root(), name, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            // As moby: `dockerfile` will do for the default name.
            Err(_) if name == DEFAULT_NAME => {
                name = &lower;
                tree::open(self.root(), name, OFlags::RDONLY | OFlags::NONBLOCK)
                    .map_err(|_| missing(DEFAULT_NAME))?
            }
            Err(_) => return Err(missing(name)),
        };
        let mut bytes = Vec::new();
        let read = std::fs::File::from(file).take(DOCKERFILE_LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::invalid(format!("reading {name}: {error}")))?;
        if bytes.len() as u64 > DOCKERFILE_LIMIT {
            return Err(Error::invalid(format!("{name} has more than {DOCKERFILE_LIMIT} bytes")));
        }
        if bytes.is_empty() {
            return Err(Error::invalid(format!("the Dockerfile ({name}) cannot be empty")));
        }
        self.remove_ignored(name);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn remove_ignored(&self, dockerfile: &str) {
        let Ok(file) = tree::open(self.root(), ".dockerignore", OFlags::RDONLY | OFlags::NONBLOCK) else {
            return;
        };
        let mut text = String::new();
        if std::fs::File::from(file).take(DOCKERFILE_LIMIT).read_to_string(&mut text).is_err() {
            return;
        }
        let ignore = Ignore::parse(&text);
        for name in [".dockerignore", dockerfile] {
            let (parent, last) = tree::split(name);
            if ignore.excludes(name)
                && let Ok(folder) = tree::open(self.root(), parent, OFlags::RDONLY | OFlags::DIRECTORY)
            {
                // What stays is copied, which is all that can go wrong.
                let _ = skep_images::remove_in(&folder, last.as_bytes());
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Err(error) = disk::remove_tree(&self.folder) {
            tracing::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}
