//! The thread that writes the log: a sync takes as long as the disk likes, and nobody else waits for it.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::log::{Entry, Index, Log, LogError, Reader, Snapshot, Term, guarded};

/// Bytes of entries that are written in one transaction at most, beyond the first append.
const BATCH_BYTES: usize = 16 << 20;

/// A write. They are done strictly in order.
pub(crate) enum Job {
    Append(Vec<Entry>),
    Truncate(Index),
    Purge(Index),
    Vote(Term, Vec<u8>),
    /// A snapshot of this log's own entries, unless one from the leader has overtaken it.
    Save(Snapshot),
    /// A snapshot from the leader, in place of what it stands for.
    Install(Snapshot),
}

/// How many writes were asked for when one was.
pub(crate) type Ticket = u64;

/// The disk failed, or the consensus was stopped.
#[derive(Debug, thiserror::Error)]
#[error("the log is closed")]
pub(crate) struct Closed;

struct Queue {
    jobs: Option<mpsc::Sender<Job>>,
    asked: Ticket,
    /// Since when the thread has been at one batch.
    busy: Option<Instant>,
    reader: Option<Reader>,
    /// Until it is closed.
    failing: Option<watch::Sender<Option<Failure>>>,
}

/// Why the disk serves no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// With all causes.
    pub(crate) reason: String,
    /// What is on the disk is not what was written there.
    pub(crate) damaged: bool,
}

impl From<&LogError> for Failure {
    fn from(error: &LogError) -> Failure {
        Failure { reason: chain(error), damaged: error.is_damage() }
    }
}

/// A handle on the thread; clones share it.
#[derive(Clone)]
pub(crate) struct Disk {
    queue: Arc<Mutex<Queue>>,
    done: watch::Receiver<Ticket>,
    failure: watch::Receiver<Option<Failure>>,
}

impl Disk {
    pub(crate) fn start(log: Log) -> Disk {
        let (jobs, asked) = mpsc::channel();
        let (done_sender, done) = watch::channel(0);
        let (failing, failure) = watch::channel(None);
        let reader = Some(log.reader());
        let queue = Queue { jobs: Some(jobs), asked: 0, busy: None, reader, failing: Some(failing) };
        let disk = Disk { queue: Arc::new(Mutex::new(queue)), done, failure };
        let worker = Worker { log, queue: disk.queue.clone(), done: done_sender };
        thread::Builder::new()
            .name("consensus-disk".to_owned())
            .spawn(move || worker.run(&asked))
            .expect("a thread can be started");
        disk
    }

    /// Asks for a write.
    pub(crate) fn ask(&self, job: Job) -> Result<Ticket, Closed> {
        // Number and place in the queue must agree.
        let mut queue = lock(&self.queue);
        queue.jobs.as_ref().ok_or(Closed)?.send(job).map_err(|_| Closed)?;
        queue.asked += 1;
        Ok(queue.asked)
    }

    pub(crate) fn done(&self) -> Ticket {
        *self.done.borrow()
    }

    /// Waits until a write, and every one before it, is on the disk.
    pub(crate) async fn wait(&self, ticket: Ticket) -> Result<(), Closed> {
        let mut done = self.done.clone();
        done.wait_for(|done| *done >= ticket).await.map(|_| ()).map_err(|_| Closed)
    }

    pub(crate) async fn write(&self, job: Job) -> Result<(), Closed> {
        let ticket = self.ask(job)?;
        self.wait(ticket).await
    }

    /// Waits until all that was asked for is on the disk.
    pub(crate) async fn settle(&self) -> Result<(), Closed> {
        let asked = lock(&self.queue).asked;
        self.wait(asked).await
    }

