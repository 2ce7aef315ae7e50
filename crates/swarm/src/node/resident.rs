//! A node that is in a swarm and runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::error;

use super::connector::LeaderConnector;
use super::shared::Shared;
use super::supervisor::Supervisor;
use crate::SwarmError;
use crate::worker::{End, Worker};

/// News that may wait for the supervisor; the agent waits with more.
const NEWS_LIMIT: usize = 64;

/// The actors of a node in its swarm: the agent, the supervisor, and while it is a manager its office.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) shared: Arc<Shared>,
    connector: Arc<LeaderConnector>,
    worker: Worker,
    ready: watch::Receiver<bool>,
    /// Taken by whoever ends the node.
    supervisor: std::sync::Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Resident {
    /// Starts the agent and the supervisor; the office, if the node has one, is open already.
    ///
    /// # Errors
    /// When the engine cannot say what is there. The office is closed then.
    pub(crate) async fn start(shared: Arc<Shared>) -> Result<Resident, SwarmError> {
        let connector = Arc::new(LeaderConnector::new(Arc::clone(&shared)));
        let (news, heard) = mpsc::channel(NEWS_LIMIT);
        let engine = shared.engine.clone();
        let started =
            Worker::start(engine, shared.folder.duties(), Arc::clone(&connector), shared.hello(), news).await;
        let worker = match started {
            Ok(worker) => worker,
            Err(error) => {
                if let Some(office) = shared.set_office(None) {
                    office.close().await;
                }
                return Err(SwarmError::Internal(error.to_string()));
            }
        };
        let supervisor = Supervisor::new(Arc::clone(&shared), heard);
        let ready = supervisor.ready();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(supervisor.run(stopped));
        Ok(Resident {
            shared,
            connector,
            worker,
            ready,
            supervisor: std::sync::Mutex::new(Some((stop, task))),
        })
    }

    /// Returns when the node is all that its swarm wants it to be: an agent with a session, a manager with a seat
    /// and all that the others know.
    pub(crate) async fn until_ready(&self) {
        // The supervisor ends only with the node.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
        if let Some(office) = self.shared.office() {
            let seated = |office: &super::Office| {
                let node = self.shared.node();
                office.manager.read(|objects| objects.node(node).is_some_and(|node| node.manager.is_some()))
            };
            let mut changes = office.manager.changes();
            while !seated(&office) && changes.changed().await.is_ok() {}
        }
    }

    /// Ends the node's actors. Containers go on running with [`End::Keep`].
    pub(crate) async fn end(&self, how: End) {
        let supervisor = self.supervisor.lock().expect("nothing panics while it holds the supervisor").take();
        if let Some((stop, task)) = supervisor {
            drop(stop);
            if task.await.is_err() {
                error!("the supervisor of this node panicked");
            }
        }
        match how {
            End::Keep => {
                // The lead is handed on before the agent is cut off: it has nobody to tell anything by then.
                self.worker.end(End::Keep).await;
            }
            End::Clear => {
                if let Some(office) = self.shared.office() {
                    office.give_up_seat(&self.shared).await;
                }
                self.worker.end(End::Clear).await;
            }
        }
        self.connector.close().await;
        if let Some(office) = self.shared.set_office(None) {
            office.close().await;
        }
    }
}

/// How long `join` waits for the node to be a working member. Moby's `swarmConnectTimeout`.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
