use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tar::EntryType;

use super::{OPAQUE_ATTRIBUTE, Summary, inherit, unpack_layer};
use crate::error::{ArchiveError, Failure};
use crate::tar::Archive;
use crate::testing::Layer;

/// A folder to unpack into, with a sibling that nothing may touch.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("layer")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/file"), "untouched").unwrap();
        Place { folder }
    }

    fn unpack(&self, layer: Layer) -> Result<Summary, ArchiveError> {
        let bytes = layer.bytes();
        let result = unpack_layer(&self.path(""), Archive::new(bytes.as_slice()));
        let outside = self.folder.path().join("outside");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
        assert_eq!(fs::metadata(outside.join("file")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        result.map_err(|failure| match failure {
            Failure::Archive(error) => error,
            other => panic!("{other:?}"),
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("layer").join(path)
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(self.path(path), name, value.as_mut_slice()).ok()?;
        value.truncate(length);
        Some(value)
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let stat = self.stat(path);
        stat.file_type().is_char_device() && stat.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        self.xattr(path, OPAQUE_ATTRIBUTE).as_deref() == Some(b"y")
    }
}

#[test]
fn attributes_survive() {
    let place = Place::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let owner = |mode: u32| {
        move |header: &mut tar::Header| {
            header.set_uid(1234);
            header.set_gid(5678);
            header.set_mode(mode);
        }
    };
    let device = |header: &mut tar::Header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mode(0o666);
    };
    let layer = Layer::new()
        .entry(EntryType::Directory, "d/", "", b"", owner(0o1777))
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("mtime", b"1500000000.123456789"),
        ])
        .entry(EntryType::Regular, "d/setuid", "", b"text", owner(0o6755))
        .entry(EntryType::Symlink, "d/link", "/etc/passwd", b"", owner(0o777))
        .entry(EntryType::Fifo, "d/pipe", "", b"", owner(0o620))
        .entry(EntryType::Char, "d/null", "", b"", device)
        .entry(EntryType::Block, "d/block", "", b"", device)
        .hard_link("d/second", "d/setuid");
    assert_eq!(place.unpack(layer).unwrap().size, 4 + "/etc/passwd".len() as u64);

    for (path, mode) in [("d", 0o41777), ("d/setuid", 0o106755), ("d/link", 0o120777), ("d/pipe", 0o010620)] {
        let stat = place.stat(path);
        assert_eq!((stat.uid(), stat.gid(), stat.mode()), (1234, 5678, mode), "{path}");
    }
    assert_eq!(place.xattr("d/setuid", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(place.xattr("d/setuid", "user.note").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(place.xattr("d/setuid", "trusted.overlay.redirect"), None);
    assert_eq!(place.xattr("d/setuid", "user.overlay.opaque"), None);
    let file = place.stat("d/setuid");
    assert_eq!((file.mtime(), file.mtime_nsec(), file.nlink()), (1_500_000_000, 123_456_789, 2));
    assert_eq!(file.ino(), place.stat("d/second").ino());
    assert_eq!(place.stat("d").mtime(), 1_600_000_000, "not changed by what was made in it");
    assert_eq!(place.stat("d/link").mtime(), 1_600_000_000);
    assert_eq!(fs::read_link(place.path("d/link")).unwrap(), Path::new("/etc/passwd"));
    assert!(place.stat("d/null").file_type().is_char_device());
    assert!(place.stat("d/block").file_type().is_block_device());
    assert_eq!(place.stat("d/null").rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn a_folder_keeps_its_time_though_work_returns_to_it() {
    let place = Place::new();
    let layer = Layer::new().folder("./").folder("a").file("a/1", b"").folder("b").file("b/1", b"");
    place.unpack(layer.file("a/2", b"").file("c", b"").hard_link("b/2", "a/1")).unwrap();
    for path in ["", "a", "b"] {
        assert_eq!(place.stat(path).mtime(), 1_600_000_000, "{path:?}");
    }
}

#[test]
fn a_symbolic_link_needs_a_target() {
    for target in ["".to_owned(), "x".repeat(4096)] {
        let place = Place::new();
        let layer = Layer::new().pax(&[("linkpath", target.as_bytes())]);
        let layer = layer.entry(EntryType::Symlink, "link", "", b"", |_| {});
        let error = place.unpack(layer).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(!place.path("link").is_symlink());
    }
}

#[test]
fn whiteouts_take_the_form_of_overlayfs() {
    let place = Place::new();
    let layer = Layer::new()
        .file(".wh.gone", b"")
        .folder("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("deep/.wh.gone", b"")
        .file(".wh..wh.plnk/1.2", b"");
    let summary = place.unpack(layer).unwrap();
    assert!(place.is_whiteout("gone") && place.is_whiteout("deep/gone") && place.is_opaque("opaque"));
    assert_eq!(summary.implicit, [Path::new(".wh..wh.plnk"), Path::new("deep")]);
}

#[test]
fn what_a_layer_has_itself_wins_over_its_own_whiteouts() {
    for whiteout_first in [true, false] {
        let place = Place::new();
        let whiteouts =
            |layer: Layer| layer.file(".wh.file", b"").file(".wh.folder", b"").file(".wh.bare", b"");
        let content = |layer: Layer| {
            layer.file("file", b"1").folder("folder").file("folder/x", b"2").file("bare/x", b"")
        };
        let layer = Layer::new();
        let layer = if whiteout_first { content(whiteouts(layer)) } else { whiteouts(content(layer)) };
        place.unpack(layer).unwrap();
        assert_eq!(fs::read(place.path("file")).unwrap(), b"1");
        assert_eq!(fs::read(place.path("folder/x")).unwrap(), b"2");
        assert!(place.is_opaque("folder") && place.is_opaque("bare"));
    }
}

#[test]
fn no_path_leads_out() {
    // Absolute paths count from the layer's root, as with Docker.
    let place = Place::new();
    place.unpack(Layer::new().file("/etc/x", b"1").symlink("l", "/").file("l/y", b"2")).unwrap();
    assert_eq!(fs::read(place.path("etc/x")).unwrap(), b"1");
    assert_eq!(fs::read(place.path("y")).unwrap(), b"2", "a link's root is the layer's");

    let place = Place::new();
    let layer = Layer::new().symlink("l", "../../../../../../outside").folder("outside").file("l/z", b"3");
    place.unpack(layer).unwrap();
    assert_eq!(fs::read(place.path("outside/z")).unwrap(), b"3");

    for layer in [
        Layer::new().file("../outside/x", b""),
        Layer::new().file("a/../../outside/x", b""),
        Layer::new().file("..", b""),
        Layer::new().file("", b""),
        Layer::new().file("/", b""),
        Layer::new().symlink(".", "/"),
        Layer::new().hard_link("x", "../outside/file"),
        Layer::new().hard_link("x", "/outside/file"),
        Layer::new().symlink("l", "../outside").hard_link("x", "l/file"),
        Layer::new().symlink("l", "../outside/file").hard_link("x", "l/y"),
        Layer::new().symlink("l", "../outside").file("l/x", b""),
        Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", b""),
        Layer::new().file("a", b"").file("a/b", b""),
        Layer::new().file(".wh.", b""),
        Layer::new().file(".wh..", b""),
        Layer::new().file(".wh...", b""),
        Layer::new().hard_link("x", "missing"),
        Layer::new().folder("d").hard_link("x", "d"),
        Layer::new().hard_link("x", "x"),
        Layer::new().entry(EntryType::new(b'Z'), "x", "", b"", |_| {}),
        Layer::new().pax(&[("path", b"../outside/x")]).file("x", b""),
        Layer::new().pax(&[("path", b"a\0b")]).file("x", b""),
        Layer::new().pax(&[("path", &[b'x'; 5000])]).file("x", b""),
        Layer::new().pax(&[("path", &[b'x'; 300])]).file("x", b""),
    ] {
        let refused = Place::new().unpack(layer).map(|summary| panic!("{summary:?}")).unwrap_err();
        assert!(!refused.to_string().is_empty());
    }
}

#[test]
fn a_link_swapped_for_a_folder_is_not_followed_out() {
    let place = Place::new();
    let outside = place.folder.path().join("outside");
    let layer = Layer::new()
        .folder("d")
        .file("d/file", b"1")
        .symlink("d", outside.to_str().unwrap())
        .entry(EntryType::Directory, "d", "", b"", |header| header.set_mode(0o700))
        .file("d/file", b"2");
    place.unpack(layer).unwrap();
    assert_eq!(fs::read(place.path("d/file")).unwrap(), b"2");
    assert!(place.stat("d").is_dir());

    // Files that are links by now are replaced, not written through.
    let place = Place::new();
    let target = outside.join("file");
    place.unpack(Layer::new().symlink("f", target.to_str().unwrap()).file("f", b"3")).unwrap();
    assert!(place.stat("f").is_file());
}

#[test]
fn the_last_entry_of_a_name_wins() {
    let place = Place::new();
    let layer = Layer::new()
        .file("x", b"1")
        .file("x", b"22")
        .folder("d")
        .folder("d/deep")
        .file("d/deep/y", b"")
        .file("d", b"file")
        .folder("e")
        .file("e/kept", b"")
        .entry(EntryType::Directory, "e", "", b"", |header| header.set_mode(0o700));
    place.unpack(layer).unwrap();
    assert_eq!(fs::read(place.path("x")).unwrap(), b"22");
    assert_eq!(fs::read(place.path("d")).unwrap(), b"file");
    assert!(place.stat("e/kept").is_file());
    assert_eq!(place.stat("e").mode() & 0o777, 0o700);
}

#[test]
fn folders_without_entries_are_like_those_below() {
    let (low, middle, high) = (Place::new(), Place::new(), Place::new());
    let sticky = |header: &mut tar::Header| {
        header.set_mode(0o1777);
        header.set_uid(7);
    };
    let layer = Layer::new().pax(&[("SCHILY.xattr.user.a", b"b")]).entry(
        EntryType::Directory,
        "tmp",
        "",
        b"",
        sticky,
    );
    low.unpack(layer.symlink("l", "tmp").folder("d")).unwrap();
    middle.unpack(Layer::new().file("l/x", b"")).unwrap();
    let summary = high
        .unpack(Layer::new().file("tmp/new/x", b"").file("l/x", b"").file("d/x", b"").folder("d"))
        .unwrap();
    assert_eq!(summary.implicit, ["l", "tmp", "tmp/new"].map(Path::new));
    inherit(&high.path(""), &summary.implicit, &[middle.path(""), low.path("")]).unwrap();
    let stat = high.stat("tmp");
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.mtime()), (0o1777, 7, 1_600_000_000));
    assert_eq!(high.xattr("tmp", "user.a").as_deref(), Some(&b"b"[..]));
    assert_eq!(high.stat("tmp/new").mode() & 0o7777, 0o755);
}

#[test]
fn folders_deeper_than_any_table_of_open_files_are_removed() {
    let place = Place::new();
    let mut layer = Layer::new();
    let mut path = String::new();
    // Each entry goes on where a link leads, so that paths stay short while folders get deep.
    for round in 0..60 {
        path.clear();
        path.push_str(&format!("l{round}"));
        let step = "d/".repeat(45);
        let target = if round == 0 {
            "top".to_owned()
        } else {
            format!("l{}/{}", round - 1, step.trim_end_matches('/'))
        };
        layer = layer.pax(&[("linkpath", target.as_bytes())]).symlink(&path, "");
        layer = if round == 0 { layer.folder("top") } else { layer };
        layer = layer.pax(&[("path", format!("l{round}/{step}f").as_bytes())]).file("f", b"");
    }
    match place.unpack(layer) {
        // The kernel follows forty links and no more.
        Ok(_) | Err(ArchiveError::Path { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    crate::remove_tree::remove_tree(&place.path("")).unwrap();
    assert!(!place.path("").exists());
}

#[derive(Clone, Debug)]
enum Node {
    File { content: Vec<u8>, mode: u32, uid: u32 },
    Folder { mode: u32, uid: u32 },
    Link(String),
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..2000), 0..0o10000u32, any::<u16>())
            .prop_map(|(content, mode, uid)| Node::File { content, mode, uid: uid.into() }),
        (0..0o10000u32, any::<u16>()).prop_map(|(mode, uid)| Node::Folder { mode, uid: uid.into() }),
        "[a-z/.]{1,60}".prop_map(Node::Link),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Trees written by another implementation come out as they went in.
    #[test]
    fn trees_survive(
        nodes in prop::collection::btree_map(prop::collection::vec("[a-c]|[d-f]{1,130}", 1..4), node(), 0..40)
    ) {
        let mut expected: BTreeMap<PathBuf, Node> = BTreeMap::new();
        let mut builder = tar::Builder::new(Vec::new());
        for (path, node) in nodes {
            let path: PathBuf = path.iter().collect();
            // Only folders have something in them.
            let fits = path.ancestors().skip(1).all(|above| match expected.get(above) {
                None | Some(Node::Folder { .. }) => true,
                Some(_) => false,
            });
            if !fits || expected.keys().any(|known| known.starts_with(&path)) {
                continue;
            }
            let mut header = tar::Header::new_gnu();
            header.set_mtime(1_234_567);
            match &node {
                Node::File { content, mode, uid } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_uid((*uid).into());
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, &path, content.as_slice()).unwrap();
                }
                Node::Folder { mode, uid } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_uid((*uid).into());
                    header.set_size(0);
                    builder.append_data(&mut header, &path, &[][..]).unwrap();
                }
                Node::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    // As it is: the path type would tidy it.
                    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
                    header.set_cksum();
                    builder.append_data(&mut header, &path, &[][..]).unwrap();
                }
            }
            expected.insert(path, node);
        }
        let place = Place::new();
        let bytes = builder.into_inner().unwrap();
        unpack_layer(&place.path(""), Archive::new(bytes.as_slice())).unwrap();
        for (path, node) in &expected {
            let path = place.path("").join(path);
            let stat = fs::symlink_metadata(&path).unwrap();
            prop_assert_eq!(stat.mtime(), 1_234_567);
            match node {
                Node::File { content, mode, uid } => {
                    prop_assert_eq!(&fs::read(&path).unwrap(), content);
                    prop_assert_eq!((stat.mode(), stat.uid()), (0o100000 | mode, *uid));
                }
                Node::Folder { mode, uid } => {
                    prop_assert_eq!((stat.mode(), stat.uid()), (0o40000 | mode, *uid));
                }
                Node::Link(target) => {
                    let found = fs::read_link(&path).unwrap();
                    prop_assert_eq!(found.as_os_str().as_bytes(), target.as_bytes());
                }
            }
        }
    }

    /// Whatever an archive does with a few names, it does it inside, and it never brings anything down.
    #[test]
    fn hostile_entries_stay_inside(
        entries in prop::collection::vec(
            (
                prop::sample::select(&b"0123456"[..]),
                prop::collection::vec(prop::sample::select(&["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "outside"][..]), 1..4),
                prop::collection::vec(prop::sample::select(&["a", "b", "..", "", "outside", "file"][..]), 1..5),
            ),
            1..25,
        )
    ) {
        let place = Place::new();
        for count in 1..=entries.len() {
            let layer = entries[..count].iter().fold(Layer::new(), |layer, (kind, path, link)| {
                layer.entry(EntryType::new(*kind), &path.join("/"), &link.join("/"), b"", |_| {})
            });
            if place.unpack(layer).is_err() {
                break;
            }
        }
    }
}
