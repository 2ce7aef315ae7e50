//! Unpacking one layer's archive into a folder, in the form that overlayfs reads.
//!
//! Every path is resolved by the kernel with the layer's folder as its root (`RESOLVE_IN_ROOT`), so that
//! neither `..` nor a symbolic link, whatever an archive put there before, leads out of it. All that is
//! made is made relative to a folder so opened.
//!
//! Whiteouts (`.wh.name`) become character devices 0:0, opaque marks (`.wh..wh..opq`) become the attribute
//! `trusted.overlay.opaque`.
//!
//! A folder's modification time is put back when work in it ends, rather than for all folders at the end:
//! memory stays flat.

mod attributes;
mod files;
mod inherit;
mod parents;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{ArchiveError, Failure, StoreError};
use crate::remove_tree::remove_child;
use crate::tar::{Archive, Entry, Kind};
pub use files::{is_archive, unpack_files};
pub(crate) use inherit::inherit;
use parents::Parents;

/// Most entries that a layer may have. The largest images known have about a million.
const ENTRY_LIMIT: u64 = 4_000_000;
/// Most bytes that the list of folders without an entry may take.
const IMPLICIT_LIMIT: u64 = 4 << 20;
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
pub(crate) const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// What unpacking tells of a layer.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Bytes of its files, and of what its symbolic links say.
    pub(crate) size: u64,
    /// Folders that entries lie in but that have no entry of their own, so that their attributes must come
    /// from the layers below. Parents before children.
    pub(crate) implicit: Vec<PathBuf>,
    /// The name of the layer's folder in the store, once they have them; see [`inherit`].
    pub(crate) folder: Option<String>,
}

/// Where the recipe is written of a layer that is unpacked into `folder`.
pub(crate) fn recipe_path(folder: &Path) -> PathBuf {
    folder.with_extension("recipe")
}

/// Unpacks `archive`, to the end of its input, into `folder`, which exists and is empty.
pub(crate) fn unpack_layer<R: BufRead>(folder: &Path, archive: Archive<R>) -> Result<Summary, Failure> {
    unpack(folder, archive, Whiteouts::Hide)
}

/// Whether names like `.wh.x` hide what lies below, or are names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    Hide,
    AreFiles,
}

/// Unpacks as [`unpack_layer`]; in place of what is in `folder` already.
pub(crate) fn unpack<R: BufRead>(
    folder: &Path,
    mut archive: Archive<R>,
    whiteouts: Whiteouts,
) -> Result<Summary, Failure> {
    let mut unpacker = Unpacker {
        folder,
        whiteouts,
        parents: Parents::open(folder)?,
        size: 0,
        implicit: BTreeSet::new(),
        implicit_bytes: 0,
    };
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > ENTRY_LIMIT {
            return Err(ArchiveError::Limit { what: "entries in a layer", limit: ENTRY_LIMIT }.into());
        }
        unpacker.place(&entry, &mut archive)?;
    }
    unpacker.parents.leave()?;
    archive.drain()?;
    archive.finish_record().map_err(StoreError::at("writing", &recipe_path(folder)))?;
    // In order of their bytes, a folder comes before what is in it.
    let implicit = unpacker.implicit.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
    Ok(Summary { size: unpacker.size, implicit, folder: None })
}

struct Unpacker<'a> {
    folder: &'a Path,
    whiteouts: Whiteouts,
    parents: Parents,
    /// As [`Summary::size`].
    size: u64,
    /// As [`Summary::implicit`].
    implicit: BTreeSet<Vec<u8>>,
    /// Bytes of all names that were ever in it.
    implicit_bytes: u64,
}

