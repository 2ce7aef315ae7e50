//! openraft's messages to other members, over the owner's transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RaftNetwork, RaftNetworkFactory, SnapshotSegmentId};

use super::store::Store;
use super::wire::{self, Answer, Question};
use super::{Types, index_of};
use crate::notice::RaftId;
use crate::{Transport, TransportError};

/// How long a leader's disk may take for one write before the leader falls silent, so that another is elected.
/// Disks of loaded machines take a second now and then; changing the leader would not make them faster.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(4);

/// How long a message waits for this member's disk to be able to say what is committed.
const COMMIT_PATIENCE: Duration = Duration::from_millis(20);

type Failure<E = openraft::error::Infallible> = RPCError<RaftId, BasicNode, RaftError<RaftId, E>>;

/// Makes and sends messages; clones share the transport.
#[derive(Clone)]
pub(crate) struct Network {
    transport: Arc<dyn Transport>,
    store: Store,
    /// While not 0, nothing is sent as a leader: the lead is being handed on.
    silent: Arc<AtomicUsize>,
    retry: Duration,
}

impl Network {
    pub(crate) fn new(transport: Arc<dyn Transport>, store: Store, retry: Duration) -> Network {
        Network { transport, store, silent: Arc::default(), retry }
    }

    /// Sends nothing as a leader until what this returns is dropped.
    pub(crate) fn fall_silent(&self) -> Silence {
        self.silent.fetch_add(1, Ordering::AcqRel);
        Silence(self.silent.clone())
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether a leader here may speak.
    pub(crate) fn may_lead(&self) -> bool {
        let disk = self.store.disk();
        self.silent.load(Ordering::Acquire) == 0 && disk.is_open() && disk.stalled() < STALL_LIMIT
    }

    pub(crate) async fn ask(
        &self,
        to: RaftId,
        address: &str,
        question: Question,
    ) -> Result<Answer, TransportError> {
        let answer = self.transport.send(to, address, wire::write(to, question)).await?;
        match rmp_serde::from_slice(&answer) {
            Ok(Answer::Failed(reason)) => Err(TransportError { reason }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(TransportError { reason: format!("the answer has no known form: {error}") }),
        }
    }
}

/// Ends when it is dropped, so also when the call that began it is.
pub(crate) struct Silence(Arc<AtomicUsize>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The way to one member.
pub(crate) struct Line {
    network: Network,
    to: RaftId,
    node: BasicNode,
}

impl Line {
    async fn ask<E: std::error::Error>(&self, question: Question) -> Result<Answer, Failure<E>> {
        let answer = self.network.ask(self.to, &self.node.addr, question).await;
        answer.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    fn unexpected<E: std::error::Error>() -> Failure<E> {
        let error = TransportError { reason: "the answer does not fit the question".to_owned() };
        RPCError::Network(NetworkError::new(&error))
    }

    fn check_lead(&self) -> Result<(), NetworkError> {
        if self.network.may_lead() {
            return Ok(());
        }
        let error = TransportError { reason: "this member speaks as leader no longer".to_owned() };
        Err(NetworkError::new(&error))
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Line;

    async fn new_client(&mut self, to: RaftId, node: &BasicNode) -> Line {
        Line { network: self.clone(), to, node: node.clone() }
    }
}

impl RaftNetwork<Types> for Line {
    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, Failure> {
        self.check_lead().map_err(RPCError::Network)?;
        if let Some(commit) = request.leader_commit {
            // Agreed on with this member's voice, which counts only once its disk has the entry.
            // Mostly it has, or is about to; else the next message says so.
            let durable = self.network.store.durable(index_of(&commit));
            if !matches!(tokio::time::timeout(COMMIT_PATIENCE, durable).await, Ok(Ok(()))) {
                request.leader_commit = None;
            }
        }
        match self.ask(Question::Append(request)).await? {
            Answer::Append(answer) => Ok(answer),
            _ => Err(Line::unexpected()),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, Failure<InstallSnapshotError>> {
        self.check_lead().map_err(RPCError::Network)?;
        let segment = SnapshotSegmentId { id: request.meta.snapshot_id.clone(), offset: request.offset };
        match self.ask(Question::Chunk(request.into())).await? {
            Answer::Chunk(answer) => Ok(answer),
            Answer::Mismatch => {
                let expect = SnapshotSegmentId { offset: 0, ..segment.clone() };
                let mismatch =
                    InstallSnapshotError::SnapshotMismatch(SnapshotMismatch { expect, got: segment });
                Err(RPCError::RemoteError(RemoteError::new(self.to, RaftError::APIError(mismatch))))
            }
            _ => Err(Line::unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<RaftId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, Failure> {
        match self.ask(Question::Vote(request)).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(Line::unexpected()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.retry))
    }
}
