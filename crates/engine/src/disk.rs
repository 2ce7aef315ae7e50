//! Writing small files so that a crash leaves the old content or the new, never half of one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How far a write must have come before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On the disk under its name: it survives a loss of power. Two flushes.
    Disk,
    /// On the disk, but a loss of power may find it under its temporary name still. One flush, and with it comes
    /// everything that was done to the file system before: ext4 and XFS commit their journals in order, btrfs logs a
    /// new file with the folders above it.
    Content,
    /// With the kernel: it survives the daemon's death, which is enough for what the kernel or a shim can tell again
    /// and for what a loss of power makes untrue anyway.
    Kernel,
}

/// Replaces `path` with `content` in one step. The temporary file beside it is `path` with `.tmp` added; one left by
/// a crash is overwritten by the next write.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| match durability {
        Durability::Disk | Durability::Content => file.sync_all(),
        Durability::Kernel => Ok(()),
    });
    drop(file);
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // A full disk: give back what the half-written file takes. It is no one's state.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    match durability {
        Durability::Disk => sync_dir(path.parent().unwrap_or(Path::new("/"))),
        Durability::Content | Durability::Kernel => Ok(()),
    }
}

/// Where [`write`] puts what will be `path`.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(".tmp");
    text.into()
}

/// [`write`] of a value as JSON, readable by root only: environments hold secrets.
pub(crate) fn write_json(path: &Path, value: &impl Serialize, durability: Durability) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?, 0o600, durability)
}

/// Reads what [`write_json`] wrote; `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder survive a loss of power.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a folder, and those above it, unless they are there.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Removes a folder with all that is in it, however deep a container made it; one that is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    skep_images::remove_all(path)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    #[test]
    fn a_write_replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), None);
        for durability in [Durability::Kernel, Durability::Content, Durability::Disk] {
            write_json(&path, &vec![1, 2, 3], durability).unwrap();
            assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2, 3]));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn torn_content_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, b"[1,").unwrap();
        assert!(read_json::<Vec<u8>>(&path).is_err());
    }

    #[test]
    fn a_tree_deeper_than_any_stack_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("container");
        fs::create_dir(&root).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = openat(CWD, &root, flags, Mode::empty()).unwrap();
        for _ in 0..20_000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = openat(&here, "d", flags, Mode::empty()).unwrap();
        }
        rustix::fs::symlinkat("/etc", &here, "link").unwrap();
        drop(here);
        // What an earlier removal left when it was cut off.
        fs::create_dir_all(root.join(".lifted-1/full")).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        remove_tree(&root).unwrap();
    }

    #[test]
    fn a_tree_is_removed_up_to_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, root) = (dir.path().join("outside"), dir.path().join("container"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("a/link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists() && outside.join("kept").exists());
    }
}
