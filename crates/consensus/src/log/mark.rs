//! How many writes of the log were confirmed, in a small file beside it.
//!
//! redb finds a last transaction that is not whole after a crash, and goes back to the one before without a word:
//! it cannot tell a write that the crash cut off from one that was confirmed and went bad since. Whoever was told
//! of the second must not forget it. So each transaction counts, and after its sync, before anybody is told, the
//! count goes here. A log that counts less has lost what was confirmed. (Alagappan et al., "Protocol-Aware Recovery
//! for Consensus-Based Storage", FAST '18, call such a mark a persist record.)
//!
//! The mark is not synced by itself: that would double the cost of every write. The death of the process does not
//! touch it. After a power failure it may be some seconds old, and then covers the writes until then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The file's name in the log's folder.
pub(super) const FILE: &str = "log.mark";

/// The count, and its complement to know a torn write by: each 8 bytes, little-endian.
const BYTES: usize = 16;

/// The file.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Opens it in the folder `dir`, or makes an empty one.
    pub(super) fn open(dir: &Path) -> io::Result<Mark> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(dir.join(FILE)).map(Mark)
    }

    /// The writes that were confirmed; 0 when that is not known.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; BYTES];
        match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        }
        let [count, complement] = [&bytes[..8], &bytes[8..]]
            .map(|half| half.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        Ok(if count == !complement { count } else { 0 })
    }

    /// Says that so many are.
    pub(super) fn set(&self, count: u64) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&count.to_le_bytes());
        bytes[8..].copy_from_slice(&(!count).to_le_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}
