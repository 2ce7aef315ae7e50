//! What the actor shows to everybody else on its node.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use skep_cluster::{Cluster, Objects};
use skep_consensus::{Consensus, RaftId, Standing};
use tokio::sync::watch;

use super::remote::Remote;
use crate::wire::CallError;

/// The state of this manager, and how it stands among the others.
pub(super) struct Shared {
    state: RwLock<State>,
    standing: watch::Sender<Standing>,
    applied: watch::Sender<u64>,
    /// This node's name in the consensus.
    pub(super) raft: RaftId,
    pub(super) remote: Arc<dyn Remote>,
}

/// The part that is read and written together.
pub(super) struct State {
    pub(super) cluster: Cluster,
    /// `None` while the log cannot be used.
    pub(super) consensus: Option<Consensus>,
    /// Why this manager cannot take part at the moment.
    pub(super) trouble: Option<String>,
}

/// Who takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This manager.
    Here,
    /// The one at this address.
    At(String),
    /// Nobody who is known, or one that does not reach a majority.
    Nowhere,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("standing", &*self.standing.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Nothing is known yet.
    pub(super) fn new(raft: RaftId, remote: Arc<dyn Remote>) -> Shared {
        let cluster = Cluster::new(Objects::default());
        Shared {
            state: RwLock::new(State { cluster, consensus: None, trouble: None }),
            standing: watch::Sender::default(),
            applied: watch::Sender::new(0),
            raft,
            remote,
        }
    }

    /// A step that panics ends the process, so that a poisoned lock is never seen.
    fn lock(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The actor's way to change the state.
    pub(super) fn lock_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> T {
        read(self.lock().cluster.objects())
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// The consensus, or why there is none.
    pub(super) fn consensus(&self) -> Result<Consensus, String> {
        let state = self.lock();
        let reason = || state.trouble.clone().unwrap_or_else(|| "this manager has stopped".to_owned());
        state.consensus.clone().ok_or_else(reason)
    }

    pub(super) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Tells those who wait that the state moved. Before any answer that rests on the move: whoever got it may
    /// read at once.
    pub(super) fn tell_applied(&self) {
        let applied = self.lock().cluster.objects().applied();
        self.applied.send_if_modified(|told| std::mem::replace(told, applied) != applied);
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Moves whenever the standing does.
    pub(super) fn standings(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|told| {
            let differs = *told != standing;
            *told = standing;
            differs
        });
    }

    /// The address of another manager that leads.
    pub(super) fn other_leader(&self) -> Option<String> {
        let standing = self.standing.borrow();
        let (id, address) = standing.leader.as_ref()?;
        (*id != self.raft).then(|| address.clone())
    }

    pub(super) fn not_leader(&self) -> CallError {
        CallError::NotLeader { leader: self.other_leader() }
    }

    /// Who takes requests now.
    pub(super) fn place(&self) -> Place {
        let standing = self.standing.borrow();
        if standing.leads {
            // What a leader without a majority is asked would hang, and its fate be unknown.
            return if has_majority(&standing) { Place::Here } else { Place::Nowhere };
        }
        match &standing.leader {
            Some((id, address)) if *id != self.raft => Place::At(address.clone()),
            Some(_) | None => Place::Nowhere,
        }
    }
}

/// Whether a leader reaches more than half of those who vote.
fn has_majority(standing: &Standing) -> bool {
    let voters = standing.members.iter().filter(|(_, seat)| seat.voter);
    let (mut count, mut reached) = (0, 0);
    for (id, _) in voters {
        count += 1;
        reached += usize::from(standing.reachable.contains(id));
    }
    reached * 2 > count
}
