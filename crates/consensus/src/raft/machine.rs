//! openraft's state machine: it hands what is agreed on to the owner, who has the state.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StoredMembership,
};
use tokio::sync::{Notify, watch};

use super::disk::Job;
use super::herald::{Herald, View};
use super::store::Store;
use super::{Raft, SnapshotBody, Types, decode, encode, index_of, storage_error};
use crate::log::{self, Index, LogError};
use crate::notice::RaftId;

/// How often openraft is asked to write a state while it is at the one before.
const COMPACTION_RETRY: Duration = Duration::from_millis(20);

type Failure = StorageError<RaftId>;
type Members = StoredMembership<RaftId, BasicNode>;

/// A state that the owner gave for a snapshot, until it is being written.
#[derive(Default)]
pub(crate) struct Compaction {
    given: Mutex<Option<(Index, Vec<u8>)>>,
    changed: Notify,
}

impl Compaction {
    fn given(&self) -> MutexGuard<'_, Option<(Index, Vec<u8>)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn give(&self, index: Index, state: Vec<u8>) {
        *self.given() = Some((index, state));
        self.changed.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn waits(&self) -> bool {
        self.given().is_some()
    }

    /// Has openraft write every state that is given, one after the other.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft) {
        loop {
            self.changed.notified().await;
            while self.given().is_some() {
                if raft.trigger().snapshot().await.is_err() {
                    // openraft has stopped, which is told elsewhere.
                    return;
                }
                // It takes no notice while it is at the one before.
                tokio::time::sleep(COMPACTION_RETRY).await;
            }
        }
    }
}

pub(crate) struct Machine {
    store: Store,
    herald: Arc<Herald>,
    view: watch::Receiver<View>,
    /// Marks proposals of this opening.
    origin: u64,
    compaction: Arc<Compaction>,
    applied: Option<LogId<RaftId>>,
    /// The members at the snapshot, and all that came after.
    members: VecDeque<Members>,
}

impl Machine {
    /// A machine in the state of the log's snapshot, of which the owner is told.
    pub(crate) async fn new(
        store: Store,
        herald: Arc<Herald>,
        view: watch::Receiver<View>,
        origin: u64,
        compaction: Arc<Compaction>,
    ) -> Result<Machine, LogError> {
        let mut members = VecDeque::from([Members::default()]);
        let mut applied = None;
        if let Some(snapshot) = store.disk().read(|reader| reader.snapshot()).await? {
            let SnapshotBody { membership, state } = decode("the snapshot", &snapshot.payload)?;
            members = VecDeque::from([membership]);
            applied = super::log_id(snapshot.index, snapshot.term);
            herald.restored(log::Snapshot { payload: state.to_vec(), ..snapshot }).await;
        }
        Ok(Machine { store, herald, view, origin, compaction, applied, members })
    }

