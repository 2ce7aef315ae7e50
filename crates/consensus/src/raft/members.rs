//! Changes of members, one at a time and each to its end.

use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, sleep, timeout};

use super::Raft;
use super::store::Store;
use crate::notice::RaftId;

/// How long one change may take until a majority has it.
const AGREE_LIMIT: Duration = Duration::from_secs(10);
/// How long to try while other changes are under way.
const BUSY_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) type Change = ChangeMembers<RaftId, BasicNode>;

/// Why a change did not come to its end.
pub(crate) enum ChangeError {
    NotLeader,
    Busy,
    Unknown,
    Last,
    Quorum,
    Stopped,
}

/// Changes the members. The caller holds the turn to do so until this returns, and does not drop it before.
///
/// Two sets of voters share a majority only with the next one, so a change may begin only when a majority has the
/// one before. openraft sees to that, but counts what this leader has only queued for its disk: it would begin a
/// second change on top of one that a crash here takes back. So the disk comes first.
pub(crate) async fn change_members(
    raft: &Raft,
    store: &Store,
    change: Change,
    retain: bool,
) -> Result<(), ChangeError> {
    let begun = Instant::now();
    loop {
        store.disk().settle().await.map_err(|_| ChangeError::Stopped)?;
        let error = match timeout(AGREE_LIMIT, raft.change_membership(change.clone(), retain)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(RaftError::Fatal(_))) => return Err(ChangeError::Stopped),
            Ok(Err(RaftError::APIError(error))) => error,
            Err(_) => return Err(ChangeError::Quorum),
        };
        match error {
            ClientWriteError::ForwardToLeader(_) => return Err(ChangeError::NotLeader),
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::EmptyMembership(_)) => {
                return Err(ChangeError::Last);
            }
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(_)) => {
                return Err(ChangeError::Unknown);
            }
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                if begun.elapsed() > BUSY_LIMIT {
                    return Err(ChangeError::Busy);
                }
                sleep(PAUSE).await;
            }
        }
    }
}
