//! Archives that are no layers: the context of a build, and what `ADD` unpacks.

use std::io::{BufReader, Read};
use std::path::Path;

use super::{Whiteouts, unpack};
use crate::compression::{Compression, HEAD, read_full};
use crate::error::{BuildError, Failure};
use crate::tar::{self, Archive};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

/// Unpacks an archive, plain or compressed, into a folder, in place of what is there by the same names. Nothing leads out of it.
///
/// # Errors
/// The archive or the disk is at fault; what was unpacked before stays.
pub fn unpack_files(mut input: &mut dyn Read, folder: &Path) -> Result<(), BuildError> {
    let mut head = [0; HEAD];
    let length = read_full(&mut input, &mut head).map_err(Failure::from_read)?;
    let head = &head[..length];
    let decoded = Compression::sniff(head).decode(head.chain(input));
    let archive = Archive::new(BufReader::with_capacity(BUFFER, decoded));
    unpack(folder, archive, Whiteouts::AreFiles)?;
    Ok(())
}

/// Whether a file is an archive that [`unpack_files`] is for. What cannot be read is none.
pub fn is_archive(mut input: &mut dyn Read) -> bool {
    let mut head = [0; HEAD];
    let Ok(length) = read_full(&mut input, &mut head) else { return false };
    let compression = Compression::sniff(&head[..length]);
    let mut first = [0; HEAD];
    let mut decoded = compression.decode(head[..length].chain(input));
    let length = read_full(&mut decoded, &mut first).unwrap_or_default();
    first != [0; HEAD] && tar::looks_like_tar(&first[..length])
}
