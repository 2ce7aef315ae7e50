//! Seats in the managers' consensus: given to managers that ask, taken from those that are managers no longer.
//!
//! The consensus's members change first, the replicated state second, so that the state never names a seat that
//! is not there. Each half may be repeated.

use std::collections::BTreeSet;

use skep_cluster::{Request, SeatStep};
use skep_consensus::{Consensus, MemberError, RaftId};
use skep_types::NodeId;
use skep_types::node::{Member, NodeRole};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{Input, Manager};
use crate::SwarmError;
use crate::wire::{CallError, SeatCall};

/// Carries out what the brain decides on seats, beside the actor: it may take as long as an election.
pub(super) struct Seats {
    inputs: mpsc::Sender<Input>,
    removals: JoinSet<RaftId>,
    /// The brain asks again when it hears nothing; one try at a time.
    under_way: BTreeSet<RaftId>,
}

impl Seats {
    /// Results go to `inputs`.
    pub(super) fn new(inputs: mpsc::Sender<Input>) -> Seats {
        Seats { inputs, removals: JoinSet::new(), under_way: BTreeSet::new() }
    }

    /// Begins a step, unless it is under way.
    pub(super) fn perform(&mut self, step: SeatStep, consensus: Consensus) {
        let SeatStep::Remove { node, raft } = step;
        if !self.under_way.insert(raft) {
            return;
        }
        let inputs = self.inputs.clone();
        self.removals.spawn(async move {
            match consensus.remove_member(raft).await {
                Ok(()) => {
                    info!(%node, "a manager's seat is taken away");
                    let (answered, answer) = oneshot::channel();
                    let request = Request::SetSeat { node, seat: None };
                    if inputs.send(Input::Request(request, answered)).await.is_ok() {
                        // Refused or lost: the next look at the node asks for the whole step again.
                        let _ = answer.await;
                    }
                }
                Err(error) => warn!(%node, %error, "a manager's seat is not taken away yet"),
            }
            raft
        });
    }

    /// Waits for a step to end, and for ever while none is under way.
    pub(super) async fn ended(&mut self) {
        match self.removals.join_next().await {
            Some(raft) => {
                self.under_way.remove(&raft.expect("a removal neither panics nor is aborted"));
            }
            None => std::future::pending().await,
        }
    }
}

impl Manager {
    /// Gives a node that is to be a manager its seat. May be repeated.
    ///
    /// # Errors
    /// [`CallError::NotLeader`]; [`CallError::Denied`] for a node that is to be no manager; 503 while it cannot be
    /// done.
    pub(crate) async fn give_seat(&self, node: NodeId, call: SeatCall) -> Result<(), CallError> {
        let manager = self.clone();
        finished(async move { manager.seat(node, call).await }).await
    }

    async fn seat(&self, node: NodeId, call: SeatCall) -> Result<(), CallError> {
        if !self.leads() {
            return Err(self.shared.not_leader());
        }
        let consensus = self.shared.consensus().map_err(CallError::Unreachable)?;
        let known = self.read(|objects| objects.node(node).cloned());
        let Some(known) = known.filter(|known| known.spec.role == NodeRole::Manager) else {
            return Err(CallError::Denied(format!("node {node} is not a manager")));
        };
        if let Some(held) = known.manager.filter(|held| held.raft != call.raft) {
            // It lost the log of the seat that it held, and with it its word: that seat must not vote again.
            consensus.remove_member(held.raft).await.map_err(|error| self.member_error(&error))?;
            self.handle(Request::SetSeat { node, seat: None }).await?;
        }
        let SeatCall { raft, address } = call;
        let added = consensus.add_member(raft, address.clone()).await;
        added.map_err(|error| self.member_error(&error))?;
        let seat = Some(Member { raft, address });
        match self.handle(Request::SetSeat { node, seat }).await {
            Ok(_) => {
                info!(%node, "a manager has taken its seat");
                Ok(())
            }
            Err(CallError::Refused(refused)) => {
                // Demoted or removed meanwhile: nobody would ever take this seat away.
                if let Err(error) = consensus.remove_member(raft).await {
                    warn!(%node, %error, "a seat stays that belongs to no manager");
                }
                Err(CallError::Refused(refused))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back the seat of a manager that leaves.
    ///
    /// # Errors
    /// [`CallError::NotLeader`]; 503 while it cannot be done.
    pub(crate) async fn take_seat_back(&self, node: NodeId) -> Result<(), CallError> {
        let manager = self.clone();
        finished(async move { manager.unseat(node).await }).await
    }

    async fn unseat(&self, node: NodeId) -> Result<(), CallError> {
        if !self.leads() {
            return Err(self.shared.not_leader());
        }
        let consensus = self.shared.consensus().map_err(CallError::Unreachable)?;
        let held = self.read(|objects| objects.node(node)?.manager.clone());
        let Some(held) = held else { return Ok(()) };
        consensus.remove_member(held.raft).await.map_err(|error| self.member_error(&error))?;
        // A leader that gave up its own seat leads no longer: the next one hears of it.
        let told = self.request(Request::SetSeat { node, seat: None }).await;
        told.map(|_| ()).map_err(CallError::Refused)
    }

    fn member_error(&self, error: &MemberError) -> CallError {
        match error {
            MemberError::NotLeader(_) => self.shared.not_leader(),
            MemberError::Busy
            | MemberError::Behind
            | MemberError::Unknown
            | MemberError::Last
            | MemberError::Quorum
            | MemberError::Stopped => CallError::Refused(SwarmError::Unavailable(error.to_string())),
        }
    }
}

/// Runs what must not stop half-way when its caller goes away.
async fn finished(
    work: impl Future<Output = Result<(), CallError>> + Send + 'static,
) -> Result<(), CallError> {
    tokio::spawn(work).await.expect("the work neither panics nor is aborted")
}
