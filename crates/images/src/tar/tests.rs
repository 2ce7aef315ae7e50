use std::io::Read;

use proptest::prelude::*;

use super::{Archive, Entry, Kind, Segment, looks_like_tar};
use crate::error::{ArchiveError, Failure};
use crate::testing::Layer;

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Failure> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        archive.read_to_end(&mut content).map_err(Failure::from_read)?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn refusal(bytes: &[u8]) -> ArchiveError {
    match read_all(bytes) {
        Err(Failure::Archive(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pax_records_win_over_the_header() {
    let long = "n".repeat(300);
    let layer = Layer::new().pax(&[
        ("path", long.as_bytes()),
        ("uid", b"3000000"),
        ("gid", b"4000000"),
        ("mtime", b"-1.25"),
        ("SCHILY.xattr.user.empty", b""),
        ("comment", b"ignored"),
    ]);
    let entries = read_all(&layer.file("short", b"text").file("next", b"").bytes()).unwrap();
    let (entry, content) = &entries[0];
    assert_eq!((entry.path.as_slice(), entry.uid, entry.gid), (long.as_bytes(), 3_000_000, 4_000_000));
    assert_eq!((entry.mtime, content.as_slice()), ((-2, 750_000_000), &b"text"[..]));
    assert_eq!(entry.xattrs, [(b"user.empty".to_vec(), Vec::new())]);
    assert_eq!(entries[1].0.path, b"next", "they hold for one entry");
}

#[test]
fn numbers_beyond_octal_are_read() {
    let layer = Layer::new().entry(tar::EntryType::Regular, "x", "", b"", |header| {
        header.as_old_mut().uid.copy_from_slice(&[0x80, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
        header.as_old_mut().mtime.copy_from_slice(&[0xff; 12]);
    });
    let (entry, _) = &read_all(&layer.bytes()).unwrap()[0];
    assert_eq!((entry.uid, entry.mtime), (0x1234_5678, (-1, 0)));
}

#[test]
fn old_sparse_files_are_mapped() {
    let layer = Layer::new().entry(tar::EntryType::GNUSparse, "x", "", &[7; 1024], |header| {
        let bytes = header.as_mut_bytes();
        bytes[257..265].copy_from_slice(b"ustar  \0");
        for (at, number) in [(386, 512), (398, 512), (410, 4096), (422, 512), (483, 8192)] {
            bytes[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
        }
    });
    let (entry, content) = &read_all(&layer.bytes()).unwrap()[0];
    let segment = |offset, length| Segment { offset, length };
    assert_eq!(entry.segments, Some(vec![segment(512, 512), segment(4096, 512)]));
    assert_eq!((entry.kind, entry.size, content.len()), (Kind::File, 8192, 1024));
}

#[test]
fn lengths_are_bounded_before_memory_is_taken() {
    for kind in [tar::EntryType::XHeader, tar::EntryType::GNULongName, tar::EntryType::XGlobalHeader] {
        let layer = Layer::new().entry(kind, "x", "", &[0; 512], |header| header.set_size(1 << 40));
        assert!(refusal(&layer.bytes()).to_string().contains("larger than 1 MiB"));
    }
}

#[test]
fn broken_archives_are_refused() {
    let good = Layer::new().file("x", &[1; 700]).bytes();
    assert_eq!(read_all(&good).unwrap().len(), 1);
    assert_eq!(read_all(&good[..512 + 1024]).unwrap().len(), 1, "the end mark may be missing, as with Go");
    assert_eq!(read_all(&good[..512 + 1024 + 512]).unwrap().len(), 1);
    for end in [1, 100, 511, 600, 512 + 700] {
        assert_eq!(refusal(&good[..end]), ArchiveError::Truncated, "{end}");
    }
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert_eq!(refusal(&flipped), ArchiveError::Header("wrong checksum"));
    for record in [
        &b"5 a=b\n"[..],
        b"a=b\n",
        b"99 a=b\n",
        b"3 \n",
        b"0 a=b\n",
        b"6 a=b ",
        b"18446744073709551616 a=b\n",
    ] {
        let layer = Layer::new().entry(tar::EntryType::XHeader, "x", "", record, |_| {});
        assert!(matches!(refusal(&layer.bytes()), ArchiveError::Header(_)), "{record:?}");
    }
    for (key, value) in [("uid", "4294967295"), ("size", "-1"), ("mtime", "x"), ("GNU.sparse.major", "1")] {
        let layer = Layer::new().pax(&[(key, value.as_bytes())]).file("x", b"");
        assert!(read_all(&layer.bytes()).is_err(), "{key}");
    }
}

#[test]
fn a_tar_archive_is_told_by_its_first_block() {
    assert!(looks_like_tar(&Layer::new().file("x", b"").bytes()[..512]));
    assert!(looks_like_tar(&[0; 512]));
    assert!(!looks_like_tar(&[b' '; 512]));
    assert!(!looks_like_tar(b"{}"));
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn damage_never_panics(
        changes in prop::collection::vec((0usize..4096, any::<u8>()), 1..6),
        fix_checksums in any::<bool>(),
    ) {
        let layer = Layer::new().pax(&[("mtime", b"1.5"), ("path", b"long")]).file("x", &[1; 700]).symlink("l", "x");
        let mut bytes = layer.bytes();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if fix_checksums {
            for block in bytes.chunks_exact_mut(512) {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let _ = read_all(&bytes);
    }
}
