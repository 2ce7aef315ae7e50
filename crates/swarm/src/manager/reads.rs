//! Reads that see everything that was answered before them.
//!
//! A read needs a point in the log that the leader gave after the read was asked for, with a majority's word that
//! it still leads. Reads that come while such a point is being asked for share the next one.

use std::sync::Arc;

use skep_cluster::Objects;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Manager;
use super::requests::{LEADER_WAIT, NO_LEADER, PAUSE};
use super::shared::{Place, Shared};
use crate::SwarmError;
use crate::status::{Managers, NodeView};
use crate::wire::{Barrier, CallError};

/// Reads that may wait for the next point; more wait to be let in.
const WAITING: usize = 1024;

/// A read that waits for its point.
pub(crate) type Ask = oneshot::Sender<Result<Barrier, SwarmError>>;

/// Starts what gives out points to read at. It ends with the last sender.
pub(super) fn spawn(shared: Arc<Shared>) -> mpsc::Sender<Ask> {
    let (asks, mut asked) = mpsc::channel::<Ask>(WAITING);
    tokio::spawn(async move {
        let mut together = Vec::new();
        while asked.recv_many(&mut together, WAITING).await > 0 {
            let point = point(&shared).await;
            for ask in together.drain(..) {
                // The reader may have gone.
                let _ = ask.send(point.clone());
            }
        }
    });
    asks
}

/// Asks the leader, wherever it is, for a point to read at. Asking twice does no harm.
async fn point(shared: &Shared) -> Result<Barrier, SwarmError> {
    let deadline = Instant::now() + LEADER_WAIT;
    let mut standings = shared.standings();
    let mut told = NO_LEADER.to_owned();
    loop {
        standings.mark_unchanged();
        if let Some(trouble) = shared.trouble() {
            return Err(SwarmError::Unavailable(trouble));
        }
        let answer = match shared.place() {
            Place::Here => timeout_at(deadline, own_point(shared)).await,
            Place::At(address) => timeout_at(deadline, shared.remote.barrier(&address)).await,
            Place::Nowhere => Ok(Err(CallError::NotLeader { leader: None })),
        };
        match answer {
            Ok(Ok(barrier)) => return Ok(barrier),
            // Only these tell the user more than that nobody leads.
            Ok(Err(
                error @ (CallError::Denied(_) | CallError::Unauthenticated(_) | CallError::Version(_)),
            )) => {
                told = error.to_string();
            }
            Ok(Err(_)) | Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(SwarmError::Unavailable(told));
        }
        let _ = timeout(PAUSE, standings.changed()).await;
    }
}

/// The point that this manager gives as the leader.
async fn own_point(shared: &Shared) -> Result<Barrier, CallError> {
    let consensus = shared.consensus().map_err(CallError::Unreachable)?;
    match consensus.barrier().await {
        Ok(index) => {
            let reachable = shared.standing().reachable;
            Ok(Barrier { index, leader: shared.raft, reachable })
        }
        Err(_) => Err(shared.not_leader()),
    }
}

impl Manager {
    /// A point to read at, for another manager.
    ///
    /// # Errors
    /// [`CallError::NotLeader`], also when this manager leads but does not reach a majority.
    pub(crate) async fn give_barrier(&self) -> Result<Barrier, CallError> {
        if !self.leads() {
            return Err(self.shared.not_leader());
        }
        match timeout(LEADER_WAIT, own_point(&self.shared)).await {
            Ok(point) => point,
            Err(_) => Err(self.shared.not_leader()),
        }
    }

    /// Waits until this manager knows everything that was answered before the call, on any manager.
    async fn catch_up(&self) -> Result<Barrier, SwarmError> {
        let ended = || SwarmError::Unavailable("the swarm is shutting down on this node".to_owned());
        let (ask, point) = oneshot::channel();
        self.barriers.send(ask).await.map_err(|_| ended())?;
        let barrier = point.await.map_err(|_| ended())??;
        let mut applied = self.shared.applied();
        let reached = timeout(LEADER_WAIT, applied.wait_for(|applied| *applied >= barrier.index)).await;
        match reached {
            Ok(Ok(_)) => Ok(barrier),
            Ok(Err(_)) => Err(ended()),
            Err(_) => {
                let seconds = LEADER_WAIT.as_secs();
                let message = format!("this manager did not catch up with the swarm's leader in {seconds} s");
                Err(SwarmError::Unavailable(message))
            }
        }
    }

    /// Reads the state with everything that was answered before the call, on any manager.
    ///
    /// # Errors
    /// 503 without a leader, or when this manager does not catch up in time.
    pub(crate) async fn read_current<T>(&self, read: impl FnOnce(&Objects) -> T) -> Result<T, SwarmError> {
        self.catch_up().await?;
        Ok(self.read(read))
    }

    /// Reads nodes with their standing as managers, as [`Manager::read_current`] does.
    ///
    /// # Errors
    /// As [`Manager::read_current`].
    pub(crate) async fn read_nodes<T>(
        &self,
        read: impl FnOnce(&Objects, &Managers) -> T,
    ) -> Result<T, SwarmError> {
        let Barrier { leader, reachable, .. } = self.catch_up().await?;
        let managers = Managers { leader: Some(leader), reachable: Some(reachable) };
        Ok(self.read(|objects| read(objects, &managers)))
    }

    /// How the managers stand as far as this one knows without asking: for what must not wait.
    pub(crate) fn managers(&self) -> Vec<NodeView> {
        let standing = self.shared.standing();
        let leader = standing.leader.map(|(id, _)| id);
        let managers = Managers { leader, reachable: standing.leads.then_some(standing.reachable) };
        let seated = |objects: &Objects| {
            let nodes = objects.nodes().filter(|node| node.manager.is_some());
            nodes.map(|node| managers.view(node)).collect()
        };
        self.read(seated)
    }
}
