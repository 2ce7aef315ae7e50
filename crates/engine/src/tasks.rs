//! The engine's own tasks: all of them are known, and shutdown waits for them.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::{Error, Result};

/// How long shutdown lets operations finish before it cuts them off.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
    closing: watch::Sender<bool>,
}

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks { set: Mutex::new(JoinSet::new()), closing: watch::Sender::new(false) }
    }

    /// Runs something in the background.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that ended would pile up otherwise.
        while let Some(ended) = set.try_join_next() {
            log_panic(ended);
        }
        set.spawn(task);
    }

    /// Runs a change to its end even when the caller loses interest: a client that hangs up in the middle of a
    /// request must not leave a container half started.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            // Nobody may be waiting any more, which is fine.
            let _ = sender.send(change.await);
        });
        receiver.await.unwrap_or_else(|_| Err(Error::internal("the operation was cut off")))
    }

    /// Ends when the engine shuts down.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closing = self.closing.subscribe();
        async move {
            // An error says that the engine is gone, which is closing too.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Ends background tasks and waits for changes in progress.
    pub(crate) async fn shutdown(&self) {
        self.closing.send_replace(true);
        let mut set = std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner));
        let drained = async {
            while let Some(ended) = set.join_next().await {
                log_panic(ended);
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, drained).await.is_err() {
            tracing::warn!("{} operations were cut off by the shutdown", set.len());
            set.shutdown().await;
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a task of the engine failed: {error}");
    }
}
