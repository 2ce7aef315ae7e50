//! A disk in memory that can lose power, run full, be slow, and be tampered with.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redb::StorageBackend;

/// The smallest part of a write that is written whole.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Debug)]
struct State {
    /// What a reader sees.
    now: Vec<u8>,
    /// What survives a power failure for certain.
    synced: Vec<u8>,
    /// What happened since, in order.
    unsynced: Vec<Change>,
    capacity: u64,
    writes_left: usize,
    /// What a sync takes, in milliseconds.
    sync_time: Range<u64>,
    syncs: u64,
}

/// Clones share the disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk::holding(Vec::new())
    }

    fn holding(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(State {
            now: bytes.clone(),
            synced: bytes,
            unsynced: Vec::new(),
            capacity: u64::MAX,
            writes_left: usize::MAX,
            sync_time: 0..1,
            syncs: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the disk")
    }

    pub(crate) fn len(&self) -> u64 {
        self.state().now.len() as u64
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Every sync takes some time of `milliseconds`.
    pub(crate) fn be_slow(&self, milliseconds: Range<u64>) {
        self.state().sync_time = milliseconds;
    }

    /// How many syncs there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Every write and sync after the next `writes` fails.
    pub(crate) fn fail_after(&self, writes: usize) {
        self.state().writes_left = writes;
    }

    /// Replaces every occurrence of `from` on the disk; returns how many there were.
    pub(crate) fn replace(&self, from: &[u8], to: &[u8]) -> usize {
        let mut state = self.state();
        let mut found = 0;
        for at in 0..state.now.len().saturating_sub(from.len()) {
            if state.now[at..].starts_with(from) {
                state.now[at..at + to.len()].copy_from_slice(to);
                found += 1;
            }
        }
        state.synced = state.now.clone();
        found
    }

    /// The disk after a power failure: of what was not synced, any sectors may be there.
    pub(crate) fn crash(&self, seed: u64) -> Disk {
        let state = self.state();
        let mut bytes = state.synced.clone();
        let mut random = seed | 1;
        let mut coin = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.is_multiple_of(2)
        };
        for change in &state.unsynced {
            match change {
                Change::Resize(len) => {
                    if coin() || *len > bytes.len() {
                        bytes.resize(*len, 0);
                    }
                }
                Change::Write(offset, data) => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        let at = offset + number * SECTOR;
                        if coin() && at + sector.len() <= bytes.len() {
                            bytes[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        Disk::holding(bytes)
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        self.writes_left =
            self.writes_left.checked_sub(1).ok_or_else(|| io::Error::other("the disk is gone"))?;
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(Disk::len(self))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        let part = state.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        if len > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.now.resize(len as usize, 0);
        state.unsynced.push(Change::Resize(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let time = {
            let mut state = self.state();
            state.syncs += 1;
            // Any order will do that visits all of them.
            let span = state.sync_time.end - state.sync_time.start;
            state.sync_time.start + state.syncs * 37 % span
        };
        std::thread::sleep(Duration::from_millis(time));
        let mut state = self.state();
        state.spend()?;
        state.synced = state.now.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        let at = offset as usize;
        state.now[at..at + data.len()].copy_from_slice(data);
        state.unsynced.push(Change::Write(at, data.to_vec()));
        Ok(())
    }
}
