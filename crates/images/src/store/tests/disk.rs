//! A disk that is full.

use std::path::Path;
use std::process::Command;

use super::{child, unused};
use crate::testing::{Layer, check_store, docker_archive, gzip, load};
use crate::{Import, ImportError, LoadError, Store};

/// Runs a test in a mount namespace of its own: mounts and their loop devices go with it, however it ends.
fn in_namespace(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let wrapper = ["unshare", "--mount", "--propagation", "private", "--"];
    let variables = [("SKEP_FOLDER", folder.path().to_str().unwrap())];
    let output = child(&wrapper, test, &variables).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Mounts a new file system of `bytes` bytes on `<folder>/disk`.
fn mount_disk(folder: &Path, bytes: u64) -> std::path::PathBuf {
    let (image, disk) = (folder.join("disk.img"), folder.join("disk"));
    std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
    std::fs::create_dir(&disk).unwrap();
    run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    run("mount", &["-o", "loop", image.to_str().unwrap(), disk.to_str().unwrap()]);
    disk
}

#[test]
fn a_full_disk_is_told_and_changes_nothing() {
    in_namespace("store::tests::disk::fill_a_disk");
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut ids = skep_types::Ids::new(seed.into());
    (0..length / 8).flat_map(|_| ids.next_u64().to_le_bytes()).collect()
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn fill_a_disk() {
    let folder = std::path::PathBuf::from(std::env::var_os("SKEP_FOLDER").unwrap());
    let root = mount_disk(&folder, 16 << 20).join("images");
    let store = Store::open(&root).unwrap();
    let small = docker_archive(&["small"], &[Layer::new().file("x", &noise(1 << 20, 1)).bytes()]);
    load(&store, &small).unwrap();

    // In the middle of a file, of many files, and where the archive is compressed.
    let large = Layer::new().file("large", &noise(20 << 20, 2)).bytes();
    let many = (0..8_000).fold(Layer::new(), |layer, number| layer.file(&format!("f{number}"), b"x")).bytes();
    for layer in [large, many] {
        for archive in [
            docker_archive(&["big"], std::slice::from_ref(&layer)),
            gzip(&docker_archive(&["big"], std::slice::from_ref(&layer))),
        ] {
            let refused = load(&store, &archive).unwrap_err();
            assert!(matches!(&refused, LoadError::Store(error) if error.is_disk_full()), "{refused:?}");
            assert!(refused.to_string().ends_with("no space left on device"), "{refused}");
            assert_eq!(store.list().unwrap().len(), 1);
            check_store(&store, &root);
        }
        let refused = store.import(&mut layer.as_slice(), Import::default()).unwrap_err();
        assert!(matches!(&refused, ImportError::Store(error) if error.is_disk_full()), "{refused:?}");
        check_store(&store, &root);
    }

    // Not a byte is left: now what is there can still be used, and removed.
    fill(&root.join("../filler"));
    let refused = store.tag("small", &"other".parse().unwrap());
    assert!(refused.is_err(), "there is no room for another name");
    assert_eq!(store.list().unwrap().len(), 1);
    drop(store);
    let store = Store::open(&root).unwrap();
    assert!(store.repairs().is_empty());
    store.remove("small", false, &unused).unwrap();
    check_store(&store, &root);
    std::fs::remove_file(root.join("../filler")).unwrap();
    load(&store, &small).unwrap();
    check_store(&store, &root);
}

/// Takes all that the file system has.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let mut piece = vec![1; 1 << 20];
    while !piece.is_empty() {
        match file.write(&piece) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
            Err(error) => panic!("{error}"),
        }
    }
    file.sync_all().unwrap();
}
