use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{CWD, XattrFlags};

use super::*;
use crate::testing::memory_folder;
use crate::{Digest, pipeline};

fn archive(folder: &Path) -> (Vec<u8>, Changes) {
    let mut bytes = Vec::new();
    let changes = write(folder, &mut bytes).unwrap();
    (bytes, changes)
}

/// Unpacked and written again, an archive is the same.
#[test]
fn what_is_written_unpacks_to_the_same() {
    let made = memory_folder();
    let upper = made.path().join("upper");
    std::fs::create_dir_all(upper.join("dir/sub")).unwrap();
    std::fs::write(upper.join("dir/file"), vec![7; 1000]).unwrap();
    std::fs::set_permissions(upper.join("dir/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::fs::hard_link(upper.join("dir/file"), upper.join("dir/other")).unwrap();
    symlink("x".repeat(150), upper.join("link")).unwrap();
    let long = "n".repeat(120);
    std::fs::write(upper.join(&long), "long").unwrap();
    rustix::fs::chownat(
        CWD,
        upper.join(&long),
        Some(rustix::fs::Uid::from_raw(3_000_000)),
        Some(rustix::fs::Gid::from_raw(5)),
        AtFlags::empty(),
    )
    .unwrap();
    rustix::fs::setxattr(upper.join(&long), "user.a", b"b=c\n", XattrFlags::empty()).unwrap();
    rustix::fs::mknodat(CWD, upper.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    rustix::fs::mknodat(CWD, upper.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    rustix::fs::setxattr(upper.join("dir/sub"), OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty()).unwrap();
    let (bytes, changes) = archive(&upper);
    assert_eq!(changes, Changes { entries: 9, size: 1154, ..Changes::default() });
    assert_eq!(measure(&upper).unwrap(), bytes.len() as u64);
    let again = made.path().join("again");
    std::fs::create_dir(&again).unwrap();
    let unpacked = pipeline::unpack(&mut bytes.as_slice(), &again, &mut |_| {}).unwrap();
    assert_eq!(unpacked.diff_id.0, Digest::of(&bytes));
    assert_eq!(unpacked.summary.implicit, [""; 0].map(std::path::PathBuf::from));
    assert_eq!(archive(&again).0, bytes);
    let names: Vec<String> = tar::Archive::new(bytes.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let expected = [
        "dir/",
        "dir/file",
        "dir/other",
        "dir/sub/",
        "dir/sub/.wh..wh..opq",
        ".wh.gone",
        "link",
        long.as_str(),
        "pipe",
    ];
    assert_eq!(names, expected);
}

#[test]
fn nothing_written_is_no_archive() {
    let made = memory_folder();
    assert_eq!(archive(made.path()), (Vec::new(), Changes::default()));
}
