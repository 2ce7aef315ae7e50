//! The managers' consensus, as its contract says: one leader in a term, and only the newest term's leader
//! commits, with a quorum. What a leader had proposed when it lost its lead may be committed or not.

use std::collections::BTreeSet;

use skep_cluster::Change;

use crate::disk::Log;

/// What the managers agree on, and who leads in truth.
#[derive(Debug, Default)]
pub(crate) struct Consensus {
    pub term: u64,
    /// The machine of the newest term's leader; it may have died or be cut off.
    pub leader: Option<usize>,
    /// Machines with a seat.
    pub voters: BTreeSet<usize>,
    /// What the newest term's leader proposed and is not committed.
    pub pending: Option<Vec<Change>>,
    pub log: Log,
    /// The seats that the leader was last said to reach.
    pub reached: BTreeSet<u64>,
}

impl Consensus {
    /// Whether so many members, the leader among them, decide.
    pub fn is_quorum(&self, members: usize) -> bool {
        members * 2 > self.voters.len()
    }
}
