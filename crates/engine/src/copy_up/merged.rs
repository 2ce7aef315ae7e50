//! Layers seen as one tree, by overlayfs' rules (Documentation/filesystems/overlayfs.rst).

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

/// The kernel's limit of symbolic links in one path (path_resolution(7)).
const LINK_LIMIT: usize = 40;

/// Says, when it is `y`, that a folder hides those below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// A folder of the merged tree: the folders it is made of, topmost first.
#[derive(Debug)]
pub(super) struct Dir(pub(super) Vec<OwnedFd>);

/// What a name in the merged tree stands for.
#[derive(Debug)]
pub(super) enum Node {
    /// A folder.
    Dir(Dir),
    /// Anything else: `name` in the folder `parent` of one layer.
    Leaf { parent: OwnedFd, name: CString, stat: Stat },
}

/// The layers of an image, topmost first.
#[derive(Debug)]
pub(super) struct Layers {
    root: Dir,
}

const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Layers {
    pub(super) fn open(layers: &[PathBuf]) -> io::Result<Layers> {
        let open = |path: &PathBuf| openat(rustix::fs::CWD, path, DIR_FLAGS, Mode::empty());
        Ok(Layers { root: Dir(layers.iter().map(open).collect::<Result<_, _>>()?) })
    }

    /// Finds what `path` stands for, links followed inside the tree only; `None` when there is nothing.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<Option<Node>> {
        let mut above: Vec<Dir> = Vec::new();
        let mut here = self.root.try_clone()?;
        let mut left = components(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                // Above the root is the root.
                here = above.pop().unwrap_or(here);
                continue;
            }
            match here.lookup(&name)? {
                None => return Ok(None),
                Some(Node::Dir(dir)) => above.push(std::mem::replace(&mut here, dir)),
                Some(Node::Leaf { parent, name, stat }) if is(&stat, FileType::Symlink) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(Errno::LOOP.into());
                    }
                    let link = rustix::fs::readlinkat(&parent, &name, Vec::new())?;
                    let link = Path::new(OsStr::from_bytes(link.as_bytes()));
                    if link.is_absolute() {
                        above.clear();
                        here = self.root.try_clone()?;
                    }
                    left.extend(components(link));
                }
                Some(leaf) => return Ok(left.is_empty().then_some(leaf)),
            }
        }
        Ok(Some(Node::Dir(here)))
    }
}

/// The names in a path, last first, without `.` and `/`.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

impl Dir {
    fn try_clone(&self) -> io::Result<Dir> {
        Ok(Dir(self.0.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?))
    }

    /// What `name` stands for in this folder, links not followed.
    pub(super) fn lookup(&self, name: &OsStr) -> io::Result<Option<Node>> {
        let name = CString::new(name.as_bytes())?;
        let mut parts = Vec::new();
        for parent in &self.0 {
            let stat = match statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if is_whiteout(&stat) {
                break;
            }
            if !is(&stat, FileType::Directory) {
                if parts.is_empty() {
                    return Ok(Some(Node::Leaf { parent: parent.try_clone()?, name, stat }));
                }
                // A file under a folder of the same name is hidden by it, and hides what is below itself.
                break;
            }
            let part = openat(parent, &name, DIR_FLAGS, Mode::empty())?;
            let opaque = is_opaque(&part);
            parts.push(part);
            if opaque {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Node::Dir(Dir(parts))))
    }

    /// The names in this folder with what they stand for.
    pub(super) fn entries(&self) -> io::Result<BTreeMap<CString, Node>> {
        let mut nodes = BTreeMap::new();
        for part in &self.0 {
            for entry in rustix::fs::Dir::read_from(part)? {
                let name = entry?.file_name().to_owned();
                if name.as_bytes() == b"." || name.as_bytes() == b".." || nodes.contains_key(&name) {
                    continue;
                }
                if let Some(node) = self.lookup(OsStr::from_bytes(name.as_bytes()))? {
                    nodes.insert(name, node);
                }
            }
        }
        Ok(nodes)
    }
}

/// Whether a file is of a type.
pub(super) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn is_whiteout(stat: &Stat) -> bool {
    is(stat, FileType::CharacterDevice) && stat.st_rdev == 0
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(dir, OPAQUE, &mut value).is_ok_and(|length| length == 1) && value == *b"y"
}
