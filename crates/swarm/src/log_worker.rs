//! The thread that owns the durable log: proposals in, fates out, one at a time.
//!
//! It is a thread and no task because a sync takes as long as the disk likes.

use std::path::PathBuf;
use std::sync::mpsc;

use skep_consensus::{LogError, Recovery, Solo};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// What became of a proposal.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is durable, at this position.
    Committed(u64),
    /// It is not in the log and never will be.
    Refused(String),
    /// Nobody knows, and the log cannot be used now.
    Unknown(String),
}

enum Order {
    Propose(Vec<u8>, oneshot::Sender<Fate>),
    Compact(u64, Vec<u8>),
    Reopen(oneshot::Sender<Result<Recovery, LogError>>),
}

/// Speaks to the log's thread, which ends with the last handle.
#[derive(Debug)]
pub(crate) struct LogWorker {
    /// `None` only while it is dropped.
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl LogWorker {
    /// Opens the log in `dir` and tells what it holds.
    pub(crate) async fn open(dir: PathBuf) -> Result<(LogWorker, Recovery), LogError> {
        let (orders, received) = mpsc::channel();
        let (opened, opening) = oneshot::channel();
        orders.send(Order::Reopen(opened)).expect("the receiver is still here");
        let thread = std::thread::Builder::new()
            .name("swarm-log".to_owned())
            .spawn(move || Worker { dir, log: None }.run(&received))
            .expect("the process may have one more thread");
        let worker = LogWorker { orders: Some(orders), thread: Some(thread) };
        let recovery = opening.await.expect("the log's thread answers every order")?;
        Ok((worker, recovery))
    }

    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("only dropping takes it");
        orders.send(order).expect("the log's thread lives as long as its handle");
    }

    /// Appends one entry. The answer comes once its fate is known.
    pub(crate) fn propose(&self, payload: Vec<u8>) -> oneshot::Receiver<Fate> {
        let (decided, fate) = oneshot::channel();
        self.order(Order::Propose(payload, decided));
        fate
    }

    /// Lets `snapshot` stand for all up to `index`. That it failed is logged: the log merely stays long.
    pub(crate) fn compact(&self, index: u64, snapshot: Vec<u8>) {
        self.order(Order::Compact(index, snapshot));
    }

    /// Opens the log anew after [`Fate::Unknown`].
    pub(crate) async fn reopen(&self) -> Result<Recovery, LogError> {
        let (opened, opening) = oneshot::channel();
        self.order(Order::Reopen(opened));
        opening.await.expect("the log's thread answers every order")
    }
}

impl Drop for LogWorker {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Whoever opens the log next must find it closed.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the log's thread panicked");
        }
    }
}

struct Worker {
    dir: PathBuf,
    log: Option<Solo>,
}

impl Worker {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        for order in orders {
            match order {
                Order::Propose(payload, decided) => {
                    // Nobody listens only when the node is on its way out.
                    let _ = decided.send(self.propose(&payload));
                }
                Order::Compact(index, snapshot) => self.compact(index, snapshot),
                Order::Reopen(opened) => {
                    let _ = opened.send(self.reopen());
                }
            }
        }
    }

    fn reopen(&mut self) -> Result<Recovery, LogError> {
        // The old handle holds the file's lock.
        self.log = None;
        let (log, recovery) = Solo::open(&self.dir)?;
        self.log = Some(log);
        Ok(recovery)
    }

    fn propose(&mut self, payload: &[u8]) -> Fate {
        let Some(log) = &mut self.log else {
            // Not tried, but only a new leader opens the log again.
            return Fate::Unknown("the log is not open".to_owned());
        };
        let next = log.committed() + 1;
        match log.propose(payload) {
            Ok(index) => Fate::Committed(index),
            Err(LogError::TooLarge { bytes }) => Fate::Refused(LogError::TooLarge { bytes }.to_string()),
            Err(error) => self.find_out(next, payload, &error),
        }
    }

    /// The disk alone knows whether a failed write is there.
    fn find_out(&mut self, index: u64, payload: &[u8], error: &LogError) -> Fate {
        let reason = chain(error);
        match self.reopen() {
            Ok(recovery) => match recovery.entries.last() {
                Some(entry) if entry.index == index && entry.payload == payload => Fate::Committed(index),
                Some(_) | None => Fate::Refused(reason),
            },
            Err(again) => {
                self.log = None;
                Fate::Unknown(format!("{reason}; {}", chain(&again)))
            }
        }
    }

    fn compact(&mut self, index: u64, snapshot: Vec<u8>) {
        let Some(log) = &mut self.log else { return };
        let Err(error) = log.compact(index, snapshot) else { return };
        warn!(error = chain(&error), "the log was not compacted");
        if let Err(error) = self.reopen() {
            warn!(error = chain(&error), "the log could not be opened again");
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
