//! The log as openraft sees it: what it appended is there at once, and on the disk a little later.
//!
//! openraft 0.9 waits for every append before it does anything else, so a slow sync would keep a leader from
//! sending heartbeats, and each proposal would cost a sync of its own. Here an append counts as done for openraft
//! when it is in memory and queued for the disk, and everything that must not happen before the sync waits by
//! itself (Ongaro's thesis, 10.2.1, lets a leader write in parallel with its followers):
//!
//! - a follower answers an append only when it is on its disk ([`Store::durable`], by `Consensus::receive`);
//! - nothing is told as committed, and no follower is told so, before it is on this member's disk (`Machine`,
//!   `Network`): so what a leader counted for itself too early has no effect;
//! - a leader that restarts does not lead on in its term, since followers may have entries of that term which it
//!   lost ([`read_vote`](RaftLogStorage::read_vote));
//! - votes wait for their own sync, behind every append before them.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{Entry, LogId, OptionalSend, RaftLogReader, StorageError, Vote};

use super::disk::{Closed, Disk, Job, Ticket};
use super::{Types, decode, encode, index_of, log_id, storage_error};
use crate::log::{self, Index, Log, LogError, Reader};
use crate::notice::RaftId;

/// Entries kept in memory for members that follow closely, and their bytes.
const KEPT_ENTRIES: usize = 4096;
const KEPT_BYTES: usize = 16 << 20;
/// Bytes of entries sent in one message, unless one entry alone is larger.
const MESSAGE_BYTES: usize = 4 << 20;

#[derive(Default)]
struct Tail {
    /// The newest entries, the last one at `end - 1`.
    entries: VecDeque<(Entry<Types>, usize)>,
    bytes: usize,
    /// One above the last index.
    end: Index,
    /// First index of each append that may not be on the disk yet.
    queued: VecDeque<(Ticket, Index)>,
    /// The leader's snapshot is queued for the disk, and openraft has not yet gone on behind it.
    installing: bool,
    /// The last entry that was purged.
    purged: Option<LogId<RaftId>>,
    /// openraft has gone on behind a snapshot that is not yet queued for the disk: no append may overtake it.
    expected: bool,
}

/// Clones share the log.
#[derive(Clone)]
pub(crate) struct Store {
    disk: Disk,
    tail: Arc<Mutex<Tail>>,
    installed: Arc<tokio::sync::Notify>,
    /// How things were at the start, the only time that openraft asks.
    opened: LogState<Types>,
    vote: Option<Vote<RaftId>>,
}

