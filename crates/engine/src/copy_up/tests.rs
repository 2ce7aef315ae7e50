#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::*;

struct Image {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Image {
    /// As many empty layers as asked for, topmost first.
    fn new(count: usize) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = (0..count).map(|layer| dir.path().join(format!("layer{layer}"))).collect();
        layers.iter().for_each(|layer| fs::create_dir(layer).unwrap());
        Image { dir, layers }
    }

    fn write(&self, layer: usize, path: &str, content: &str) {
        let path = self.layers[layer].join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn whiteout(&self, layer: usize, path: &str) {
        let path = self.layers[layer].join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn copy(&self, target: &str) -> PathBuf {
        let into = self.dir.path().join("volume");
        fs::create_dir(&into).unwrap();
        copy_up(&self.layers, Path::new(target), &into).unwrap();
        into
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn layers_are_merged() {
    let image = Image::new(3);
    image.write(2, "data/old", "old");
    image.write(2, "data/replaced", "below");
    image.write(2, "data/gone", "gone");
    image.write(2, "data/sub/hidden", "hidden");
    image.write(1, "data/replaced", "above");
    image.whiteout(1, "data/gone");
    image.write(0, "data/sub/new", "new");
    setxattr(image.layers[0].join("data/sub"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    let volume = image.copy("/data");
    assert_eq!(names(&volume), ["old", "replaced", "sub"]);
    assert_eq!(fs::read_to_string(volume.join("replaced")).unwrap(), "above");
    assert_eq!(names(&volume.join("sub")), ["new"]);
    let mut value = [0; 8];
    assert!(rustix::fs::getxattr(volume.join("sub"), "trusted.overlay.opaque", &mut value[..]).is_err());
}

#[test]
fn properties_and_links_are_kept() {
    let image = Image::new(1);
    image.write(0, "data/one", "shared");
    let data = image.layers[0].join("data");
    fs::hard_link(data.join("one"), data.join("two")).unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    std::os::unix::fs::chown(data.join("one"), Some(1234), Some(5678)).unwrap();
    fs::set_permissions(data.join("one"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
    setxattr(data.join("one"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    let volume = image.copy("/data");
    let (one, two) = (fs::metadata(volume.join("one")).unwrap(), fs::metadata(volume.join("two")).unwrap());
    assert_eq!(one.ino(), two.ino());
    assert_eq!((one.uid(), one.gid(), one.mode() & 0o7777), (1234, 5678, 0o4750));
    assert_eq!(one.mtime_nsec(), fs::metadata(data.join("one")).unwrap().mtime_nsec());
    assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1777);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(volume.join("one"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn links_on_the_way_stay_inside_the_image() {
    let image = Image::new(2);
    let outside = image.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    image.write(1, "real/file", "inside");
    symlink("../../../../real", image.layers[0].join("relative")).unwrap();
    symlink("/relative", image.layers[0].join("absolute")).unwrap();
    symlink(&outside, image.layers[0].join("escape")).unwrap();
    symlink("loop", image.layers[0].join("loop")).unwrap();
    let layers = Layers::open(&image.layers).unwrap();
    assert!(layers.resolve(Path::new("/escape")).unwrap().is_none());
    assert!(layers.resolve(Path::new("/loop")).is_err());
    assert!(layers.resolve(Path::new("/real/file/x")).unwrap().is_none());
    assert_eq!(names(&image.copy("/absolute")), ["file"]);
}

#[test]
fn nothing_at_the_mount_point_leaves_the_volume_empty() {
    let image = Image::new(1);
    image.write(0, "file", "no folder");
    let volume = image.copy("/absent");
    copy_up(&image.layers, Path::new("/file"), &volume).unwrap();
    assert!(names(&volume).is_empty());
}
