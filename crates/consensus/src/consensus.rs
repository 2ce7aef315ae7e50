//! One member of the consensus.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{CheckIsLeaderError, InitializeError, RaftError};
use openraft::{BasicNode, EntryPayload, Membership, SnapshotPolicy, Vote};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::log::{self, Entry, Index, Log, LogError, MAX_ENTRY_BYTES, Term};
use crate::notice::{Notice, ProposalId, RaftId, Standing};
use crate::raft::disk::{Failure, chain};
use crate::raft::herald::{Herald, View};
use crate::raft::machine::{Compaction, Machine};
use crate::raft::network::Network;
use crate::raft::pulse::{Pulse, Signs};
use crate::raft::store::Store;
use crate::raft::wire::{self, Answer, Envelope, Question};
use crate::raft::{Command, Raft, Types, encode, index_of};
use crate::{LogKey, Transport};

mod members;
#[cfg(test)]
mod tests;

/// Notices that wait for a slow owner before the consensus waits with it.
const NOTICES: usize = 1024;
/// Entries kept behind a snapshot for members that lag a little, instead of sending them all of it.
const KEPT_ENTRIES: u64 = 500;
/// Entries sent in one message.
const MESSAGE_ENTRIES: u64 = 300;
/// Bytes of one part of a snapshot.
const CHUNK_BYTES: u64 = 1 << 20;
/// How long a member may take to install the last part of a snapshot.
const INSTALL_LIMIT: Duration = Duration::from_secs(20);
/// Room in the largest entry for what is around a proposal.
const FRAME_BYTES: usize = 256;

/// How a member is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of its log.
    pub dir: PathBuf,
    /// Its seat.
    pub id: RaftId,
    /// What its log is encrypted with.
    pub key: LogKey,
    /// How often a leader says that it lives: 100 ms unless a test wants otherwise.
    pub heartbeat: Duration,
    /// How long a member waits without a sign of the leader before it stands for election: 300 ms to 600 ms.
    pub election: Range<Duration>,
}

impl Config {
    /// The usual times.
    pub fn new(dir: PathBuf, id: RaftId, key: LogKey) -> Config {
        let election = Duration::from_millis(300)..Duration::from_millis(600);
        Config { dir, id, key, heartbeat: Duration::from_millis(100), election }
    }

    /// The file of its log.
    pub fn file(&self) -> PathBuf {
        self.dir.join(log::FILE)
    }
}

/// Why a cluster was not founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The log already belongs to a cluster.
    #[error("the log already belongs to a cluster")]
    Founded,
    /// It has stopped; see [`Notice::Failed`].
    #[error("the consensus has stopped")]
    Stopped,
}

/// This member does not lead, or could not confirm in time that it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead")]
pub struct NotLeader {
    /// Who does, as far as known. It may be this member, when it leads but did not reach a majority.
    pub leader: Option<(RaftId, String)>,
}

/// Why the members were not changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Only the leader changes members. The change may still happen when the lead was lost during it.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Other changes were under way all the time.
    #[error("another change of members is under way")]
    Busy,
    /// The new member did not catch up in time; it is no voter, and can be added again or removed.
    #[error("the member did not catch up with the log in time")]
    Behind,
    /// There is no such member.
    #[error("there is no such member")]
    Unknown,
    /// The last voter cannot be removed.
    #[error("the last voter cannot be removed")]
    Last,
    /// No majority agreed in time. The change may still happen.
    #[error("no majority of the members agreed in time")]
    Quorum,
    /// It has stopped; see [`Notice::Failed`].
    #[error("the consensus has stopped")]
    Stopped,
}

/// Why another member's message was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is not a message of the consensus, or too large for one.
    #[error("not a message of the consensus: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// It is meant for another seat than this member's.
    #[error("the message is for member {to:016x}")]
    Elsewhere {
        /// The seat it was sent to.
        to: RaftId,
    },
    /// It has stopped; see [`Notice::Failed`].
    #[error("the consensus has stopped")]
    Stopped,
}

struct Proposal {
    id: ProposalId,
    term: Term,
    payload: Vec<u8>,
}

struct Inner {
    id: RaftId,
    election: Range<Duration>,
    raft: Raft,
    store: Store,
    network: Network,
    herald: Arc<Herald>,
    pulse: Pulse,
    compaction: Arc<Compaction>,
    proposals: mpsc::UnboundedSender<Proposal>,
    /// One change of members at a time from here.
    changing: Arc<tokio::sync::Mutex<()>>,
    tasks: Vec<JoinHandle<()>>,
}

