//! Files with holes in GNU's old form: a map in the header says where the stored bytes belong.

use crate::error::{ArchiveError, Failure};
use crate::tar::header::{BLOCK, number};

/// Most pieces that a file may be in.
const SEGMENT_LIMIT: usize = 65_536;
const MALFORMED: ArchiveError = ArchiveError::Header("malformed map of a sparse file");

/// A run of stored bytes, and where in the file it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Reads the map that starts in `header` and may go on in the blocks after it; the map and the length of
/// the file.
pub(super) fn read_map(
    header: &[u8; BLOCK],
    mut next_block: impl FnMut() -> Result<[u8; BLOCK], Failure>,
) -> Result<(Vec<Segment>, u64), Failure> {
    let mut segments = Vec::new();
    take_segments(&header[386..482], &mut segments)?;
    let size = u64::try_from(number(&header[483..495])?).map_err(|_| MALFORMED)?;
    let mut more = header[482] != 0;
    while more {
        let block = next_block()?;
        take_segments(&block[..504], &mut segments)?;
        more = block[504] != 0;
    }
    Ok((segments, size))
}

fn take_segments(fields: &[u8], segments: &mut Vec<Segment>) -> Result<(), ArchiveError> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        if segments.len() == SEGMENT_LIMIT {
            return Err(ArchiveError::Header("sparse file in too many pieces"));
        }
        let unsigned = |field| u64::try_from(number(field)?).map_err(|_| MALFORMED);
        segments.push(Segment { offset: unsigned(&pair[..12])?, length: unsigned(&pair[12..])? });
    }
    Ok(())
}

/// Segments must be in order, apart, within the file, and account for all stored bytes.
pub(super) fn check(segments: &[Segment], stored: u64, size: u64) -> Result<(), ArchiveError> {
    let mut end = 0u64;
    let mut total = 0u64;
    for segment in segments {
        if segment.offset < end {
            return Err(MALFORMED);
        }
        end = segment.offset.checked_add(segment.length).ok_or(MALFORMED)?;
        total += segment.length;
    }
    if end > size || total != stored || size > i64::MAX as u64 { Err(MALFORMED) } else { Ok(()) }
}