impl Unpacker<'_> {
    fn place<R: BufRead>(&mut self, entry: &Entry, data: &mut Archive<R>) -> Result<(), Failure> {
        if let Kind::Other(flag) = entry.kind {
            return Err(ArchiveError::Kind { path: lossy(&entry.path), flag }.into());
        }
        let path = clean(&entry.path)?;
        let Some((parent, name)) = split(&path) else { return self.place_root(entry) };
        if self.whiteouts == Whiteouts::Hide && name.starts_with(WHITEOUT) {
            return self.place_whiteout(&path, parent, name);
        }
        self.enter(parent)?;
        match entry.kind {
            Kind::File => self.place_file(&path, name, entry, data),
            Kind::HardLink => self.place_hard_link(&path, name, entry),
            Kind::Directory => self.place_directory(&path, name, entry),
            Kind::Symlink | Kind::Character | Kind::Block | Kind::Fifo => self.place_node(&path, name, entry),
            Kind::Other(_) => unreachable!("refused above"),
        }
    }

    /// Makes `parent` the folder that is worked in, and notes those that had to be made for it.
    fn enter(&mut self, parent: &[u8]) -> Result<(), Failure> {
        let (implicit, bytes) = (&mut self.implicit, &mut self.implicit_bytes);
        self.parents.enter(parent, self.folder, &mut |made| {
            *bytes += made.len() as u64;
            implicit.insert(made.to_vec());
        })?;
        if self.implicit_bytes > IMPLICIT_LIMIT {
            let what = "bytes of names of folders without entries";
            return Err(ArchiveError::Limit { what, limit: IMPLICIT_LIMIT }.into());
        }
        Ok(())
    }

    /// The layer's top folder may have an entry too: `./`.
    fn place_root(&mut self, entry: &Entry) -> Result<(), Failure> {
        if entry.kind != Kind::Directory {
            return Err(ArchiveError::Path { path: lossy(&entry.path), problem: "it names the root" }.into());
        }
        self.enter(b"")?;
        attributes::apply(self.parents.current(), entry)
            .map_err(|error| self.failed("setting attributes of", b"", error))?;
        self.parents.remember_times();
        Ok(())
    }

    fn place_file<R: BufRead>(
        &mut self,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        data: &mut Archive<R>,
    ) -> Result<(), Failure> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.parents.current();
        let open = || rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file =
            File::from(self.make(name, open).map_err(|error| self.failed("creating", path, error))?);
        data.data_goes_to(path, entry.segments.as_deref());
        let written = match &entry.segments {
            None => copy(data, |piece, _| file.write_all(piece)),
            Some(segments) => segments.iter().try_for_each(|segment| {
                copy_limited(data, segment.length, |piece, done| {
                    file.write_all_at(piece, segment.offset + done)
                })
            }),
        };
        written.map_err(|error| error.into_failure(|error| self.io_failed("writing", path, error)))?;
        if entry.segments.is_some() {
            file.set_len(entry.size).map_err(|error| self.io_failed("writing", path, error))?;
        }
        self.size = self.size.saturating_add(entry.size);
        attributes::apply(&file, entry).map_err(|error| self.failed("setting attributes of", path, error))
    }

    fn place_directory(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let parent = self.parents.current();
        let make = || rustix::fs::mkdirat(parent, name, Mode::RWXU);
        let mut opaque = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let kind =
                    attributes::kind_of(parent, name).map_err(|error| self.failed("reading", path, error))?;
                if kind != attributes::Found::Directory {
                    // A name that was whited out and now is a folder hides what lies below all the same.
                    opaque = kind == attributes::Found::Whiteout;
                    self.make(name, make).map_err(|error| self.failed("creating", path, error))?;
                }
            }
            Err(error) => return Err(self.failed("creating", path, error)),
        }
        let folder =
            parents::open_child(parent, name).map_err(|error| self.failed("opening", path, error))?;
        if opaque {
            attributes::set_opaque(&folder)
                .map_err(|error| self.failed("setting attributes of", path, error))?;
        }
        attributes::apply(&folder, entry)
            .map_err(|error| self.failed("setting attributes of", path, error))?;
        // It may have been made for an entry inside; now it has its own.
        self.implicit.remove(path);
        Ok(())
    }

    /// Symbolic links, devices and pipes.
    fn place_node(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Failure> {
        // The kernel would refuse it in words that blame the store.
        let is_target = |link: &[u8]| (1..4096).contains(&link.len()) && !link.contains(&0);
        if entry.kind == Kind::Symlink && !is_target(&entry.link) {
            let problem = "it is a symbolic link to nothing that can be a path";
            return Err(ArchiveError::Path { path: lossy(path), problem }.into());
        }
        let parent = self.parents.current();
        let device = rustix::fs::makedev(entry.major, entry.minor);
        let mode = Mode::RUSR | Mode::WUSR;
        let make = || match entry.kind {
            Kind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), parent, name),
            Kind::Character => rustix::fs::mknodat(parent, name, FileType::CharacterDevice, mode, device),
            Kind::Block => rustix::fs::mknodat(parent, name, FileType::BlockDevice, mode, device),
            _ => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0),
        };
        self.make(name, make).map_err(|error| self.failed("creating", path, error))?;
        // As Docker counts: what a link says, too.
        let target = if entry.kind == Kind::Symlink { entry.link.len() as u64 } else { 0 };
        self.size = self.size.saturating_add(target);
        attributes::apply_at(parent, name, entry)
            .map_err(|error| self.failed("setting attributes of", path, error))
    }

    /// A second name of a file of this layer. Its attributes are those of the file; unlike Docker we do not
    /// set what the link's own header says, since a new owner would take the file's capabilities.
    fn place_hard_link(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let missing = || -> Failure {
            ArchiveError::LinkTarget { path: lossy(&entry.path), target: lossy(&entry.link) }.into()
        };
        let target = clean(&entry.link)?;
        let (target_parent, target_name) = split(&target).ok_or_else(missing)?;
        let target_parent = match self.parents.resolve(target_parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            resolved => resolved.map_err(|error| self.failed("opening", target_parent, error))?,
        };
        let parent = self.parents.current();
        let link = || rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST)
                if attributes::is_same((target_parent.as_fd(), target_name), (parent, name)) =>
            {
                Ok(())
            }
            Err(Errno::EXIST) => remove_child(parent, name).and_then(|()| link()),
            linked => linked,
        };
        match linked {
            Err(Errno::NOENT | Errno::PERM) => Err(missing()),
            linked => linked.map_err(|error| self.failed("linking", path, error)),
        }
    }

    fn place_whiteout(&mut self, path: &[u8], parent: &[u8], name: &[u8]) -> Result<(), Failure> {
        if name == WHITEOUT_OPAQUE {
            self.enter(parent)?;
            return attributes::set_opaque(self.parents.current())
                .map_err(|error| self.failed("setting attributes of", parent, error));
        }
        // Other files of aufs's own mean nothing here. As Docker.
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ArchiveError::Path { path: lossy(path), problem: "it hides nothing" }.into());
        }
        self.enter(parent)?;
        let parent = self.parents.current();
        let made = match attributes::make_whiteout(parent, hidden) {
            // What this layer itself has by that name stays, and hides what is below.
            Err(Errno::EXIST) => match attributes::kind_of(parent, hidden) {
                Ok(attributes::Found::Directory) => {
                    parents::open_child(parent, hidden).and_then(|folder| attributes::set_opaque(&folder))
                }
                found => found.map(drop),
            },
            made => made,
        };
        made.map_err(|error| self.failed("creating", path, error))
    }

    /// Makes something by the name `name` in the current folder, in place of what is there. As tar, the
    /// last entry of a name wins.
    fn make<T>(&self, name: &[u8], make: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                remove_child(self.parents.current(), name)?;
                make()
            }
            made => made,
        }
    }

    fn failed(&self, action: &'static str, path: &[u8], error: Errno) -> Failure {
        self.io_failed(action, path, error.into())
    }

    fn io_failed(&self, action: &'static str, path: &[u8], error: std::io::Error) -> Failure {
        StoreError::at(action, &self.folder.join(OsStr::from_bytes(path)))(error).into()
    }
}

