//! Changes of members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{sleep, timeout};

use super::{Consensus, Inner, MemberError};
use crate::notice::RaftId;
use crate::raft::index_of;
use crate::raft::members::{Change, ChangeError, change_members};
use crate::raft::wire::Question;

/// How long a new member may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// How far behind a new member counts as caught up, in entries.
const CAUGHT_UP: u64 = 64;

/// The right to change the members.
type Turn = OwnedMutexGuard<()>;

impl Consensus {
    /// Adds a member: it learns the log first and votes once it has caught up. Adding a voter again succeeds, and
    /// updates its address.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_member(&self, id: RaftId, address: String) -> Result<(), MemberError> {
        let turn = self.turn().await;
        let turn = self.set_address(turn, id, address).await?;
        if self.is_voter(id) {
            return Ok(());
        }
        self.catch_up(id).await?;
        self.change(turn, ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await.map(|_| ())
    }

    /// Removes a member. Removing one that is not there succeeds. A leader that removes itself leads until that is
    /// agreed on; then another is elected at once.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove_member(&self, id: RaftId) -> Result<(), MemberError> {
        let turn = self.turn().await;
        self.lead()?;
        if self.address(id).is_none() {
            return Ok(());
        }
        if !self.is_voter(id) {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            return self.change(turn, change, false).await.map(|_| ());
        }
        let heir = if id == self.inner.id { self.inner.pulse.heir() } else { None };
        let _turn = self.change(turn, ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await?;
        if let Some((heir, address, _)) = heir {
            let _silence = self.inner.network.fall_silent();
            sleep(self.inner.election.start).await;
            // Without an answer the others elect one by themselves, a little later.
            let asked = self.inner.network.ask(heir, &address, Question::TakeOver);
            let _ = timeout(self.inner.election.start, asked).await;
        }
        Ok(())
    }

    /// Replaces a member's address.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn update_address(&self, id: RaftId, address: String) -> Result<(), MemberError> {
        let turn = self.turn().await;
        self.lead()?;
        if self.address(id).is_none() {
            return Err(MemberError::Unknown);
        }
        self.set_address(turn, id, address).await.map(|_| ())
    }

    async fn turn(&self) -> Turn {
        self.inner.changing.clone().lock_owned().await
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

    async fn set_address(&self, turn: Turn, id: RaftId, address: String) -> Result<Turn, MemberError> {
        self.lead()?;
        if self.address(id).as_ref() == Some(&address) {
            return Ok(turn);
        }
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))]));
        self.change(turn, change, true).await
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

    /// Makes one change, to its end also when the caller gives up: `turn` stays taken so long.
    async fn change(&self, turn: Turn, change: Change, retain: bool) -> Result<Turn, MemberError> {
        let consensus = self.clone();
        let changing = tokio::spawn(async move {
            let Inner { raft, store, .. } = &*consensus.inner;
            let changed = change_members(raft, store, change, retain).await;
            changed.map(|()| turn).map_err(|error| match error {
                ChangeError::NotLeader => consensus.not_leader().into(),
                ChangeError::Busy => MemberError::Busy,
                ChangeError::Unknown => MemberError::Unknown,
                ChangeError::Last => MemberError::Last,
                ChangeError::Quorum => MemberError::Quorum,
                ChangeError::Stopped => MemberError::Stopped,
            })
        });
        changing.await.unwrap_or(Err(MemberError::Stopped))
    }
}
