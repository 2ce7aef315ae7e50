//! Changes of members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, sleep, timeout};

use super::{Consensus, MemberError};
use crate::notice::RaftId;
use crate::raft::index_of;
use crate::raft::wire::Question;

/// How long one change may take until a majority has it.
const AGREE_LIMIT: Duration = Duration::from_secs(10);
/// How long to try while other changes are under way.
const BUSY_LIMIT: Duration = Duration::from_secs(10);
/// How long a new member may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// How far behind a new member counts as caught up, in entries.
const CAUGHT_UP: u64 = 64;
const PAUSE: Duration = Duration::from_millis(20);

type Change = ChangeMembers<RaftId, BasicNode>;

impl Consensus {
    /// Adds a member: it learns the log first and votes once it has caught up. Adding a voter again succeeds, and
    /// updates its address.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_member(&self, id: RaftId, address: String) -> Result<(), MemberError> {
        let _turn = self.inner.changing.lock().await;
        self.set_address(id, address).await?;
        if self.is_voter(id) {
            return Ok(());
        }
        self.catch_up(id).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
    }

    /// Removes a member. Removing one that is not there succeeds. A leader that removes itself leads until that is
    /// agreed on; then another is elected at once.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove_member(&self, id: RaftId) -> Result<(), MemberError> {
        let _turn = self.inner.changing.lock().await;
        self.lead()?;
        if self.address(id).is_none() {
            return Ok(());
        }
        if !self.is_voter(id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await;
        }
        let heir = if id == self.inner.id { self.inner.pulse.heir() } else { None };
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await?;
        if let Some((heir, address, _)) = heir {
            self.inner.network.set_silent(true);
            sleep(self.inner.election.start).await;
            // Without an answer the others elect one by themselves, a little later.
            let asked = self.inner.network.ask(heir, &address, Question::TakeOver);
            let _ = timeout(self.inner.election.start, asked).await;
            self.inner.network.set_silent(false);
        }
        Ok(())
    }

    /// Replaces a member's address.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn update_address(&self, id: RaftId, address: String) -> Result<(), MemberError> {
        let _turn = self.inner.changing.lock().await;
        self.lead()?;
        if self.address(id).is_none() {
            return Err(MemberError::Unknown);
        }
        self.set_address(id, address).await
    }

    fn lead(&self) -> Result<(), MemberError> {
        match self.inner.herald.leads() {
            Some(_) => Ok(()),
            None => Err(self.not_leader().into()),
        }
    }

    fn address(&self, id: RaftId) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().get_node(&id).map(|node| node.addr.clone())
    }

    fn is_voter(&self, id: RaftId) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().any(|voter| voter == id)
    }

    async fn set_address(&self, id: RaftId, address: String) -> Result<(), MemberError> {
        self.lead()?;
        if self.address(id).as_ref() == Some(&address) {
            return Ok(());
        }
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))])), true).await
    }

    async fn catch_up(&self, id: RaftId) -> Result<(), MemberError> {
        let mut metrics = self.inner.raft.metrics();
        let caught_up = metrics.wait_for(|metrics| {
            let Some(replication) = &metrics.replication else { return true };
            let matching = replication.get(&id).and_then(Option::as_ref).map(index_of);
            matching
                .is_some_and(|index| index + CAUGHT_UP > metrics.last_log_index.map_or(0, |last| last + 1))
        });
        match timeout(CATCH_UP_LIMIT, caught_up).await {
            Ok(Ok(_)) => self.lead(),
            Ok(Err(_)) => Err(MemberError::Stopped),
            Err(_) => Err(MemberError::Behind),
        }
    }

    async fn change(&self, change: Change, retain: bool) -> Result<(), MemberError> {
        let begun = Instant::now();
        loop {
            let changed =
                timeout(AGREE_LIMIT, self.inner.raft.change_membership(change.clone(), retain)).await;
            let error = match changed {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(RaftError::Fatal(_))) => return Err(MemberError::Stopped),
                Ok(Err(RaftError::APIError(error))) => error,
                Err(_) => return Err(MemberError::Quorum),
            };
            match error {
                ClientWriteError::ForwardToLeader(_) => return Err(self.not_leader().into()),
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::EmptyMembership(_)) => {
                    return Err(MemberError::Last);
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(_)) => {
                    return Err(MemberError::Unknown);
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    if begun.elapsed() > BUSY_LIMIT {
                        return Err(MemberError::Busy);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