impl Store {
    pub(crate) fn open(log: Log) -> Result<Store, LogError> {
        let vote = log.vote()?.map(|vote| decode::<Vote<RaftId>>("the vote", &vote)).transpose()?;
        let opened = LogState {
            last_purged_log_id: log_id(log.first_index() - 1, log.purged_term()),
            last_log_id: log_id(log.last_index(), log.last_term()),
        };
        let purged = opened.last_purged_log_id;
        let tail = Tail { end: log.last_index() + 1, purged, ..Tail::default() };
        Ok(Store {
            disk: Disk::start(log),
            tail: Arc::new(Mutex::new(tail)),
            installed: Arc::default(),
            opened,
            vote,
        })
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has to be written before the entry at `index` is on the disk; 0 when it is.
    fn ticket(&self, index: Index) -> Ticket {
        let done = self.disk.done();
        let mut tail = self.tail();
        while tail.queued.front().is_some_and(|(ticket, _)| *ticket <= done) {
            tail.queued.pop_front();
        }
        tail.queued.iter().rev().find(|(_, first)| *first <= index).map_or(0, |(ticket, _)| *ticket)
    }

    /// Waits until the entry at `index` and all before it are on the disk.
    pub(crate) async fn durable(&self, index: Index) -> Result<(), Closed> {
        match self.ticket(index) {
            0 => Ok(()),
            ticket => self.disk.wait(ticket).await,
        }
    }

    /// Puts a snapshot from the leader in place of what it stands for.
    pub(crate) async fn install(&self, snapshot: log::Snapshot) -> Result<(), Closed> {
        let ticket = self.disk.ask(Job::Install(snapshot))?;
        {
            let mut tail = self.tail();
            tail.installing = !tail.expected;
            tail.expected = false;
        }
        self.installed.notify_waiters();
        self.disk.wait(ticket).await
    }

    /// Lets nobody wait for a snapshot any more: the disk has failed.
    pub(crate) fn release(&self) {
        self.tail().expected = false;
        self.installed.notify_waiters();
    }

    /// The last log id.
    pub(crate) async fn last(&self) -> Result<Option<LogId<RaftId>>, LogError> {
        let index = {
            let tail = self.tail();
            match tail.entries.back() {
                Some((entry, _)) => return Ok(Some(entry.log_id)),
                None if tail.end == tail.purged.as_ref().map_or(0, index_of) + 1 => return Ok(tail.purged),
                None => tail.end - 1,
            }
        };
        self.log_id(index).await.map(Some)
    }

    /// The log id of the entry at `index`.
    pub(crate) async fn log_id(&self, index: Index) -> Result<LogId<RaftId>, LogError> {
        let entry = self.entries(index, index + 1, usize::MAX).await?.pop();
        entry.map(|entry| entry.log_id).ok_or_else(|| LogError::Damaged {
            action: "read the log",
            detail: format!("entry {index} is missing"),
        })
    }

    /// Entries of `[start, end)`, at least one if there is one, as long as their bytes are below `bytes`.
    async fn entries(&self, start: Index, end: Index, bytes: usize) -> Result<Vec<Entry<Types>>, LogError> {
        let (from_disk, cached) = {
            let tail = self.tail();
            let end = end.min(tail.end);
            let kept = tail.end - tail.entries.len() as u64;
            let cached =
                tail.entries.iter().filter(|(entry, _)| (start..end).contains(&index_of(&entry.log_id)));
            (start..end.min(kept).max(start), cached.cloned().collect::<Vec<_>>())
        };
        let mut entries = Vec::new();
        let mut size = 0;
        if !from_disk.is_empty() {
            let limit = usize::try_from(from_disk.end - from_disk.start).unwrap_or(usize::MAX);
            let read = move |reader: &Reader| read_some(reader, from_disk.start, limit, bytes);
            let (read, read_bytes) = self.disk.read(read).await?;
            if read.len() < limit {
                return Ok(read);
            }
            (entries, size) = (read, read_bytes);
        }
        for (entry, entry_bytes) in cached {
            size = size.saturating_add(entry_bytes);
            if size > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn read_some(
    reader: &Reader,
    start: Index,
    limit: usize,
    bytes: usize,
) -> Result<(Vec<Entry<Types>>, usize), LogError> {
    const STEP: usize = 64;
    let mut entries = Vec::new();
    let mut size = 0_usize;
    while entries.len() < limit {
        let read = reader.read(start + entries.len() as u64, STEP.min(limit - entries.len()))?;
        if read.is_empty() {
            break;
        }
        for log::Entry { index, term, payload } in read {
            size = size.saturating_add(payload.len());
            if size > bytes && !entries.is_empty() {
                return Ok((entries, size));
            }
            let log_id = log_id(index, term).expect("the log's first index is 1");
            let payload = decode(&format!("entry {index}"), &payload)?;
            entries.push(Entry { log_id, payload });
        }
    }
    Ok((entries, size))
}

impl Tail {
    fn push(&mut self, entry: Entry<Types>, bytes: usize) {
        self.end = index_of(&entry.log_id) + 1;
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// Forgets what is on the disk and beyond what is kept for close followers.
    fn evict(&mut self, done: Ticket) {
        while self.queued.front().is_some_and(|(ticket, _)| *ticket <= done) {
            self.queued.pop_front();
        }
        let pending = self.queued.front().map_or(self.end, |(_, first)| *first);
        while self.entries.len() > KEPT_ENTRIES || self.bytes > KEPT_BYTES {
            match self.entries.front() {
                Some((entry, bytes)) if index_of(&entry.log_id) < pending => self.bytes -= bytes,
                Some(_) | None => break,
            }
            self.entries.pop_front();
        }
    }

    fn cut(&mut self, from: Index) {
        while self.entries.back().is_some_and(|(entry, _)| index_of(&entry.log_id) >= from) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, bytes)| bytes);
        }
        self.end = self.end.min(from);
        // What is appended here next waits behind what was cut off.
        for (_, first) in self.queued.iter_mut().rev().take_while(|(_, first)| *first > from) {
            *first = from;
        }
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, StorageError<RaftId>> {
        let start = match range.start_bound() {
            Bound::Included(start) => start + 1,
            Bound::Excluded(before) => before + 2,
            Bound::Unbounded => 1,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 2,
            Bound::Excluded(end) => end + 1,
            Bound::Unbounded => Index::MAX,
        };
        self.entries(start, end, usize::MAX).await.map_err(|error| storage_error(&error))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<Types>>, StorageError<RaftId>> {
        self.entries(start + 1, end + 1, MESSAGE_BYTES).await.map_err(|error| storage_error(&error))
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<RaftId>> {
        Ok(self.opened.clone())
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<RaftId>) -> Result<(), StorageError<RaftId>> {
        let job = Job::Vote(vote.leader_id().get_term(), encode(vote));
        self.disk.write(job).await.map_err(|error| storage_error(&error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<RaftId>>, StorageError<RaftId>> {
        // Never a leader by what the disk says: see above. Who led before this start is told by their heartbeats.
        Ok(self.vote.map(|vote| Vote { committed: false, ..vote }))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<RaftId>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry<Types>> = entries.into_iter().collect();
        let stored: Vec<log::Entry> = entries
            .iter()
            .map(|Entry { log_id, payload }| log::Entry {
                index: index_of(log_id),
                term: log_id.leader_id.term,
                payload: encode(payload),
            })
            .collect();
        loop {
            let installed = self.installed.notified();
            if !self.tail().expected {
                break;
            }
            installed.await;
        }
        if let (Some(first), Some(_)) = (stored.first().map(|entry| entry.index), stored.last()) {
            let sizes: Vec<usize> = stored.iter().map(|entry| entry.payload.len()).collect();
            let ticket = self.disk.ask(Job::Append(stored)).map_err(|error| storage_error(&error))?;
            let done = self.disk.done();
            let mut tail = self.tail();
            tail.queued.push_back((ticket, first));
            for (entry, bytes) in entries.into_iter().zip(sizes) {
                tail.push(entry, bytes);
            }
            tail.evict(done);
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<RaftId>) -> Result<(), StorageError<RaftId>> {
        let index = index_of(&log_id);
        self.disk.ask(Job::Truncate(index)).map_err(|error| storage_error(&error))?;
        self.tail().cut(index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<RaftId>) -> Result<(), StorageError<RaftId>> {
        let index = index_of(&log_id);
        {
            let mut tail = self.tail();
            tail.purged = Some(log_id);
            while tail.entries.front().is_some_and(|(entry, _)| index_of(&entry.log_id) <= index) {
                tail.bytes -= tail.entries.pop_front().map_or(0, |(_, bytes)| bytes);
            }
            if index >= tail.end {
                // The leader's snapshot is ahead of this log.
                tail.end = index + 1;
                tail.expected = !tail.installing;
            }
            tail.installing = false;
        }
        self.disk.ask(Job::Purge(index)).map(|_| ()).map_err(|error| storage_error(&error))
    }
}