    async fn tell(&mut self, entry: Entry<Types>) {
        let index = index_of(&entry.log_id);
        let term = entry.log_id.leader_id.term;
        match entry.payload {
            EntryPayload::Normal(command) if command.term == term => {
                let own = (command.origin == self.origin).then_some(command.id);
                self.herald.committed(index, Some(command.payload.to_vec()), own).await;
            }
            // Decided in an earlier term: somebody else may have decided otherwise since.
            EntryPayload::Normal(command) => {
                self.herald.committed(index, None, None).await;
                if command.origin == self.origin {
                    let reason = "the lead changed before the proposal was logged".to_owned();
                    self.herald.refused(command.id, reason);
                }
            }
            EntryPayload::Membership(membership) => {
                self.members.push_back(Members::new(Some(entry.log_id), membership));
                self.herald.committed(index, None, None).await;
            }
            EntryPayload::Blank => {
                self.herald.committed(index, None, None).await;
                let view = self.view.borrow().clone();
                self.herald.begun(term, &view);
            }
        }
        self.applied = Some(entry.log_id);
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<RaftId>>, Members), Failure> {
        Ok((self.applied, self.members.back().cloned().unwrap_or_default()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut told = Vec::new();
        for entry in entries {
            // Agreed on by what openraft knows; here it also has to be on this member's disk.
            self.store.durable(index_of(&entry.log_id)).await.map_err(|error| storage_error(&error))?;
            self.tell(entry).await;
            told.push(());
        }
        Ok(told)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let compaction = self.compaction.given().take();
        if let Some((index, _)) = &compaction {
            let at = |members: &Members| members.log_id().as_ref().map_or(0, index_of);
            while self.members.get(1).is_some_and(|members| at(members) <= *index) {
                self.members.pop_front();
            }
        }
        let membership = self.members.front().cloned().unwrap_or_default();
        Builder { store: self.store.clone(), compaction, membership }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<RaftId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failure> {
        let Some(last) = meta.last_log_id else { return Ok(()) };
        let (index, term) = (index_of(&last), last.leader_id.term);
        let state = Bytes::from(snapshot.into_inner());
        let body = SnapshotBody { membership: meta.last_membership.clone(), state };
        let stored = log::Snapshot { index, term, payload: encode(&body) };
        self.store.install(stored).await.map_err(|error| storage_error(&error))?;
        self.members = VecDeque::from([body.membership]);
        self.applied = Some(last);
        self.herald.restored(log::Snapshot { index, term, payload: body.state.to_vec() }).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failure> {
        read_snapshot(&self.store).await.map_err(|error| storage_error(&error))
    }
}

async fn read_snapshot(store: &Store) -> Result<Option<Snapshot<Types>>, LogError> {
    let Some(snapshot) = store.disk().read(|reader| reader.snapshot()).await? else { return Ok(None) };
    let SnapshotBody { membership, state } = decode("the snapshot", &snapshot.payload)?;
    let last_log_id = super::log_id(snapshot.index, snapshot.term);
    Ok(Some(Snapshot {
        meta: meta(last_log_id, membership),
        snapshot: Box::new(Cursor::new(state.to_vec())),
    }))
}

fn meta(last_log_id: Option<LogId<RaftId>>, last_membership: Members) -> SnapshotMeta<RaftId, BasicNode> {
    let snapshot_id =
        last_log_id.map_or_else(String::new, |id| format!("{}-{}", id.leader_id.term, id.index));
    SnapshotMeta { last_log_id, last_membership, snapshot_id }
}

fn stands_for(meta: &SnapshotMeta<RaftId, BasicNode>, index: Index) -> bool {
    meta.last_log_id.as_ref().is_some_and(|last| index_of(last) >= index)
}

/// Writes the snapshot that the owner gave.
pub(crate) struct Builder {
    store: Store,
    compaction: Option<(Index, Vec<u8>)>,
    membership: Members,
}

impl Builder {
    async fn write(&mut self) -> Result<Snapshot<Types>, LogError> {
        let closed = |_| LogError::Closed { action: "write a snapshot to the log" };
        let Some((index, state)) = self.compaction.take() else {
            let none = LogError::Closed { action: "write a snapshot that nobody gave" };
            return read_snapshot(&self.store).await?.ok_or(none);
        };
        let last = match self.store.log_id(index).await {
            Ok(last) => last,
            // The leader's snapshot may have taken the entry's place since the owner gave this state.
            Err(error) => {
                let newer = read_snapshot(&self.store).await?;
                return newer.filter(|newer| stands_for(&newer.meta, index)).ok_or(error);
            }
        };
        let body = SnapshotBody { membership: self.membership.clone(), state: Bytes::from(state) };
        let stored = log::Snapshot { index, term: last.leader_id.term, payload: encode(&body) };
        self.store.disk().write(Job::Save(stored)).await.map_err(closed)?;
        let meta = meta(Some(last), body.membership);
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(Vec::new())) })
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failure> {
        self.write().await.map_err(|error| storage_error(&error))
    }
}
