//! What a member is told, and what it may ask about its own standing.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::{Index, Snapshot, Term};

/// A seat in the consensus: random, non-zero, new for each seat that a node takes.
pub type RaftId = u64;

/// The proposer's name for a proposal, its own to choose; not repeated between two openings of the log.
pub type ProposalId = u64;

/// What happened, strictly in order, in one stream.
///
/// `index` rises by one from one [`Notice::Committed`] to the next; after [`Notice::Restored`] it goes on behind
/// the snapshot. After opening, what was agreed on before comes first (as far as this member knows it to be agreed
/// on; the rest follows once there is a leader).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The whole state is this: told at open when there is a snapshot, and when the leader sent one.
    Restored(Snapshot),
    /// An entry is agreed on and durable.
    Committed {
        /// Its position.
        index: Index,
        /// What was proposed; `None` for an entry of the consensus itself (a new leader's first, a change of
        /// members), which only moves the index.
        payload: Option<Vec<u8>>,
        /// The proposal, when it was proposed through this opening of this log. It may also come after
        /// [`Notice::Follows`], when the next leader took the entry over.
        own: Option<ProposalId>,
    },
    /// This member leads, and has been told everything that was committed before. Its proposals are taken.
    Leads {
        /// The term it leads in.
        term: Term,
    },
    /// This member leads no longer, or another leads than before, or nobody known. Proposals without an answer
    /// have an unknown fate: they may still be committed by another leader.
    Follows {
        /// The leader and its address, as far as known.
        leader: Option<(RaftId, String)>,
    },
    /// The proposal is certainly not in the log and never will be.
    Refused {
        /// The proposal.
        id: ProposalId,
        /// Why, in words for a user.
        reason: String,
    },
    /// The disk failed or filled: this consensus has stopped, and this is the last notice. Nothing that was told
    /// as committed is lost; the log can be opened again.
    Failed {
        /// What failed, with its causes.
        reason: String,
        /// What is on the disk is not what was written there: opening it again does not help.
        damaged: bool,
    },
}

/// A member's place in the consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Where it is reached.
    pub address: String,
    /// Whether it votes; a new member does once it has caught up.
    pub voter: bool,
}

/// How things stand, as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether this member leads and [`Notice::Leads`] was told.
    pub leads: bool,
    /// The leader and its address, as far as known.
    pub leader: Option<(RaftId, String)>,
    /// The highest term seen.
    pub term: Term,
    /// All members.
    pub members: BTreeMap<RaftId, Seat>,
    /// The members that answer, this one included; empty unless this member leads.
    pub reachable: BTreeSet<RaftId>,
}
