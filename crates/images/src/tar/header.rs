//! The 512 bytes that start an entry.

use std::ops::Range;

use crate::error::ArchiveError;
use crate::tar::{Entry, Kind};

pub(crate) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

pub(super) struct Header {
    pub(super) flag: u8,
    pub(super) entry: Entry,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Header, ArchiveError> {
        verify_checksum(block)?;
        let flag = block[FLAG];
        let mut path = text(&block[NAME]).to_vec();
        // Only POSIX's form has a prefix; GNU keeps other times there.
        if &block[MAGIC] == b"ustar\x0000" {
            let prefix = text(&block[PREFIX]);
            if !prefix.is_empty() {
                path = [prefix, b"/", &path].concat();
            }
        }
        let kind = match flag {
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let is_device = matches!(kind, Kind::Character | Kind::Block);
        let device = |field| if is_device { unsigned(&block[field]) } else { Ok(0) };
        let entry = Entry {
            kind,
            path,
            link: text(&block[LINK]).to_vec(),
            mode: narrow(number(&block[MODE])? & 0o7777)?,
            uid: narrow(number(&block[UID])?)?,
            gid: narrow(number(&block[GID])?)?,
            size: number(&block[SIZE])?.try_into().map_err(|_| ArchiveError::Header("negative size"))?,
            mtime: (number(&block[MTIME])?, 0),
            major: device(MAJOR)?,
            minor: device(MINOR)?,
            xattrs: Vec::new(),
            segments: None,
        };
        Ok(Header { flag, entry })
    }
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), ArchiveError> {
    let stored = number(&block[CHECKSUM])?;
    let sums = block.iter().enumerate().fold((0i64, 0i64), |(unsigned, signed), (index, byte)| {
        let byte = if CHECKSUM.contains(&index) { b' ' } else { *byte };
        (unsigned + i64::from(byte), signed + i64::from(byte as i8))
    });
    // Some old writers added signed bytes.
    if stored == sums.0 || stored == sums.1 { Ok(()) } else { Err(ArchiveError::Header("wrong checksum")) }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn unsigned(field: &[u8]) -> Result<u32, ArchiveError> {
    narrow(number(field)?)
}

fn narrow(number: i64) -> Result<u32, ArchiveError> {
    // The largest one means "unchanged" to the kernel.
    u32::try_from(number)
        .ok()
        .filter(|value| *value != u32::MAX)
        .ok_or(ArchiveError::Header("number out of range"))
}

/// A number in octal digits, or in GNU's base 256.
pub(super) fn number(field: &[u8]) -> Result<i64, ArchiveError> {
    const REFUSED: ArchiveError = ArchiveError::Header("malformed number");
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0] as i8) } else { i128::from(field[0] & 0x3f) };
        // Twelve bytes at most, so the sum stays within 96 bits.
        let value = field[1..].iter().fold(first, |value, byte| (value << 8) | i128::from(*byte));
        return value.try_into().map_err(|_| REFUSED);
    }
    let digits = field.trim_ascii_start();
    let digits = digits.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
    digits
        .iter()
        .try_fold(0i64, |value, byte| match byte {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
            _ => None,
        })
        .ok_or(REFUSED)
}
