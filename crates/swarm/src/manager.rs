//! The manager actor over the managers' consensus, and what every manager answers.
//!
//! [`actor`] selects one event, steps the brain, performs what it decided; it alone changes the state that
//! [`Shared`] holds. [`Manager`] speaks to it: [`requests`] on any manager find their way to the leader, and
//! [`reads`] see everything that was answered before them, on the leader and on followers.
//!
//! What is absent: connections and certificates. Other managers are asked through [`Remote`].

mod actor;
mod news;
mod reads;
mod remote;
mod requests;
mod seats;
mod shared;

use std::sync::Arc;

use bytes::Bytes;
use skep_cluster::{Answer, Event, Objects, Request};
use skep_consensus::{Config, LogError, ReceiveError, Transport};
use skep_types::{Ids, NodeId};
use tokio::sync::{mpsc, oneshot, watch};

use self::actor::{Actor, Log};
use self::shared::Shared;
use crate::SwarmError;
use crate::announce::Announcer;
use crate::error::chain;
use crate::founding::random;
use crate::session::{Hello, Link, Sessions};
use crate::wire::CallError;

pub(crate) use remote::Remote;
pub(crate) use requests::NO_LEADER;

/// Requests and reports that may wait for the manager; whoever sends more waits with them.
const INPUT_LIMIT: usize = 1024;

/// What comes to the manager from outside.
#[derive(Debug)]
pub(crate) enum Input {
    /// A request, and where its answer goes. Only a leader takes it.
    Request(Request, oneshot::Sender<Result<Answer, CallError>>),
    /// An agent's word.
    Event(Event),
    /// End; the answer comes when the log is closed.
    Stop(oneshot::Sender<()>),
}

/// What a manager is started with.
pub(crate) struct Setup {
    /// The log, and this node's seat.
    pub(crate) consensus: Config,
    /// How its messages get to other managers.
    pub(crate) transport: Arc<dyn Transport>,
    /// How the leader is asked; [`crate::wire::Connections`] in a daemon.
    pub(crate) remote: Arc<dyn Remote>,
    /// Who is told of changes.
    pub(crate) announcer: Announcer,
}

/// A manager cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its log cannot be opened.
    #[error("cannot open the swarm's state")]
    Log(#[from] LogError),
    /// Its log is not what was written.
    #[error("cannot open the swarm's state: {0}")]
    Damaged(String),
    /// The system gives no randomness.
    #[error(transparent)]
    Randomness(#[from] SwarmError),
}

/// Speaks to the manager actor. Clones share it; the actor ends with [`Manager::stop`] alone.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    inputs: mpsc::Sender<Input>,
    barriers: mpsc::Sender<reads::Ask>,
    shared: Arc<Shared>,
    sessions: Sessions,
}

impl Manager {
    /// Opens the log and starts the actor over it. What the log holds is told later, as the others (if there are
    /// any) agree: see [`Manager::changes`].
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub(crate) async fn start(setup: Setup) -> Result<Manager, StartError> {
        let Setup { consensus: config, transport, remote, announcer } = setup;
        // Two managers, or one in two lives, must never draw the same ids; within a life the sequence goes on
        // over all terms.
        let ids = Ids::new(u128::from_be_bytes(random()?));
        let shared = Arc::new(Shared::new(config.id, remote));
        let file = config.file();
        let log = Log::open(config, transport).await.map_err(|error| match error.is_damage() {
            true => StartError::Damaged(actor::damage(&chain(&error), &file)),
            false => error.into(),
        })?;
        let (inputs, received) = mpsc::channel(INPUT_LIMIT);
        let sessions = Sessions::new(inputs.clone());
        let seats = seats::Seats::new(inputs.clone());
        let actor = Actor::new(Arc::clone(&shared), log, ids, announcer, sessions.clone(), seats);
        tokio::spawn(actor.run(received));
        let barriers = reads::spawn(Arc::clone(&shared));
        Ok(Manager { inputs, barriers, shared, sessions })
    }

    /// Founds a cluster of this one manager, reached at `address`, and creates its first objects with `request`.
    ///
    /// # Errors
    /// When the log already belongs to a cluster, or the request is refused.
    pub(crate) async fn found(&self, address: String, request: Request) -> Result<(), SwarmError> {
        let consensus = self.shared.consensus().map_err(SwarmError::Unavailable)?;
        consensus.found(address).await.map_err(|error| SwarmError::internal(&error))?;
        self.request(request).await.map(|_| ())
    }

    /// Reads the state as far as this manager has been told of it.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> T {
        self.shared.read(read)
    }

    /// The position in the log of the last entry that this manager was told, now and whenever it rises.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.applied()
    }

    /// Why this manager cannot take part at the moment: its disk.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// Whether this manager leads.
    pub(crate) fn leads(&self) -> bool {
        self.shared.standing().leads
    }

    /// The address of another manager that leads, where one is known.
    pub(crate) fn leader(&self) -> Option<String> {
        self.shared.other_leader()
    }

    /// Takes another manager's message. The caller has made sure that it is one.
    ///
    /// # Errors
    /// When the message is none, or this manager's disk failed.
    pub(crate) async fn receive(&self, message: Bytes) -> Result<Bytes, CallError> {
        let consensus = self.shared.consensus().map_err(CallError::Lost)?;
        consensus.receive(message).await.map_err(|error| match error {
            ReceiveError::Malformed { .. } => {
                CallError::Refused(SwarmError::InvalidParameter(error.to_string()))
            }
            ReceiveError::Elsewhere { .. } => CallError::Denied(error.to_string()),
            ReceiveError::Stopped => CallError::Lost(error.to_string()),
        })
    }

    /// Opens a session of a node's agent.
    ///
    /// # Errors
    /// When this manager does not lead, or the node is none of the cluster.
    pub(crate) async fn open_session(&self, node: NodeId, hello: Hello) -> Result<Link, CallError> {
        match self.read(|objects| objects.cluster().map(|_| objects.node(node).is_some())) {
            Some(true) => {}
            Some(false) if self.leads() => {
                return Err(CallError::Denied(format!("node {node} is not part of the swarm")));
            }
            // The brain would have nothing for it, and not look at it again: the cluster is just being founded, or
            // this manager has just been let in.
            Some(false) | None => return Err(self.shared.not_leader()),
        }
        match self.sessions.open(node, hello).await {
            Err(CallError::NotLeader { .. }) => Err(self.shared.not_leader()),
            answer => answer,
        }
    }

    /// Lets another manager lead, if this one does and there is another.
    pub(crate) async fn abdicate(&self) {
        if let Ok(consensus) = self.shared.consensus() {
            consensus.abdicate().await;
        }
    }

    /// Ends the actor; returns when the log is closed.
    pub(crate) async fn stop(&self) {
        let (stopped, stopping) = oneshot::channel();
        if self.inputs.send(Input::Stop(stopped)).await.is_ok() {
            // An actor that is gone has stopped.
            let _ = stopping.await;
        }
    }
}

#[cfg(test)]
mod tests;
