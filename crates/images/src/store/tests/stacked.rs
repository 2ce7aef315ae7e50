//! What a container sees: the layers, stacked by overlayfs.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::testing::{Layer, TestStore, docker_archive};

/// Mounts the layers, topmost first, without attaching the mount to any tree, and hands its root to `look`.
fn stack(paths: &[PathBuf], look: impl FnOnce(&Path)) {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for path in paths {
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", path).unwrap();
    }
    rustix::mount::fsconfig_create(context.as_fd()).unwrap();
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).unwrap();
    look(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())));
}

/// All files with their content; folders end in a slash, links have their target.
fn tree(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        let name = path.to_str().unwrap();
        if kind.is_dir() {
            found.push(format!("{name}/"));
            tree(root, &path, found);
        } else if kind.is_symlink() {
            found.push(format!("{name} -> {}", std::fs::read_link(entry.path()).unwrap().display()));
        } else {
            found.push(format!("{name}: {}", std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
    found.sort();
}

#[test]
fn layers_merge_as_docker_merges_them() {
    let low = Layer::new()
        .folder("keep")
        .file("keep/old", b"1")
        .file("keep/changed", b"1")
        .file("keep/removed", b"1")
        .folder("opaque")
        .file("opaque/old", b"1")
        .folder("gone")
        .file("gone/x", b"1")
        .folder("becomes-file")
        .file("becomes-file/x", b"1")
        .file("becomes-folder", b"1")
        .symlink("link", "keep")
        .folder("readded")
        .file("readded/old", b"1");
    let middle = Layer::new()
        .folder("keep")
        .file("keep/changed", b"2")
        .file("keep/.wh.removed", b"")
        .folder("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"2")
        .file(".wh.gone", b"")
        .file(".wh.readded", b"")
        .file("becomes-file", b"2")
        .folder("becomes-folder")
        .file("becomes-folder/x", b"2")
        .hard_link("second", "keep/changed");
    let high = Layer::new().folder("readded").file("readded/new", b"3").file("keep/top", b"3");
    let layers = [low, middle, high].map(Layer::bytes);
    let store = TestStore::new();
    let id = store.load(&docker_archive(&["x"], &layers)).unwrap()[0].id;
    let paths = store.store.layer_paths(&id).unwrap();
    assert_eq!(paths.len(), 3);
    let mut found = Vec::new();
    stack(&paths, |root| tree(root, Path::new(""), &mut found));
    let expected = [
        "becomes-file: 2",
        "becomes-folder/",
        "becomes-folder/x: 2",
        "keep/",
        "keep/changed: 2",
        "keep/old: 1",
        "keep/top: 3",
        "link -> keep",
        "opaque/",
        "opaque/new: 2",
        "readded/",
        "readded/new: 3",
        "second: 2",
    ];
    assert_eq!(found, expected);
}
