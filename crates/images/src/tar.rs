//! Reading tar archives from a stream: ustar, PAX and GNU.
//!
//! Written for input that nobody vouches for: every length is bounded before memory is taken for it. It
//! follows Go's archive/tar, which wrote most images, where the formats leave room.

mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::error::{ArchiveError, Failure, StoreError};
use crate::recipe::Recorder;
use header::{BLOCK, Header};
use pax::Extensions;
pub(crate) use sparse::Segment;

/// Longest PAX header or GNU long name that is read. Go's limit.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
    /// A type flag that is not known.
    Other(u8),
}

impl Kind {
    /// Whether the entry has no data whatever its size says. As Go.
    fn is_header_only(self) -> bool {
        !matches!(self, Kind::File | Kind::Other(_))
    }
}

/// One entry's description.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Length of the file, holes included.
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Names and values.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data belongs, if the file has holes.
    pub(crate) segments: Option<Vec<Segment>>,
}

/// An archive that is being read.
pub(crate) struct Archive<R> {
    input: R,
    /// Bytes of the current entry's data that were not read yet.
    remaining: u64,
    /// Bytes after them up to the next block.
    padding: u64,
    ended: bool,
    /// Takes note of all that is read.
    recorder: Option<Recorder>,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(input: R) -> Archive<R> {
        Archive { input, remaining: 0, padding: 0, ended: false, recorder: None }
    }

    /// As [`Archive::new`]; `recorder` takes note of all that is read.
    pub(crate) fn recorded(input: R, recorder: Recorder) -> Archive<R> {
        Archive { recorder: Some(recorder), ..Archive::new(input) }
    }

    /// The current entry's data, unread so far, goes to the file `path`; all of it will be read.
    pub(crate) fn data_goes_to(&mut self, path: &[u8], segments: Option<&[Segment]>) {
        let length = self.remaining;
        if let Some(recorder) = self.recorder.as_mut().filter(|_| length > 0) {
            let whole = [Segment { offset: 0, length }];
            recorder.content(path, segments.unwrap_or(&whole).to_vec());
        }
    }

    /// Ends the record, after [`Archive::drain`].
    pub(crate) fn finish_record(&mut self) -> io::Result<()> {
        self.recorder.take().map_or(Ok(()), Recorder::finish)
    }

    fn flush_record(&mut self) -> Result<(), Failure> {
        match self.recorder.as_mut().map(|recorder| recorder.flush(false)) {
            Some(Err(error)) => Err(StoreError::at("writing", Path::new("a layer's recipe"))(error).into()),
            _ => Ok(()),
        }
    }

    /// Takes `count` bytes that are no file's content.
    fn consume_literal(&mut self, count: usize) -> Result<(), Failure> {
        if let Some(recorder) = &mut self.recorder {
            let available = self.input.fill_buf().map_err(Failure::from_read)?;
            recorder.literal(&available[..count]);
        }
        self.input.consume(count);
        self.flush_record()
    }

    /// The next entry, past what was left of the last one's data; `None` at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Failure> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else { return Ok(None) };
            let mut header = Header::parse(&block)?;
            match header.flag {
                b'x' => extensions.read_pax(&self.read_extension(&header)?)?,
                // Global headers are rare and Docker ignores them.
                b'g' => drop(self.read_extension(&header)?),
                b'L' => extensions.path = Some(trim_nul(self.read_extension(&header)?)),
                b'K' => extensions.link = Some(trim_nul(self.read_extension(&header)?)),
                _ => {
                    extensions.apply(&mut header)?;
                    return self.begin(header, &block).map(Some);
                }
            }
        }
    }

    /// Sets the stage for an entry's data.
    fn begin(&mut self, header: Header, block: &[u8; BLOCK]) -> Result<Entry, Failure> {
        let mut entry = header.entry;
        let stored = if entry.kind.is_header_only() { 0 } else { entry.size };
        if header.flag == b'S' {
            let (segments, size) = sparse::read_map(block, || self.block())?;
            sparse::check(&segments, stored, size)?;
            entry.segments = Some(segments);
            entry.size = size;
        } else {
            entry.size = stored;
        }
        self.expect_data(stored)?;
        Ok(entry)
    }

    fn expect_data(&mut self, size: u64) -> Result<(), Failure> {
        if size > i64::MAX as u64 {
            return Err(ArchiveError::Header("size out of range").into());
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>, Failure> {
        let size = header.entry.size;
        if size > EXTENSION_LIMIT {
            return Err(ArchiveError::Header("extended header larger than 1 MiB").into());
        }
        self.expect_data(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(Failure::from_read)?;
        Ok(bytes)
    }

    fn skip_data(&mut self) -> Result<(), Failure> {
        let mut left = self.remaining + self.padding;
        (self.remaining, self.padding) = (0, 0);
        self.flush_record()?;
        while left > 0 {
            let available = self.input.fill_buf().map_err(Failure::from_read)?.len();
            if available == 0 {
                return Err(ArchiveError::Truncated.into());
            }
            let step = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.consume_literal(step)?;
            left -= step as u64;
        }
        Ok(())
    }

    /// The next block that is not zero; `None` after two that are, or at the end of the input.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Failure> {
        if self.ended || self.input.fill_buf().map_err(Failure::from_read)?.is_empty() {
            return Ok(None);
        }
        let block = self.block()?;
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        self.ended = true;
        let at_end = self.input.fill_buf().map_err(Failure::from_read)?.is_empty();
        if !at_end && self.block()? != [0; BLOCK] {
            return Err(ArchiveError::Header("data after the end of the archive").into());
        }
        Ok(None)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], Failure> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(Failure::from_read)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.literal(&block);
        }
        Ok(block)
    }

    /// Reads and drops everything up to the end of the input.
    pub(crate) fn drain(&mut self) -> Result<(), Failure> {
        loop {
            let available = self.input.fill_buf().map_err(Failure::from_read)?.len();
            if available == 0 {
                return Ok(());
            }
            self.consume_literal(available)?;
        }
    }
}

impl<R> Archive<R> {
    /// Data that is not known to go to a file is kept.
    fn note(&mut self, data: &[u8]) {
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| !recorder.in_content()) {
            recorder.literal(data);
        }
    }
}

/// The current entry's data.
impl<R: BufRead> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..limit])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.note(&buffer[..count]);
        self.remaining -= count as u64;
        Ok(count)
    }
}

/// The current entry's data, without copying it.
impl<R: BufRead> BufRead for Archive<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf()?;
        if available.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&available[..available.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, count: usize) {
        self.remaining -= count as u64;
        self.input.consume(count);
    }
}

/// Whether `head` is the first block of a tar archive, perhaps an empty one.
pub(crate) fn looks_like_tar(head: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(head) else { return false };
    *block == [0; BLOCK] || Header::parse(block).is_ok()
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
