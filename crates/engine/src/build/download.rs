//! What `ADD` fetches from addresses.

use std::fs::{File, FileTimes};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags};
use skep_registry::WebFile;

use super::sources::{self, Source};
use super::{BuildMessage, Builder, Failure, cancelled};
use crate::error::chain;
use crate::images::Step;
use crate::{Error, Result, disk};

/// What a file is called that has no name.
const UNNAMED: &str = "__unnamed__";
/// Bytes between two messages of progress.
const PROGRESS_STEP: u64 = 512 * 1024;

/// A file that was fetched, in a folder of its own that goes with this.
pub(super) struct Download {
    root: OwnedFd,
    folder: PathBuf,
    /// The file.
    pub(super) source: Source,
}

impl Download {
    /// The folder that the file is in.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // What stays goes with the build.
        let _ = disk::remove_tree(&self.folder);
    }
}

impl Builder {
    /// Fetches what is at an address (moby's `downloadSource`): readable by its owner alone, as old as the server says it is.
    /// `into` is where it is to go.
    pub(super) fn download(&self, address: &str, into: &str) -> Result<Download, Failure> {
        let failed = |problem: String| Failure::from(Error::invalid(format!("ADD failed: {problem}")));
        let fetched = self.runtime.block_on(async {
            tokio::select! {
                fetched = self.fetch(address, into) => fetched.map_err(failed),
                () = self.messages.closed() => Err(cancelled()),
            }
        })?;
        self.say("\n".to_owned())?;
        Ok(fetched)
    }

    async fn fetch(&self, address: &str, into: &str) -> std::result::Result<Download, String> {
        let mut file =
            self.engine.shared.registries.file(address).await.map_err(|error| error.to_string())?;
        let name = match std::mem::take(&mut file.name) {
            empty if empty.is_empty() && into.ends_with('/') => {
                return Err(format!("cannot determine filename for source {address}"));
            }
            empty if empty.is_empty() => UNNAMED.to_owned(),
            name => name,
        };
        let words = |error: std::io::Error| chain(&error);
        let folder = self.context.folder().join(format!("download-{}", self.engine.draw_id()));
        disk::make_dir(&folder, 0o700).map_err(words)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &folder, flags, Mode::empty());
        let root = root.map_err(|error| words(error.into()))?;
        // From here on the folder goes with it, whatever happens.
        let source = Source { path: name.clone(), hash: String::new() };
        let mut download = Download { root, folder, source };
        let path = download.folder.join(&name);
        let mut out = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(words)?;
        self.receive(&mut file, &mut out).await?;
        let modified = file.modified.unwrap_or(SystemTime::UNIX_EPOCH);
        out.set_times(FileTimes::new().set_accessed(modified).set_modified(modified)).map_err(words)?;
        download.source = sources::found(download.root(), &name).map_err(words)?;
        Ok(download)
    }

    async fn receive(&self, file: &mut WebFile, out: &mut File) -> std::result::Result<(), String> {
        let (mut done, mut told) = (0u64, 0);
        while let Some(piece) = file.piece().await.map_err(|error| error.to_string())? {
            out.write_all(&piece).map_err(|error| chain(&error))?;
            done += piece.len() as u64;
            if done >= told + PROGRESS_STEP || file.length == Some(done) {
                told = done;
                let progress = Some((done, file.length.unwrap_or_default()));
                let status = "Downloading".to_owned();
                // A client that is slow misses some.
                let step = Step { id: String::new(), status, progress, pushed: None };
                let _ = self.messages.try_send(BuildMessage::Pulling(step));
            }
        }
        Ok(())
    }
}
