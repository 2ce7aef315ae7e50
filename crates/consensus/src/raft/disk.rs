//! The thread that writes the log: a sync takes as long as the disk likes, and nobody else waits for it.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::log::{Entry, Index, Log, LogError, Reader, Snapshot, Term};

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
}

/// A handle on the thread; clones share it.
#[derive(Clone)]
pub(crate) struct Disk {
    queue: Arc<Mutex<Queue>>,
    done: watch::Receiver<Ticket>,
    failure: watch::Receiver<Option<String>>,
}

impl Disk {
    pub(crate) fn start(log: Log) -> Disk {
        let (jobs, asked) = mpsc::channel();
        let (done_sender, done) = watch::channel(0);
        let (failure_sender, failure) = watch::channel(None);
        let queue = Queue { jobs: Some(jobs), asked: 0, busy: None, reader: Some(log.reader()) };
        let disk = Disk { queue: Arc::new(Mutex::new(queue)), done, failure };
        let worker = Worker { log, queue: disk.queue.clone(), done: done_sender };
        thread::Builder::new()
            .name("consensus-disk".to_owned())
            .spawn(move || worker.run(&asked, &failure_sender))
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

    /// Reads on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let closed = || LogError::Closed { action: "read the log" };
        let reader = lock(&self.queue).reader.clone().ok_or_else(closed)?;
        tokio::task::spawn_blocking(move || read(&reader)).await.map_err(|_| closed())?
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

    /// Resolves when a write has failed, with the reason; not when the log was closed.
    pub(crate) async fn failure(&self) -> Option<String> {
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

struct Worker {
    log: Log,
    queue: Arc<Mutex<Queue>>,
    /// Dropped after the log: who sees it closed may open the log again.
    done: watch::Sender<Ticket>,
}

impl Worker {
    fn run(mut self, asked: &mpsc::Receiver<Job>, failure: &watch::Sender<Option<String>>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| asked.recv().ok()) {
            lock(&self.queue).busy = Some(Instant::now());
            let (jobs, result) = self.execute(job, asked, &mut next);
            lock(&self.queue).busy = None;
            match result {
                Ok(()) => self.done.send_modify(|done| *done += jobs),
                Err(error) => {
                    failure.send_replace(Some(chain(&error)));
                    break;
                }
            }
        }
        {
            let mut queue = lock(&self.queue);
            (queue.jobs, queue.reader) = (None, None);
        }
        drop(self.log);
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
