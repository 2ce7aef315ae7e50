//! What a container or a build wrote, as a layer's archive: overlayfs' upper folder read as changes.
//!
//! The archive is a function of the folder: names in order, times in whole seconds, no names of users. It is never
//! stored; its digest names the layer. Whiteouts and opaque folders become what other stores read (`.wh.`).

mod header;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::unpack::OPAQUE_ATTRIBUTE;
pub(crate) use header::{Entry, write_entry, write_padding};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS);
/// Bytes copied at once.
const PIECE: usize = 256 * 1024;
/// Most bytes of a file's attributes (xattr(7)).
const ATTRIBUTES_LIMIT: usize = 64 * 1024;
/// The mark that an archive has for a folder that hides those below it.
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Entries of the archive; none is no layer.
    pub(crate) entries: u64,
    /// Bytes of its files, and of what its symbolic links say.
    pub(crate) size: u64,
    /// Bytes of contents that were not written.
    skipped: u64,
}

/// Writes the changes in the upper folder `folder` as an archive. Its own attributes are left out, as Docker does.
pub(crate) fn write(folder: &Path, out: &mut dyn Write) -> io::Result<Changes> {
    walk(folder, out, Contents::Written)
}

/// The bytes that [`write`] would write. Reads no file's content.
pub(crate) fn measure(folder: &Path) -> io::Result<u64> {
    let mut counter = Counter(0);
    let changes = walk(folder, &mut counter, Contents::Skipped)?;
    Ok(counter.0.saturating_add(changes.skipped))
}

/// Counts bytes.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the contents of files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Written,
    Skipped,
}

fn walk(folder: &Path, out: &mut dyn Write, contents: Contents) -> io::Result<Changes> {
    let root = rustix::fs::openat(CWD, folder, FOLDER, Mode::empty())?;
    let mut walk = Walk { root, out, contents, links: BTreeMap::new(), changes: Changes::default() };
    // Names still to come, the next one last: depth costs neither stack nor descriptors.
    let mut left = walk.names(b"")?;
    while let Some(path) = left.pop() {
        if walk.visit(&path)? {
            left.extend(walk.names(&path)?);
        }
    }
    let changes = walk.changes;
    if changes.entries > 0 {
        out.write_all(&[0; 1024])?;
    }
    Ok(changes)
}

struct Walk<'a> {
    root: OwnedFd,
    out: &'a mut dyn Write,
    contents: Contents,
    /// The first name of each file that has several, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    changes: Changes,
}

impl Walk<'_> {
    fn folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        Ok(rustix::fs::openat2(&self.root, path, FOLDER, Mode::empty(), WITHIN)?)
    }

    /// The paths of what is in a folder, the first one last.
    fn names(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self.folder(path)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() });
            }
        }
        names.sort_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Writes one entry; whether it is a folder to go into.
    fn visit(&mut self, path: &[u8]) -> io::Result<bool> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let folder = self.folder(parent)?;
        let c_name = CString::new(name)?;
        let stat = rustix::fs::statat(&folder, &c_name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let hidden = [parent, if parent.is_empty() { b"" } else { b"/" }, b".wh.", name].concat();
            self.mark(&hidden)?;
            return Ok(false);
        }
        if kind == FileType::Socket {
            // Without its listener it is nothing. As Docker.
            return Ok(false);
        }
        let attributes = attributes(&folder, &c_name, kind)?;
        if self.is_known(path, &stat, kind)? {
            return Ok(false);
        }
        let mut entry = Entry::new(path, &stat);
        entry.xattrs = attributes.kept;
        match kind {
            FileType::Directory => {
                entry.path.push(b'/');
                self.entry(&entry)?;
                if attributes.opaque {
                    self.mark(&[path, b"/", OPAQUE_MARK].concat())?;
                }
                return Ok(true);
            }
            FileType::RegularFile => {
                entry.size = u64::try_from(stat.st_size).unwrap_or_default();
                self.entry(&entry)?;
                self.content(&folder, &c_name, entry.size)?;
            }
            FileType::Symlink => {
                entry.link = rustix::fs::readlinkat(&folder, &c_name, Vec::new())?.into_bytes();
                self.changes.size = self.changes.size.saturating_add(entry.link.len() as u64);
                self.entry(&entry)?;
            }
            _ => self.entry(&entry)?,
        }
        Ok(false)
    }

    /// Whether this is another name of a file that was written already; then it is written as that.
    fn is_known(&mut self, path: &[u8], stat: &Stat, kind: FileType) -> io::Result<bool> {
        if kind == FileType::Directory || stat.st_nlink < 2 {
            return Ok(false);
        }
        let identity = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&identity) {
            let entry = Entry { flag: b'1', link: first.clone(), ..Entry::new(path, stat) };
            self.entry(&entry)?;
            return Ok(true);
        }
        self.links.insert(identity, path.to_vec());
        Ok(false)
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.changes.entries += 1;
        write_entry(self.out, entry)
    }

    /// An empty file that stands for something that is gone.
    fn mark(&mut self, path: &[u8]) -> io::Result<()> {
        self.entry(&Entry { path: path.to_vec(), flag: b'0', ..Entry::default() })
    }

    fn content(&mut self, folder: &OwnedFd, name: &CStr, size: u64) -> io::Result<()> {
        if self.contents == Contents::Skipped {
            self.changes.skipped = self.changes.skipped.saturating_add(size);
            return write_padding(self.out, size);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
        let (mut left, mut buffer) =
            (size, vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE)).max(1)]);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::Error::other("a file became shorter while it was read"));
            }
            self.out.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        self.changes.size = self.changes.size.saturating_add(size);
        write_padding(self.out, size)
    }
}

struct Attributes {
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
}

/// The extended attributes that belong to the file, and what overlayfs says of it.
fn attributes(folder: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<Attributes> {
    let mut found = Attributes { kept: Vec::new(), opaque: false };
    if kind != FileType::Directory && kind != FileType::RegularFile {
        return Ok(found);
    }
    let mut path = std::path::PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
    path.push(OsStr::from_bytes(name.to_bytes()));
    let mut names = vec![0; ATTRIBUTES_LIMIT];
    let length = match rustix::fs::llistxattr(&path, names.as_mut_slice()) {
        Err(Errno::NOTSUP) => 0,
        listed => listed?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let read = || -> io::Result<Vec<u8>> {
            let mut value = vec![0; ATTRIBUTES_LIMIT];
            let length = rustix::fs::lgetxattr(&path, name, value.as_mut_slice())?;
            value.truncate(length);
            Ok(value)
        };
        match name {
            _ if name == OPAQUE_ATTRIBUTE.as_bytes() => found.opaque = read()? == b"y",
            b"trusted.overlay.redirect" | b"trusted.overlay.metacopy" => {
                // The mounts that fill these folders are told to make none.
                return Err(io::Error::other(format!("{} depends on layers below", path.display())));
            }
            _ if name.starts_with(b"user.") || name == b"security.capability" => {
                found.kept.push((name.to_vec(), read()?));
            }
            _ => {}
        }
    }
    found.kept.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
