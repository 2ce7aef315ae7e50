//! What `COPY` and `ADD` name: found in a tree, and hashed for the cache.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use skep_dockerfile::glob;
use skep_images::{Digest, Hasher};

use super::tree;

/// Bytes hashed at once.
const PIECE: usize = 256 * 1024;

/// A file or folder to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its path in the tree.
    pub(super) path: String,
    /// `file:` or `dir:` and a digest of all that a copy shows, times left aside.
    pub(super) hash: String,
}

/// What a word of an instruction stands for in a tree; patterns may stand for nothing.
pub(super) fn find(root: BorrowedFd<'_>, word: &str, in_context: bool) -> Result<Vec<Source>, String> {
    let path = word.trim_start_matches('/');
    let path = path.strip_prefix("./").unwrap_or(path);
    if !glob::is_pattern(path) {
        return one(root, path, in_context).map(|source| vec![source]);
    }
    let matching = matching(root, path).map_err(|error| words(&error))?;
    matching.iter().map(|path| one(root, path, in_context)).collect()
}

/// One hash of several sources, as Docker puts them together.
pub(super) fn hash_all(hashes: &[String]) -> String {
    match hashes {
        [one] => one.clone(),
        several => format!("multi:{}", Digest::of(several.join(",").as_bytes()).hex()),
    }
}

fn one(root: BorrowedFd<'_>, path: &str, in_context: bool) -> Result<Source, String> {
    if in_context && leads_out(path) {
        return Err(format!("forbidden path outside the build context: {path} ()"));
    }
    let clean = clean(path);
    let hash = hash(root, &clean).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if in_context => {
            format!("file not found in build context or excluded by .dockerignore: stat {path}: file does not exist")
        }
        io::ErrorKind::NotFound => format!("stat {path}: file does not exist"),
        _ => format!("{path}: {}", words(&error)),
    })?;
    Ok(Source { path: clean, hash })
}

/// A file of a tree, by its name there.
pub(super) fn found(root: BorrowedFd<'_>, name: &str) -> io::Result<Source> {
    Ok(Source { path: name.to_owned(), hash: hash(root, name)? })
}

/// Whether a path means something above the top that it starts from.
fn leads_out(path: &str) -> bool {
    let mut depth = 0;
    path.split('/').any(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

/// Without `.` and `..`; above the top is the top.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// All paths of a tree that a pattern fits, in order; links are not followed.
fn matching(root: BorrowedFd<'_>, pattern: &str) -> io::Result<Vec<String>> {
    let (mut found, mut left) = (Vec::new(), vec![String::new()]);
    // A pattern without `/` at the end of a level fits nothing deeper.
    let depth = pattern.split('/').count();
    while let Some(path) = left.pop() {
        let folder = tree::open(root, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        for name in tree::names(&folder)? {
            let Ok(text) = name.to_str() else { continue };
            let child = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
            if glob::matches(pattern, &child) == Some(true) {
                found.push(child.clone());
            }
            let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder && child.split('/').count() < depth {
                left.push(child);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn hash(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let top = tree::open(root, path, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&top)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let mut hasher = Hasher::default();
        file(&mut hasher, path.as_bytes(), &stat, || File::open(tree::by_descriptor(&top)))?;
        return Ok(format!("file:{}", hasher.finish().hex()));
    }
    let mut hasher = Hasher::default();
    let mut left = vec![(tree::open(top.as_fd(), "", OFlags::RDONLY | OFlags::DIRECTORY)?, Vec::new())];
    while let Some((folder, path)) = left.pop() {
        for name in tree::names(&folder)? {
            let path = [path.as_slice(), b"/", name.to_bytes()].concat();
            let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    header(&mut hasher, &path, &stat, b"");
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let child = rustix::fs::openat(&folder, &name, flags, rustix::fs::Mode::empty())?;
                    left.push((child, path));
                    if left.len() > FOLDER_LIMIT {
                        return Err(Errno::MFILE.into());
                    }
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(&folder, &name, Vec::new())?;
                    header(&mut hasher, &path, &stat, link.to_bytes());
                }
                _ => file(&mut hasher, &path, &stat, || {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    Ok(open_in(&folder, &name, flags)?.into())
                })?,
            }
        }
    }
    Ok(format!("dir:{}", hasher.finish().hex()))
}

/// Most folders that wait to be read: each is open.
const FOLDER_LIMIT: usize = 4096;

fn open_in(folder: &OwnedFd, name: &std::ffi::CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())
}

fn file(
    hasher: &mut Hasher,
    path: &[u8],
    stat: &Stat,
    open: impl FnOnce() -> io::Result<File>,
) -> io::Result<()> {
    header(hasher, path, stat, b"");
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let (mut file, mut buffer) = (open()?, vec![0; PIECE]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// As Docker's: all but times. Lengths part what follows each other.
fn header(hasher: &mut Hasher, path: &[u8], stat: &Stat, link: &[u8]) {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let size = if is_file { stat.st_size } else { 0 };
    let numbers =
        format!("{} {} {} {} {size} {} ", path.len(), stat.st_mode, stat.st_uid, stat.st_gid, link.len());
    for part in [numbers.as_bytes(), path, link] {
        hasher.update(part);
    }
}

fn words(error: &io::Error) -> String {
    crate::error::chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_top() {
        assert_eq!(clean("./a//../b/./c/"), "b/c");
        assert!(leads_out("../a") && leads_out("a/../../b"));
        assert!(!leads_out("a/../b") && !leads_out("./a"));
        assert_eq!(hash_all(&["file:x".to_owned()]), "file:x");
        assert!(hash_all(&["file:x".to_owned(), "file:y".to_owned()]).starts_with("multi:"));
    }

    #[test]
    fn names_modes_and_contents_count_and_times_do_not() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = rustix::fs::openat(rustix::fs::CWD, dir.path(), flags, rustix::fs::Mode::empty());
        let root = root.expect("it is there");
        let hash = |path: &str| super::hash(root.as_fd(), path).expect("it can be read");
        let write = |content: &str| std::fs::write(dir.path().join("a"), content).expect("room");
        write("1");
        std::fs::write(dir.path().join("b"), "1").expect("room");
        let (file, folder) = (hash("a"), hash(""));
        assert_ne!(file, hash("b"));
        write("2");
        assert_ne!((hash("a"), hash("")), (file.clone(), folder.clone()));
        write("1");
        assert_eq!((hash("a"), hash("")), (file.clone(), folder));
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("a"), mode).expect("it is ours");
        assert_ne!(hash("a"), file);
        let found = find(root.as_fd(), "[ab]", true).expect("two files");
        assert_eq!(found.iter().map(|source| source.path.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let missing = find(root.as_fd(), "c", true).expect_err("there is no such file");
        assert!(missing.ends_with("stat c: file does not exist"), "{missing}");
    }
}