/// A handle on this node's member; clones share it. Everything it learns comes by the [`Notice`]s.
/// [`Consensus::stop`] ends it; dropping all handles does not.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Consensus").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the log in `config.dir`, or makes an empty one, and takes part. A member with an empty log waits until
    /// [`Consensus::found`] is called or another member adds it.
    ///
    /// # Errors
    /// See [`LogError`]; [`LogError::Key`] when the log was written under another key.
    pub async fn open(
        config: Config,
        transport: Arc<dyn Transport>,
    ) -> Result<(Consensus, mpsc::Receiver<Notice>), LogError> {
        let (dir, key) = (config.dir.clone(), config.key.clone());
        Consensus::open_log(config, transport, move || Log::open(&dir, &key)).await
    }

    async fn open_log(
        config: Config,
        transport: Arc<dyn Transport>,
        log: impl FnOnce() -> Result<Log, LogError> + Send + 'static,
    ) -> Result<(Consensus, mpsc::Receiver<Notice>), LogError> {
        let Config { id, heartbeat, election, .. } = config;
        let opening = tokio::task::spawn_blocking(move || Store::open(log()?));
        let store = opening.await.map_err(|_| LogError::Closed { action: "open the log" })??;
        let (notices, told) = mpsc::channel(NOTICES);
        let (herald, carry) = Herald::new(NOTICES, notices);
        let (herald, carry) = (Arc::new(herald), tokio::spawn(carry));
        let network = Network::new(transport, store.clone(), heartbeat);
        let compaction = Arc::<Compaction>::default();
        let view = Arc::new(watch::Sender::new(View { leads: None, leader: None }));
        let origin = random();
        let machine =
            Machine::new(store.clone(), herald.clone(), view.subscribe(), origin, compaction.clone()).await?;
        let started =
            Raft::new(id, Arc::new(settings(&election)), network.clone(), store.clone(), machine).await;
        let damaged = |error: openraft::error::Fatal<_>| LogError::Damaged {
            action: "open the log",
            detail: chain(&error),
        };
        let raft = started.map_err(damaged)?;
        let changing = Arc::<tokio::sync::Mutex<()>>::default();
        let signs = Arc::new(std::sync::Mutex::new(Signs::default()));
        let pulse = Pulse {
            id,
            raft: raft.clone(),
            network: network.clone(),
            herald: herald.clone(),
            view,
            signs,
            changing: changing.clone(),
            heartbeat,
            election: election.clone(),
        };
        let (proposals, proposed) = mpsc::unbounded_channel();
        let tasks = vec![
            carry,
            tokio::spawn(compaction.clone().run(raft.clone())),
            tokio::spawn(pulse.clone().run()),
            tokio::spawn(propose_all(raft.clone(), herald.clone(), origin, proposed)),
            tokio::spawn(guard(raft.clone(), store.clone(), herald.clone())),
        ];
        let inner = Inner {
            id,
            election,
            raft,
            store,
            network,
            herald,
            pulse,
            compaction,
            proposals,
            changing,
            tasks,
        };
        Ok((Consensus { inner: Arc::new(inner) }, told))
    }

    /// Founds a cluster of this one member, reached at `address`. It is durable on return; [`Notice::Leads`]
    /// follows.
    ///
    /// # Errors
    /// See [`FoundError`].
    pub async fn found(&self, address: String) -> Result<(), FoundError> {
        let members = std::collections::BTreeMap::from([(self.inner.id, BasicNode::new(address))]);
        match self.inner.raft.initialize(members).await {
            Ok(()) => self.inner.store.disk().settle().await.map_err(|_| FoundError::Stopped),
            Err(RaftError::APIError(InitializeError::NotAllowed(_) | InitializeError::NotInMembers(_))) => {
                Err(FoundError::Founded)
            }
            Err(RaftError::Fatal(_)) => Err(FoundError::Stopped),
        }
    }

    /// Proposes an entry that was decided in `term`, the one of the last [`Notice::Leads`] that the owner has taken
    /// in. In any other term it is refused, even when this member leads again: what it was decided on may be
    /// outdated. Its fate is a [`Notice`]: committed, refused, or (after [`Notice::Follows`] or
    /// [`Notice::Failed`]) unknown. Proposals are committed in the order of these calls.
    pub fn propose(&self, term: Term, id: ProposalId, payload: Vec<u8>) {
        // When it has stopped, the owner was told so.
        let _ = self.inner.proposals.send(Proposal { id, term, payload });
    }

    /// A point of the log such that a read after it sees everything that was acknowledged before this call.
    /// A majority has confirmed this member's lead. The caller reads once it was told `Committed` up to there.
    ///
    /// # Errors
    /// When this member does not lead or no majority answers in time.
    pub async fn barrier(&self) -> Result<Index, NotLeader> {
        let confirmed = timeout(self.inner.election.end, self.inner.raft.get_read_log_id()).await;
        match confirmed {
            Ok(Ok((read, _))) => Ok(read.as_ref().map_or(0, index_of)),
            Ok(Err(RaftError::APIError(
                CheckIsLeaderError::ForwardToLeader(_) | CheckIsLeaderError::QuorumNotEnough(_),
            )))
            | Ok(Err(RaftError::Fatal(_)))
            | Err(_) => Err(self.not_leader()),
        }
    }

    fn not_leader(&self) -> NotLeader {
        NotLeader { leader: self.inner.herald.standing().borrow().leader.clone() }
    }

    /// Takes another member's message and gives the answer to send back. The caller has made sure that the sender
    /// holds a seat.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub async fn receive(&self, message: Bytes) -> Result<Bytes, ReceiveError> {
        let envelope = wire::read(&message).map_err(|reason| ReceiveError::Malformed { reason })?;
        drop(message);
        let Envelope { to, question } = envelope;
        if to != self.inner.id {
            return Err(ReceiveError::Elsewhere { to });
        }
        self.answer(question).await.map(|answer| encode(&answer).into())
    }

    async fn answer(&self, question: Question) -> Result<Answer, ReceiveError> {
        let Inner { raft, store, pulse, .. } = &*self.inner;
        let failed = |error: &dyn std::error::Error| Ok(Answer::Failed(chain(error)));
        match question {
            Question::Append(request) => {
                pulse.heard_leader(request.vote.leader_id().get_term());
                let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
                match raft.append_entries(request).await {
                    Ok(answer) => {
                        // What this answer promises has to be on the disk.
                        store
                            .durable(last.as_ref().map_or(0, index_of))
                            .await
                            .map_err(|_| ReceiveError::Stopped)?;
                        Ok(Answer::Append(answer))
                    }
                    Err(RaftError::Fatal(_)) => Err(ReceiveError::Stopped),
                    Err(error) => failed(&error),
                }
            }
            Question::Vote(request) => match raft.vote(request).await {
                Ok(answer) => Ok(Answer::Vote(answer)),
                Err(RaftError::Fatal(_)) => Err(ReceiveError::Stopped),
                Err(error) => failed(&error),
            },
            Question::Chunk(chunk) => {
                let request: openraft::raft::InstallSnapshotRequest<Types> = chunk.into();
                pulse.heard_leader(request.vote.leader_id().get_term());
                match raft.install_snapshot(request).await {
                    Ok(answer) => Ok(Answer::Chunk(answer)),
                    Err(RaftError::APIError(_)) => Ok(Answer::Mismatch),
                    Err(RaftError::Fatal(_)) => Err(ReceiveError::Stopped),
                }
            }
            Question::Pulse { term } => {
                pulse.heard_leader(term);
                Ok(Answer::Done)
            }
            Question::Canvass { last } => Ok(Answer::Canvass(pulse.would_vote(last).await)),
            Question::TakeOver => {
                raft.trigger().elect().await.map_err(|_| ReceiveError::Stopped)?;
                Ok(Answer::Done)
            }
        }
    }

    /// Lets `payload` stand for everything committed up to `index`, which must have been told. Some hundreds of
    /// entries before it are kept for members that lag a little. Returns at once; a failure is a
    /// [`Notice::Failed`]. While one such payload is being written, the next one waits, and only the last.
    pub fn compact(&self, index: Index, payload: Vec<u8>) {
        self.inner.compaction.give(index, payload);
    }

    /// How things stand, now and whenever it changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.herald.standing()
    }

    /// Hands the lead to another member that is up to date, if this one leads and there is one. Returns when it is
    /// handed on, or after about two election times.
    pub async fn abdicate(&self) {
        let Inner { pulse, network, election, herald, .. } = &*self.inner;
        if herald.leads().is_none() {
            return;
        }
        let Some((heir, address, _)) = pulse.heir() else { return };
        // The others refuse their vote while they hear a leader.
        let _silence = network.fall_silent();
        tokio::time::sleep(election.start + election.start / 6).await;
        let mut standing = herald.standing();
        let question = Question::TakeOver;
        let asked = timeout(election.start, network.ask(heir, &address, question)).await;
        if matches!(asked, Ok(Ok(Answer::Done))) {
            let handed = standing.wait_for(|standing| !standing.leads);
            let _ = timeout(election.end, handed).await;
        }
    }

    /// Stops. On return the log is closed and can be opened again.
    pub async fn stop(&self) {
        self.inner.herald.close();
        self.inner.store.release();
        // It may have stopped by itself.
        let _ = self.inner.raft.shutdown().await;
        for task in &self.inner.tasks {
            task.abort();
        }
        self.inner.store.disk().close().await;
    }

    /// Makes the log in `config.dir`, which must not be open, that of a cluster of the one member `config.id` at
    /// `address`. Every entry is kept, and those that were not committed will be.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn force_new(config: &Config, address: String) -> Result<(), LogError> {
        let mut log = Log::open(&config.dir, &config.key)?;
        // A term that nobody has led in: an entry of it is in no other log.
        let term = log.term() + 1;
        let vote: Vote<RaftId> = Vote::new(term, config.id);
        log.save_vote(term, &encode(&vote))?;
        let members = std::collections::BTreeMap::from([(config.id, BasicNode::new(address))]);
        let membership = Membership::new(vec![[config.id].into()], members);
        let payload = encode(&EntryPayload::<Types>::Membership(membership));
        log.extend(&[Entry { index: log.last_index() + 1, term, payload }])?;
        Ok(())
    }

    /// Encrypts the log in `dir`, which must not be open, under another key. All of it or nothing: after a crash the
    /// log opens with exactly one of the two.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn rekey(dir: &Path, old: &LogKey, new: &LogKey) -> Result<(), LogError> {
        log::rekey(dir, old, new)
    }
}

