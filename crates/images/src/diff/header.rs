//! Writing the blocks that start an entry: ustar, with PAX where that is too narrow.

use std::io::{self, Write};

use rustix::fs::{FileType, Stat};

const BLOCK: usize = 512;
const NAME_LENGTH: usize = 100;
/// The largest numbers of seven and of eleven octal digits.
const SMALL_NUMBER: u64 = 0o7_777_777;
const LARGE_NUMBER: u64 = 0o77_777_777_777;

/// What an entry says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// One of a file with these properties, without a link's target, a file's size and attributes.
    pub(super) fn new(path: &[u8], stat: &Stat) -> Entry {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        Entry {
            path: path.to_vec(),
            flag: match kind {
                FileType::Directory => b'5',
                FileType::Symlink => b'2',
                FileType::CharacterDevice => b'3',
                FileType::BlockDevice => b'4',
                FileType::Fifo => b'6',
                _ => b'0',
            },
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: u64::try_from(stat.st_mtime).unwrap_or_default(),
            device: if is_device {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            } else {
                (0, 0)
            },
            ..Entry::default()
        }
    }
}

/// Writes an entry's headers; its content, `size` bytes, and the padding are the caller's.
pub(crate) fn write_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let records = records(entry);
    if !records.is_empty() {
        let extension = Entry {
            path: b"PaxHeaders.0/entry".to_vec(),
            flag: b'x',
            size: records.len() as u64,
            mode: 0o644,
            ..Entry::default()
        };
        out.write_all(&block(&extension))?;
        out.write_all(&records)?;
        write_padding(out, records.len() as u64)?;
    }
    out.write_all(&block(entry))
}

/// Fills up the last block of `size` bytes.
pub(crate) fn write_padding(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let used = (size % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..(BLOCK - used) % BLOCK])
}

/// What the plain header has no room for.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.path.len() > NAME_LENGTH {
        record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() > NAME_LENGTH {
        record(&mut records, b"linkpath", &entry.link);
    }
    for (name, number, most) in [
        ("uid", u64::from(entry.uid), SMALL_NUMBER),
        ("gid", u64::from(entry.gid), SMALL_NUMBER),
        ("size", entry.size, LARGE_NUMBER),
        ("mtime", entry.mtime, LARGE_NUMBER),
    ] {
        if number > most {
            record(&mut records, name.as_bytes(), number.to_string().as_bytes());
        }
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// `length name=value\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", name, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

fn block(entry: &Entry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &entry.path[..entry.path.len().min(NAME_LENGTH)]);
    put(100, octal(entry.mode.into(), 7).as_bytes());
    put(108, octal(entry.uid.into(), 7).as_bytes());
    put(116, octal(entry.gid.into(), 7).as_bytes());
    put(124, octal(entry.size, 11).as_bytes());
    put(136, octal(entry.mtime, 11).as_bytes());
    put(148, b"        ");
    put(156, &[entry.flag]);
    put(157, &entry.link[..entry.link.len().min(NAME_LENGTH)]);
    put(257, b"ustar\x0000");
    put(329, octal(entry.device.0.into(), 7).as_bytes());
    put(337, octal(entry.device.1.into(), 7).as_bytes());
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Octal digits; zero where a PAX record says what does not fit.
fn octal(number: u64, digits: usize) -> String {
    let fits = number >> (3 * digits) == 0;
    format!("{:0digits$o}", if fits { number } else { 0 })
}
