//! Members in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::log::tests::disk::Disk;
use crate::log::{Index, Log, Snapshot, Term};
use crate::{Config, Consensus, LogKey, Notice, ProposalId, RaftId, Standing, Transport, TransportError};

pub(super) const KEY: LogKey = LogKey::new([7; 32]);
/// No condition takes longer, on however slow a machine.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Wires {
    running: BTreeMap<RaftId, Consensus>,
    cut_off: BTreeSet<RaftId>,
    /// What they say arrives, and no answer comes back.
    deaf: BTreeSet<RaftId>,
}

struct Wire {
    from: RaftId,
    wires: Arc<Mutex<Wires>>,
}

impl Transport for Wire {
    fn send(
        &self,
        to: RaftId,
        _address: &str,
        message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>> {
        let (from, all) = (self.from, self.wires.clone());
        let target = {
            let wires = self.wires.lock().unwrap();
            let cut = wires.cut_off.contains(&to) || wires.cut_off.contains(&self.from);
            wires.running.get(&to).filter(|_| !cut).cloned()
        };
        Box::pin(async move {
            let failed = |reason: String| TransportError { reason };
            let target = target.ok_or_else(|| failed("nobody is there".to_owned()))?;
            let answer = target.receive(message).await.map_err(|error| failed(error.to_string()))?;
            if all.lock().unwrap().deaf.contains(&from) {
                return Err(failed("no answer".to_owned()));
            }
            Ok(answer)
        })
    }
}

#[derive(Default)]
struct Seen {
    entries: Vec<(Index, Option<Vec<u8>>)>,
    own: Vec<ProposalId>,
    refused: Vec<ProposalId>,
    restored: Option<Snapshot>,
    leads: Option<Term>,
    failed: Option<String>,
}

pub(super) struct Member {
    pub(super) id: RaftId,
    dir: tempfile::TempDir,
    /// In place of a file in `dir`.
    disk: Option<Disk>,
    /// Held by a test that keeps the owner from taking notices.
    pub(super) ear: Arc<tokio::sync::Mutex<()>>,
    wires: Arc<Mutex<Wires>>,
    seen: Arc<Mutex<Seen>>,
    changed: Arc<tokio::sync::Notify>,
}

impl Member {
    pub(super) fn config(&self) -> Config {
        Config::new(self.dir.path().to_owned(), self.id, KEY)
    }

    pub(super) fn consensus(&self) -> Consensus {
        self.wires.lock().unwrap().running[&self.id].clone()
    }

    pub(super) async fn start(&self) {
        let wire = Arc::new(Wire { from: self.id, wires: self.wires.clone() });
        let (consensus, mut notices) = match self.disk.clone() {
            Some(disk) => Consensus::open_log(self.config(), wire, || Log::open_on(disk)).await.unwrap(),
            None => Consensus::open(self.config(), wire).await.unwrap(),
        };
        self.wires.lock().unwrap().running.insert(self.id, consensus);
        let (seen, changed) = (self.seen.clone(), self.changed.clone());
        {
            let mut seen = seen.lock().unwrap();
            (seen.entries, seen.restored, seen.failed) = (Vec::new(), None, None);
        }
        let ear = self.ear.clone();
        tokio::spawn(async move {
            while let Some(notice) = notices.recv().await {
                drop(ear.lock().await);
                seen.lock().unwrap().take(notice);
                changed.notify_waiters();
            }
        });
    }

    pub(super) async fn stop(&self) {
        let consensus = self.wires.lock().unwrap().running.remove(&self.id).unwrap();
        consensus.stop().await;
        self.seen.lock().unwrap().leads = None;
    }

    pub(super) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    /// Waits for the disk's failure; returns the reason. The member is to be stopped and started again.
    pub(super) async fn failed(&self) -> String {
        self.until("it fails", || self.seen.lock().unwrap().failed.is_some()).await;
        let mut seen = self.seen.lock().unwrap();
        seen.leads = None;
        seen.failed.clone().unwrap()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.seen.lock().unwrap().failed.is_some()
    }

    fn is_running(&self) -> bool {
        self.wires.lock().unwrap().running.contains_key(&self.id)
    }

    /// Waits for a condition that a notice, or a moment, may bring.
    pub(super) async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let end = tokio::time::Instant::now() + LIMIT;
        while !condition() {
            assert!(tokio::time::Instant::now() < end, "member {}: not in time: {what}", self.id);
            let _ = tokio::time::timeout(Duration::from_millis(10), self.changed.notified()).await;
        }
    }

    pub(super) async fn leads(&self) -> Term {
        self.until("it leads", || self.seen.lock().unwrap().leads.is_some()).await;
        self.seen.lock().unwrap().leads.unwrap()
    }

    pub(super) async fn committed(&self, payload: &[u8]) {
        let what = format!("{} is committed", String::from_utf8_lossy(payload));
        self.until(&what, || self.payloads().iter().any(|told| told == payload)).await;
    }

    pub(super) async fn refused(&self, id: ProposalId) {
        self.until("a refusal", || self.seen.lock().unwrap().refused.contains(&id)).await;
    }

    pub(super) fn has_refused(&self, id: ProposalId) -> bool {
        self.seen.lock().unwrap().refused.contains(&id)
    }

    pub(super) async fn standing(&self, condition: impl Fn(&Standing) -> bool) -> Standing {
        let mut standing = self.consensus().standing();
        let standing = tokio::time::timeout(LIMIT, standing.wait_for(|standing| condition(standing))).await;
        standing.unwrap().unwrap().clone()
    }

