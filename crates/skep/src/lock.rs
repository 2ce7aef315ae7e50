//! One daemon to a data folder, and the file that tells its process id.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long a daemon that was killed may take to be gone: its last thread may be in the middle of a request to the kernel.
const DYING: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Holds a data folder for this daemon until it is dropped, or the process is gone however it went.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// Takes hold of a data folder, which is made when it is missing.
pub fn hold(data_root: &Path) -> anyhow::Result<Hold> {
    make_folder(data_root, 0o710)?;
    hold_made(data_root, "data folder")
}

/// Takes hold of a folder that is there; `what` names it in the error.
pub fn hold_made(folder: &Path, what: &str) -> anyhow::Result<Hold> {
    let path = folder.join("skep.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Hold { _file: file }),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < DYING => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => {
                bail!("another daemon is running on the {what} {}", folder.display())
            }
            Err(error) => return Err(error).context(format!("locking {}", path.display())),
        }
    }
}

/// Makes a folder, and what is missing above it.
pub fn make_folder(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("making the folder {}", path.display()))
}

/// A file with this process's id, gone when it is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file; one that names a living process is another daemon's.
    pub fn write(path: PathBuf) -> anyhow::Result<PidFile> {
        if let Some(pid) =
            std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok())
            && pid != std::process::id()
            && is_daemon(pid)
        {
            bail!("process with PID {pid} is still running, says {}", path.display());
        }
        if let Some(folder) = path.parent() {
            make_folder(folder, 0o755)?;
        }
        let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        write!(file, "{}", std::process::id()).with_context(|| format!("writing {}", path.display()))?;
        Ok(PidFile { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Whoever removed it first wanted it gone too.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a process runs a daemon: ids are used again, so that it lives is not enough.
fn is_daemon(pid: u32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name == b"dockerd" || (name == b"skep" && words.next() == Some(b"daemon"))
}
