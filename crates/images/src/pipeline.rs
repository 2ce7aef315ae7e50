//! One layer's way from a stream to the disk.
//!
//! The caller's thread reads, decompresses and hashes; a second one unpacks. Between them go buffers, a
//! few and always the same ones.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::compression::{Compression, HEAD, read_full};
use crate::digest::Hasher;
use crate::error::{Failure, StoreError};
use crate::recipe::Recorder;
use crate::tar::Archive;
use crate::unpack::{Summary, recipe_path, unpack_layer};
use crate::{DiffId, Digest};

/// Bytes handed over at once.
const PIECE: usize = 256 * 1024;
/// Pieces on their way.
const DEPTH: usize = 8;

/// A layer that was unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Digest of the bytes as they came.
    pub(crate) blob: Digest,
    /// Number of the bytes as they came.
    pub(crate) blob_size: u64,
    /// Digest of the bytes without compression.
    pub(crate) diff_id: DiffId,
    pub(crate) summary: Summary,
}

/// Takes note of all bytes that pass.
struct Meter<'a, R> {
    input: R,
    hasher: Hasher,
    count: u64,
    passed: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Meter<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        (self.passed)(self.count);
        Ok(count)
    }
}

/// Reads and hashes a stream to its end, and drops it; its digest and length.
pub(crate) fn measure(input: impl Read, passed: &mut dyn FnMut(u64)) -> Result<(Digest, u64), Failure> {
    let mut meter = Meter { input, hasher: Hasher::default(), count: 0, passed };
    drain(&mut meter)?;
    Ok((meter.hasher.finish(), meter.count))
}

/// Unpacks a layer's archive, compressed or not, into `folder`, which exists and is empty. Tells `passed`
/// how many bytes of `input` were read. Beside the folder a recipe is written; see [`recipe_path`].
pub(crate) fn unpack(
    mut input: &mut dyn Read,
    folder: &Path,
    passed: &mut dyn FnMut(u64),
) -> Result<Unpacked, Failure> {
    let mut head = [0; HEAD];
    let length = read_full(&mut input, &mut head).map_err(Failure::from_read)?;
    let head = &head[..length];
    let compression = Compression::sniff(head);
    let mut meter = Meter { input: head.chain(input), hasher: Hasher::default(), count: 0, passed };
    let recipe = recipe_path(folder);
    let recorder = Recorder::create(&recipe).map_err(StoreError::at("creating", &recipe))?;
    let mut hasher = (compression != Compression::Plain).then(Hasher::default);
    let summary = std::thread::scope(|scope| {
        let (full, pieces) = sync_channel(DEPTH);
        let (empty, spare) = channel();
        let pieces = Pieces { pieces, empty, piece: Vec::new(), used: 0 };
        let worker = scope.spawn(move || unpack_layer(folder, Archive::recorded(pieces, recorder)));
        let pumped = pump(&mut compression.decode(&mut meter), &full, &spare, hasher.as_mut());
        drop(full);
        let unpacked = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where reading failed, what unpacking says of the end of its input is only an echo.
        pumped.and(unpacked)
    })?;
    // A decoder may leave bytes after the end of its stream.
    drain(&mut meter)?;
    let blob = meter.hasher.finish();
    let diff_id = DiffId(hasher.map_or(blob, Hasher::finish));
    Ok(Unpacked { blob, blob_size: meter.count, diff_id, summary })
}

fn drain(input: &mut dyn Read) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE];
    while read_full(input, &mut buffer).map_err(Failure::from_read)? == PIECE {}
    Ok(())
}

/// Hands on all of `input`; stops when the receiver has gone.
fn pump(
    input: &mut dyn Read,
    full: &SyncSender<Vec<u8>>,
    spare: &Receiver<Vec<u8>>,
    mut hasher: Option<&mut Hasher>,
) -> Result<(), Failure> {
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let count = read_full(input, &mut piece).map_err(Failure::from_read)?;
        piece.truncate(count);
        if let Some(hasher) = &mut hasher {
            hasher.update(&piece);
        }
        let at_end = count < PIECE;
        if full.send(piece).is_err() || at_end {
            return Ok(());
        }
    }
}

/// The receiving end.
struct Pieces {
    pieces: Receiver<Vec<u8>>,
    /// Where used buffers go back.
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    used: usize,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.used == self.piece.len() {
            let Ok(next) = self.pieces.recv() else { return Ok(&[]) };
            let used = std::mem::replace(&mut self.piece, next);
            self.used = 0;
            if used.capacity() > 0 {
                // At the end there is nobody who takes them.
                let _ = self.empty.send(used);
            }
        }
        Ok(&self.piece[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
