//! One member of the consensus.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::log::{Index, LogError};
use crate::notice::{Notice, ProposalId, RaftId, Standing};
use crate::{LogKey, Transport};

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

/// A handle on this node's member; clones share it. Everything it learns comes by the [`Notice`]s.
#[derive(Clone, Debug)]
pub struct Consensus {}

impl Consensus {
    /// Opens the log in `config.dir`, or makes an empty one, and takes part. A member with an empty log waits until
    /// [`Consensus::found`] is called or another member adds it.
    ///
    /// # Errors
    /// See [`LogError`]; [`LogError::Key`] when the log was written under another key.
    pub async fn open(
        _config: Config,
        _transport: Arc<dyn Transport>,
    ) -> Result<(Consensus, mpsc::Receiver<Notice>), LogError> {
        todo!()
    }

    /// Founds a cluster of this one member, reached at `address`. It is durable on return; [`Notice::Leads`]
    /// follows.
    ///
    /// # Errors
    /// See [`FoundError`].
    pub async fn found(&self, _address: String) -> Result<(), FoundError> {
        todo!()
    }

    /// Proposes an entry. Its fate is a [`Notice`]: committed, refused, or (after [`Notice::Follows`] or
    /// [`Notice::Failed`]) unknown. Proposals are committed in the order of these calls.
    pub fn propose(&self, _id: ProposalId, _payload: Vec<u8>) {
        todo!()
    }

    /// A point of the log such that a read after it sees everything that was acknowledged before this call.
    /// A majority has confirmed this member's lead. The caller reads once it was told `Committed` up to there.
    ///
    /// # Errors
    /// When this member does not lead or no majority answers in time.
    pub async fn barrier(&self) -> Result<Index, NotLeader> {
        todo!()
    }

    /// Adds a member: it learns the log first and votes once it has caught up. Adding a voter again succeeds, and
    /// updates its address.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_member(&self, _id: RaftId, _address: String) -> Result<(), MemberError> {
        todo!()
    }

    /// Removes a member. Removing one that is not there succeeds. A leader that removes itself hands the lead on
    /// first, and is then removed by the new leader; it is so on return.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove_member(&self, _id: RaftId) -> Result<(), MemberError> {
        todo!()
    }

    /// Replaces a member's address.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn update_address(&self, _id: RaftId, _address: String) -> Result<(), MemberError> {
        todo!()
    }

    /// Takes another member's message and gives the answer to send back. The caller has made sure that the sender
    /// holds a seat.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub async fn receive(&self, _message: Bytes) -> Result<Bytes, ReceiveError> {
        todo!()
    }

    /// Lets `payload` stand for everything committed up to `index`, which must have been told. Some hundreds of
    /// entries before it are kept for members that lag a little. Returns at once.
    pub fn compact(&self, _index: Index, _payload: Vec<u8>) {
        todo!()
    }

    /// How things stand, now and whenever it changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        todo!()
    }

    /// Hands the lead to another member that is up to date, if this one leads and there is one. Returns when it is
    /// handed on, or after about two election times.
    pub async fn abdicate(&self) {
        todo!()
    }

    /// Stops. On return the log is closed and can be opened again.
    pub async fn stop(&self) {
        todo!()
    }

    /// Makes the log in `config.dir`, which must not be open, that of a cluster of the one member `config.id` at
    /// `address`. Every entry is kept, and those that were not committed will be.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn force_new(_config: &Config, _address: String) -> Result<(), LogError> {
        todo!()
    }

    /// Encrypts the log in `dir`, which must not be open, under another key. All of it or nothing: after a crash the
    /// log opens with exactly one of the two.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn rekey(_dir: &Path, _old: &LogKey, _new: &LogKey) -> Result<(), LogError> {
        todo!()
    }
}