/// Which side of a copy failed.
enum CopyError {
    Read(std::io::Error),
    Write(std::io::Error),
}

impl CopyError {
    fn into_failure(self, write: impl FnOnce(std::io::Error) -> Failure) -> Failure {
        match self {
            CopyError::Read(error) => Failure::from_read(error),
            CopyError::Write(error) => write(error),
        }
    }
}

fn copy(
    data: &mut impl BufRead,
    write: impl FnMut(&[u8], u64) -> std::io::Result<()>,
) -> Result<(), CopyError> {
    copy_limited(data, u64::MAX, write)
}

/// Hands out `limit` bytes of `data`, or all, with the number of bytes before them.
fn copy_limited(
    data: &mut impl BufRead,
    limit: u64,
    mut write: impl FnMut(&[u8], u64) -> std::io::Result<()>,
) -> Result<(), CopyError> {
    let mut done = 0;
    while done < limit {
        let piece = data.fill_buf().map_err(CopyError::Read)?;
        let piece = &piece[..piece.len().min(usize::try_from(limit - done).unwrap_or(usize::MAX))];
        if piece.is_empty() {
            break;
        }
        write(piece, done).map_err(CopyError::Write)?;
        let count = piece.len();
        data.consume(count);
        done += count as u64;
    }
    Ok(())
}

/// A path relative to the layer's folder: without leading slashes, empty and `.` components. As Docker, an
/// absolute path counts from the folder. `..` is refused.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let refuse = |problem| ArchiveError::Path { path: lossy(path), problem };
    if path.is_empty() {
        return Err(refuse("it is empty"));
    }
    if path.len() >= 4096 {
        return Err(refuse("it is longer than 4095 bytes"));
    }
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(refuse("it leads upward")),
            _ if component.len() > 255 => return Err(refuse("a component is longer than 255 bytes")),
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(component);
    }
    Ok(cleaned)
}

/// Parent and name; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        _ if path.is_empty() => None,
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

/// For messages; not longer than is readable.
fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned()
}
