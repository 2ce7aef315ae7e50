//! How a layer's archive is put together again, byte for byte, from the folder that it was unpacked into.
//!
//! A recipe holds all bytes of the archive but the contents of its files (headers, padding, what follows the end),
//! compressed, and says where the files' contents are in the folder. So nothing is stored twice, and a layer can be
//! pushed or saved under the digest it came with. As Docker's tar-split. Whoever reads an archive so made compares its
//! digest: a file that the same archive wrote twice cannot be had again.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::tar::Segment;

/// Literal bytes are written when they are this many.
const LITERAL_BUFFER: usize = 64 * 1024;
/// Longest path that is read back; the kernel's own limit.
const PATH_LIMIT: u64 = 4096;
/// Most segments of one file that are read back; see `tar::sparse`.
const SEGMENT_LIMIT: u64 = 65_536;
const LITERAL: u8 = 0;
const CONTENT: u8 = 1;

/// Writes a recipe while the archive is read.
pub(crate) struct Recorder {
    out: GzEncoder<BufWriter<File>>,
    literal: Vec<u8>,
    /// The file whose content is next, and where in it.
    content: Option<(Vec<u8>, Vec<Segment>)>,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> io::Result<Recorder> {
        let out = GzEncoder::new(BufWriter::new(File::create_new(path)?), Compression::fast());
        Ok(Recorder { out, literal: Vec::new(), content: None })
    }

    /// Bytes that the recipe must hold.
    pub(crate) fn literal(&mut self, bytes: &[u8]) {
        self.literal.extend_from_slice(bytes);
    }

    /// The content that comes now is that of the file `path` of the folder.
    pub(crate) fn content(&mut self, path: &[u8], segments: Vec<Segment>) {
        self.content = Some((path.to_vec(), segments));
    }

    /// Whether what is read now is content.
    pub(crate) fn in_content(&self) -> bool {
        self.content.is_some()
    }

    /// Writes what was recorded: all of it if a file's content ended here, or if much has come together.
    pub(crate) fn flush(&mut self, always: bool) -> io::Result<()> {
        if !always && self.content.is_none() && self.literal.len() < LITERAL_BUFFER {
            return Ok(());
        }
        if !self.literal.is_empty() {
            self.out.write_all(&[LITERAL])?;
            self.number(self.literal.len() as u64)?;
            self.out.write_all(&self.literal)?;
            self.literal.clear();
        }
        if let Some((path, segments)) = self.content.take() {
            self.out.write_all(&[CONTENT])?;
            self.number(path.len() as u64)?;
            self.out.write_all(&path)?;
            self.number(segments.len() as u64)?;
            for segment in segments {
                self.number(segment.offset)?;
                self.number(segment.length)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush(true)?;
        self.out.finish()?.flush()
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.out.write_all(&number.to_le_bytes())
    }
}

/// An archive that is put together again as it is read.
pub(crate) struct Rebuilt {
    recipe: GzDecoder<BufReader<File>>,
    folder: OwnedFd,
    /// Bytes of the recipe itself that come next.
    literal: u64,
    file: Option<File>,
    /// What of the file comes next, in reverse.
    segments: Vec<Segment>,
}

impl Rebuilt {
    pub(crate) fn open(recipe: &Path, folder: &Path) -> io::Result<Rebuilt> {
        let recipe = GzDecoder::new(BufReader::new(File::open(recipe)?));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        Ok(Rebuilt { recipe, folder, literal: 0, file: None, segments: Vec::new() })
    }

    /// The bytes of the whole archive, by its recipe alone.
    pub(crate) fn measure(recipe: &Path, folder: &Path) -> io::Result<u64> {
        let mut rebuilt = Rebuilt::open(recipe, folder)?;
        let mut total = 0u64;
        while rebuilt.step()? {
            let content = rebuilt.segments.iter().fold(0u64, |sum, it| sum.saturating_add(it.length));
            total = total.saturating_add(rebuilt.literal).saturating_add(content);
            io::copy(&mut (&mut rebuilt.recipe).take(rebuilt.literal), &mut io::sink())?;
            (rebuilt.literal, rebuilt.file) = (0, None);
            rebuilt.segments.clear();
        }
        Ok(total)
    }

    /// Begins the next step; `false` at the end.
    fn step(&mut self) -> io::Result<bool> {
        let mut tag = [0];
        if self.recipe.read(&mut tag)? == 0 {
            return Ok(false);
        }
        match tag[0] {
            LITERAL => self.literal = self.number(u64::MAX)?,
            CONTENT => {
                let mut path = vec![0; self.number(PATH_LIMIT)? as usize];
                self.recipe.read_exact(&mut path)?;
                let count = self.number(SEGMENT_LIMIT)?;
                self.segments.clear();
                for _ in 0..count {
                    let (offset, length) = (self.number(u64::MAX)?, self.number(u64::MAX)?);
                    self.segments.push(Segment { offset, length });
                }
                self.segments.reverse();
                self.file = Some(self.open_file(&path)?);
            }
            _ => return Err(damaged()),
        }
        Ok(true)
    }

    fn number(&mut self, limit: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.recipe.read_exact(&mut bytes)?;
        let number = u64::from_le_bytes(bytes);
        if number > limit { Err(damaged()) } else { Ok(number) }
    }

    /// Opens a file as unpacking did: the folder is the root of all links on the way.
    fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = PathBuf::from(OsStr::from_bytes(path));
        loop {
            match rustix::fs::openat2(&self.folder, &path, flags, Mode::empty(), how) {
                // The kernel could not rule out a rename while it resolved a `..` of a link.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return Ok(File::from(opened?)),
            }
        }
    }
}

impl Read for Rebuilt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.literal > 0 {
                let limit = buffer.len().min(usize::try_from(self.literal).unwrap_or(usize::MAX));
                let count = self.recipe.read(&mut buffer[..limit])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.literal -= count as u64;
                return Ok(count);
            }
            match (&self.file, self.segments.last_mut()) {
                (Some(file), Some(segment)) if segment.length > 0 => {
                    let limit = buffer.len().min(usize::try_from(segment.length).unwrap_or(usize::MAX));
                    let count = file.read_at(&mut buffer[..limit], segment.offset)?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    segment.offset += count as u64;
                    segment.length -= count as u64;
                    return Ok(count);
                }
                (Some(_), Some(_)) => {
                    self.segments.pop();
                }
                (Some(_), None) => self.file = None,
                (None, _) => {
                    if !self.step()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the layer's recipe is damaged")
}
