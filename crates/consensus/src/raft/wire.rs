//! Messages between members, in MessagePack.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, LogId, SnapshotMeta, Vote};
use serde::{Deserialize, Serialize};

use super::{Types, encode};
use crate::log::{MAX_ENTRY_BYTES, Term};
use crate::notice::RaftId;

/// The largest message that is taken: one entry of the largest size, and room for what is around it.
pub(crate) const MAX_MESSAGE_BYTES: usize = MAX_ENTRY_BYTES + (8 << 20);
/// The largest snapshot that is taken from a leader.
pub(crate) const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;

/// A question and whom it is for: an address may be another member's by now.
#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) to: RaftId,
    pub(crate) question: Question,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Question {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<RaftId>),
    Chunk(Chunk),
    /// The leader lives.
    Pulse {
        term: Term,
    },
    /// Would you vote for me? Nothing changes by asking.
    Canvass {
        last: Option<LogId<RaftId>>,
    },
    /// Stand for election now: I give up the lead.
    TakeOver,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<RaftId>),
    Vote(VoteResponse<RaftId>),
    Chunk(InstallSnapshotResponse<RaftId>),
    /// The chunk does not go on where the last one ended: begin anew.
    Mismatch,
    Done,
    Canvass(bool),
    Failed(String),
}

/// A part of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Chunk {
    vote: Vote<RaftId>,
    meta: SnapshotMeta<RaftId, BasicNode>,
    offset: u64,
    data: Bytes,
    done: bool,
}

impl From<InstallSnapshotRequest<Types>> for Chunk {
    fn from(request: InstallSnapshotRequest<Types>) -> Chunk {
        let InstallSnapshotRequest { vote, meta, offset, data, done } = request;
        Chunk { vote, meta, offset, data: data.into(), done }
    }
}

impl From<Chunk> for InstallSnapshotRequest<Types> {
    fn from(chunk: Chunk) -> InstallSnapshotRequest<Types> {
        let Chunk { vote, meta, offset, data, done } = chunk;
        InstallSnapshotRequest { vote, meta, offset, data: data.into(), done }
    }
}

pub(crate) fn write(to: RaftId, question: Question) -> Bytes {
    encode(&Envelope { to, question }).into()
}

/// Reads a question, and refuses what no member sends: openraft trusts what it is given.
pub(crate) fn read(message: &[u8]) -> Result<Envelope, String> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(format!("{} bytes are above the limit of {MAX_MESSAGE_BYTES}", message.len()));
    }
    let envelope: Envelope = rmp_serde::from_slice(message).map_err(|error| error.to_string())?;
    let sound = match &envelope.question {
        Question::Append(append) => {
            is_leader(&append.vote) && is_consecutive(append) && is_index(append.leader_commit.as_ref())
        }
        Question::Vote(vote) => {
            is_member(&vote.vote) && !vote.vote.committed && is_index(vote.last_log_id.as_ref())
        }
        Question::Chunk(chunk) => {
            let end = chunk.offset.checked_add(chunk.data.len() as u64);
            is_leader(&chunk.vote)
                && end.is_some_and(|end| end <= MAX_SNAPSHOT_BYTES)
                && chunk.meta.last_log_id.is_some()
                && is_index(chunk.meta.last_log_id.as_ref())
        }
        Question::Pulse { .. } | Question::Canvass { .. } | Question::TakeOver => true,
    };
    if sound { Ok(envelope) } else { Err("its parts contradict each other".to_owned()) }
}

fn is_member(vote: &Vote<RaftId>) -> bool {
    vote.leader_id().voted_for().is_some_and(|id| id != 0) && vote.leader_id().get_term() < Term::MAX / 2
}

fn is_leader(vote: &Vote<RaftId>) -> bool {
    vote.committed && is_member(vote)
}

fn is_index(id: Option<&LogId<RaftId>>) -> bool {
    id.is_none_or(|id| id.index < u64::MAX / 2)
}

fn is_consecutive(append: &AppendEntriesRequest<Types>) -> bool {
    let mut next = append.prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    let mut term = append.prev_log_id.map_or(0, |id| id.leader_id.term);
    let leader_term = append.vote.leader_id().get_term();
    is_index(append.prev_log_id.as_ref())
        && append.entries.iter().all(|entry| {
            let good =
                entry.log_id.index == next && (term..=leader_term).contains(&entry.log_id.leader_id.term);
            (next, term) = (entry.log_id.index.saturating_add(1), entry.log_id.leader_id.term);
            good
        })
}
