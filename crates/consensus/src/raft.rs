//! openraft over the durable log: its storage, network, clock and state machine.
//!
//! openraft counts entries from 0, the log from 1: `index` is the log's everywhere but in openraft's own types.

pub(crate) mod disk;
pub(crate) mod herald;
pub(crate) mod machine;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod pulse;
pub(crate) mod store;
pub(crate) mod wire;

use std::io::Cursor;

use bytes::Bytes;
use openraft::{BasicNode, CommittedLeaderId, LogId, StorageError, StorageIOError};
use serde::{Deserialize, Serialize};

use crate::log::{Index, LogError, Term};
use crate::notice::{ProposalId, RaftId};

openraft::declare_raft_types!(
    /// What openraft works with here.
    pub(crate) Types:
        D = Command,
        R = (),
        NodeId = RaftId,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;

/// A proposal in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The opening of a log that it was proposed through.
    pub(crate) origin: u64,
    pub(crate) id: ProposalId,
    /// The term it was decided in; void in any other.
    pub(crate) term: Term,
    pub(crate) payload: Bytes,
}

/// What a snapshot holds besides the owner's state.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotBody {
    pub(crate) membership: openraft::StoredMembership<RaftId, BasicNode>,
    pub(crate) state: Bytes,
}

pub(crate) fn log_id(index: Index, term: Term) -> Option<LogId<RaftId>> {
    let index = index.checked_sub(1)?;
    Some(LogId::new(CommittedLeaderId::new(term, RaftId::default()), index))
}

pub(crate) fn index_of(id: &LogId<RaftId>) -> Index {
    id.index + 1
}

/// In MessagePack, with names: a later version may add fields.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("our own types have a form")
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, LogError> {
    rmp_serde::from_slice(bytes).map_err(|error| LogError::Damaged {
        action: "read the log",
        detail: format!("{what} has no known form: {error}"),
    })
}

pub(crate) fn storage_error(error: &(impl std::error::Error + 'static)) -> StorageError<RaftId> {
    StorageIOError::read(error).into()
}