/// openraft's settings. Elections are this crate's own ([`Pulse`]), so the election times only say how long a member
/// that hears its leader refuses to vote for another, and how long a vote may take. openraft gives an append as long
/// as its heartbeat interval, so that is longer than the pulse: a follower's disk may be slow.
fn settings(election: &Range<Duration>) -> openraft::Config {
    let lease = u64::try_from(election.start.as_millis()).unwrap_or(u64::MAX).max(6);
    openraft::Config {
        cluster_name: "skep".to_owned(),
        heartbeat_interval: lease * 2 / 3,
        election_timeout_min: lease * 5 / 6,
        election_timeout_max: lease,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        purge_batch_size: 1,
        // A member further behind than what is kept gets the snapshot in any case.
        replication_lag_threshold: u64::MAX / 2,
        max_payload_entries: MESSAGE_ENTRIES,
        snapshot_max_chunk_size: CHUNK_BYTES,
        install_snapshot_timeout: INSTALL_LIMIT.as_millis() as u64,
        ..openraft::Config::default()
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_le_bytes(bytes)
}

/// Hands proposals to openraft in order. Their fate is told by the state machine or by the loss of the lead.
async fn propose_all(
    raft: Raft,
    herald: Arc<Herald>,
    origin: u64,
    mut proposals: mpsc::UnboundedReceiver<Proposal>,
) {
    while let Some(Proposal { id, term, payload }) = proposals.recv().await {
        if payload.len() > MAX_ENTRY_BYTES - FRAME_BYTES {
            let reason = LogError::TooLarge { bytes: payload.len() }.to_string();
            herald.refused(id, reason);
        } else if herald.leads() != Some(term) {
            herald.refused(id, "this member does not lead".to_owned());
        } else if raft.client_write_ff(Command { origin, id, term, payload: payload.into() }).await.is_err() {
            return;
        }
    }
}

/// Waits for the disk or openraft to fail, and tells so.
async fn guard(raft: Raft, store: Store, herald: Arc<Herald>) {
    let mut metrics = raft.metrics();
    let died = async {
        loop {
            if let Err(error) = &metrics.borrow_and_update().running_state {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "openraft ended".to_owned();
            }
        }
    };
    let failure = tokio::select! {
        biased;
        Some(failure) = store.disk().failure() => failure,
        reason = died => {
            // openraft may be the first to notice that the disk is gone.
            match timeout(Duration::from_millis(100), store.disk().failure()).await {
                Ok(Some(told)) => told,
                Ok(None) | Err(_) => Failure { reason, damaged: false },
            }
        }
    };
    store.release();
    // The order matters: nothing may be told after the failure.
    herald.fail(failure);
    let _ = raft.shutdown().await;
    store.disk().close().await;
}