    /// Reads on a thread that may block. Damage ends the use of this log, for whoever asked for what.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let closed = || LogError::Closed { action: "read the log" };
        let reader = lock(&self.queue).reader.clone().ok_or_else(closed)?;
        let work = move || {
            guarded("read the log", move || {
                let result = read(&reader);
                // The last handle on the file may be this one, and closing it reads as well.
                drop(reader);
                result
            })
        };
        let result = tokio::task::spawn_blocking(work).await.map_err(|_| closed())?;
        if let Some(error) = result.as_ref().err().filter(|error| error.is_damage()) {
            lock(&self.queue).fail(error);
        }
        result
    }

    /// Whether all that was asked for is on the disk.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.queue).asked == self.done()
    }

    /// Whether it still writes.
    pub(crate) fn is_open(&self) -> bool {
        self.done.has_changed().is_ok()
    }

    /// How long the disk has been at its present batch.
    pub(crate) fn stalled(&self) -> Duration {
        lock(&self.queue).busy.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Resolves when a write has failed or damage was read; with nothing when the log was closed.
    pub(crate) async fn failure(&self) -> Option<Failure> {
        let mut failure = self.failure.clone();
        failure.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Takes no further writes, finishes those asked for, and closes the file.
    pub(crate) async fn close(&self) {
        {
            let mut queue = lock(&self.queue);
            queue.jobs = None;
            queue.reader = None;
        }
        let mut done = self.done.clone();
        while done.changed().await.is_ok() {}
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Tells why it ends. The first reason counts.
    fn fail(&self, error: &LogError) {
        if let Some(failing) = &self.failing {
            failing.send_if_modified(|told| {
                let first = told.is_none();
                told.get_or_insert_with(|| error.into());
                first
            });
        }
    }
}

struct Worker {
    log: Log,
    queue: Arc<Mutex<Queue>>,
    /// Dropped after the log: who sees it closed may open the log again.
    done: watch::Sender<Ticket>,
}

impl Worker {
    fn run(mut self, asked: &mpsc::Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| asked.recv().ok()) {
            lock(&self.queue).busy = Some(Instant::now());
            let (jobs, result) = self.execute(job, asked, &mut next);
            lock(&self.queue).busy = None;
            match result {
                Ok(()) => self.done.send_modify(|done| *done += jobs),
                Err(error) => {
                    lock(&self.queue).fail(&error);
                    break;
                }
            }
        }
        let reader = {
            let mut queue = lock(&self.queue);
            (queue.jobs, queue.failing) = (None, None);
            queue.reader.take()
        };
        let log = self.log;
        // Closing a damaged file may fail as reading it did, which was told then.
        let _ = guarded("close the log", move || {
            drop((reader, log));
            Ok(())
        });
        drop(self.done);
    }

    /// Does `job`, and with an append every further append that waits already. Returns how many were done.
    fn execute(
        &mut self,
        job: Job,
        asked: &mpsc::Receiver<Job>,
        next: &mut Option<Job>,
    ) -> (u64, Result<(), LogError>) {
        let result = match job {
            Job::Append(mut entries) => {
                let mut jobs = 1;
                let size = |entries: &[Entry]| entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
                let mut bytes = size(&entries);
                while bytes < BATCH_BYTES {
                    match asked.try_recv() {
                        Ok(Job::Append(more)) => {
                            bytes += size(&more);
                            entries.extend(more);
                            jobs += 1;
                        }
                        Ok(other) => {
                            *next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                return (jobs, self.log.extend(&entries).map(|_| ()));
            }
            Job::Truncate(index) => self.log.truncate(index),
            // A snapshot under way from the leader purges by itself when it is written.
            Job::Purge(index) => self.log.purge(index.min(self.log.snapshot_index())),
            Job::Vote(term, vote) => self.log.save_vote(term, &vote),
            // An older one would stand for less than what is purged.
            Job::Save(Snapshot { index, .. }) | Job::Install(Snapshot { index, .. })
                if index <= self.log.snapshot_index() =>
            {
                Ok(())
            }
            Job::Save(snapshot) => self.log.save_snapshot(&snapshot),
            Job::Install(snapshot) => self.log.compact(&snapshot),
        };
        (1, result)
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;
    use crate::log::FILE;
    use crate::log::tests::KEY;

    #[tokio::test]
    async fn damage_that_a_reader_meets_is_told_and_ends_the_use_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), &KEY).unwrap();
        for _ in 0..300 {
            // More in all than the store keeps in memory.
            log.append(&[vec![7; 8000]]).unwrap();
        }
        let disk = Disk::start(log);
        assert_eq!(disk.read(|reader| reader.read(1, 300)).await.unwrap().len(), 300);
        let path = dir.path().join(FILE);
        let length = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
        std::fs::write(&path, vec![0x5a; length]).unwrap();
        let refused = disk.read(|reader| reader.read(1, 300)).await.unwrap_err();
        assert!(refused.is_damage(), "{refused}");
        let failure = disk.failure().await.unwrap();
        assert!(failure.damaged, "{failure:?}");
        assert!(failure.reason.contains("the log is damaged"), "{failure:?}");
        disk.close().await;
    }
}