    pub(super) fn payloads(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().entries.iter().filter_map(|(_, payload)| payload.clone()).collect()
    }

    pub(super) fn own(&self) -> Vec<ProposalId> {
        self.seen.lock().unwrap().own.clone()
    }

    pub(super) fn restored(&self) -> Option<(Index, Vec<u8>)> {
        self.seen.lock().unwrap().restored.clone().map(|snapshot| (snapshot.index, snapshot.payload))
    }

    pub(super) fn last_index(&self) -> Index {
        self.seen.lock().unwrap().entries.last().map_or(0, |(index, _)| *index)
    }

    pub(super) fn purged(&self) -> Index {
        let consensus = self.consensus();
        let metrics = consensus.inner.raft.metrics();
        metrics.borrow().purged.map_or(0, |id| id.index + 1)
    }
}

impl Seen {
    fn take(&mut self, notice: Notice) {
        assert_eq!(self.failed, None, "nothing follows a failure");
        match notice {
            Notice::Restored(snapshot) => {
                self.entries.clear();
                self.restored = Some(snapshot);
            }
            Notice::Committed { index, payload, own } => {
                let before = self.entries.last().map(|(index, _)| *index);
                let before = before.or(self.restored.as_ref().map(|snapshot| snapshot.index)).unwrap_or(0);
                assert_eq!(index, before + 1, "indices rise by one");
                self.entries.push((index, payload));
                self.own.extend(own);
            }
            Notice::Leads { term } => self.leads = Some(term),
            Notice::Follows { .. } => self.leads = None,
            Notice::Refused { id, .. } => self.refused.push(id),
            Notice::Failed { reason, .. } => self.failed = Some(reason),
        }
    }
}

pub(super) struct Cluster {
    wires: Arc<Mutex<Wires>>,
    members: Vec<Arc<Member>>,
    /// Whether members have a [`Disk`].
    in_memory: bool,
}

impl Cluster {
    /// One member that has founded a cluster.
    pub(super) async fn found() -> Cluster {
        Cluster::found_on(false).await
    }

    async fn found_on(in_memory: bool) -> Cluster {
        let mut cluster = Cluster { wires: Arc::default(), members: Vec::new(), in_memory };
        let first = cluster.add().await;
        first.consensus().found("address 1".to_owned()).await.unwrap();
        cluster
    }

    pub(super) async fn of(members: usize) -> Cluster {
        Cluster::found().await.grown_to(members).await
    }

    /// Members whose disks can be full, slow, or gone.
    pub(super) async fn on_disks(members: usize) -> Cluster {
        Cluster::found_on(true).await.grown_to(members).await
    }

    async fn grown_to(self, members: usize) -> Cluster {
        let mut cluster = self;
        let first = cluster.member(1);
        first.leads().await;
        for _ in 1..members {
            let next = cluster.add().await;
            first.consensus().add_member(next.id, format!("address {}", next.id)).await.unwrap();
        }
        first
            .standing(|standing| standing.members.values().filter(|seat| seat.voter).count() == members)
            .await;
        cluster
    }

    async fn add(&mut self) -> Arc<Member> {
        let member = Arc::new(Member {
            id: self.members.len() as u64 + 1,
            dir: tempfile::tempdir().unwrap(),
            disk: self.in_memory.then(Disk::new),
            ear: Arc::default(),
            wires: self.wires.clone(),
            seen: Arc::default(),
            changed: Arc::default(),
        });
        member.start().await;
        self.members.push(member.clone());
        member
    }

    pub(super) fn transport(&self, from: RaftId) -> Arc<dyn Transport> {
        Arc::new(Wire { from, wires: self.wires.clone() })
    }

    pub(super) fn member(&self, id: RaftId) -> Arc<Member> {
        self.members[id as usize - 1].clone()
    }

    pub(super) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    pub(super) fn follower(&self, leader: RaftId) -> Arc<Member> {
        self.members.iter().find(|member| member.id != leader).unwrap().clone()
    }

    pub(super) async fn leader(&self) -> Arc<Member> {
        self.leader_but(0).await
    }

    /// Waits until a member leads, not `but`.
    pub(super) async fn leader_but(&self, but: RaftId) -> Arc<Member> {
        let leads = |member: &&Arc<Member>| {
            member.id != but && member.is_running() && member.seen.lock().unwrap().leads.is_some()
        };
        self.members[0].until("somebody leads", || self.members.iter().any(|member| leads(&member))).await;
        self.members.iter().find(leads).unwrap().clone()
    }

    pub(super) fn cut_off(&self, id: RaftId) {
        self.wires.lock().unwrap().cut_off.insert(id);
    }

    /// From now on no answer reaches it.
    pub(super) fn deafen(&self, id: RaftId) {
        self.wires.lock().unwrap().deaf.insert(id);
    }

    pub(super) fn heal(&self) {
        let mut wires = self.wires.lock().unwrap();
        wires.cut_off.clear();
        wires.deaf.clear();
    }

    pub(super) async fn all_committed(&self, payload: &[u8]) {
        for member in &self.members {
            member.committed(payload).await;
        }
    }

    pub(super) fn assert_orders_equal(&self) {
        let mut all = BTreeMap::new();
        for member in &self.members {
            for (index, payload) in &member.seen.lock().unwrap().entries {
                let told = all.entry(*index).or_insert_with(|| payload.clone());
                assert_eq!(told, payload, "entry {index} at member {}", member.id);
            }
        }
    }
}
