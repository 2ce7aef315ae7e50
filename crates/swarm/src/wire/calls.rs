//! The calls and their answers, free of any encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use skep_identity::Role;
use skep_types::network::Stay;
use skep_types::node::Availability;
use skep_types::{ContainerId, NetworkId, NodeId};

use crate::SwarmError;

/// A member's name in the consensus.
pub(crate) type RaftId = u64;

/// A node that called, as its verified certificate names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where the call came from.
    pub(crate) address: SocketAddr,
    pub(crate) node: NodeId,
    /// What its certificate allows it. Calls that only managers may make are refused to others before they get
    /// to [`super::Answers`].
    pub(crate) role: Role,
}

/// Why a call gave no answer. Carried whole to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum CallError {
    /// Only the leader answers this. Had no effect.
    #[error("this node does not lead the cluster")]
    NotLeader {
        /// `address:port` of the leader, where it is known.
        leader: Option<String>,
    },
    /// The caller showed no certificate, or not one of this cluster. Had no effect.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may not ask this: its role, or it is no node of the cluster (any more). Had no effect.
    #[error("{0}")]
    Denied(String),
    /// The request was refused, in the words meant for the user.
    #[error(transparent)]
    Refused(SwarmError),
    /// The caller and the answerer speak no common version. Had no effect.
    #[error("{0}")]
    Version(String),
    /// Nobody there: the call certainly was not sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke or the time ran out after the call was sent: whether it had an effect is unknown.
    #[error("{0}")]
    Lost(String),
}

/// A machine asks to become a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinCall {
    /// The join token as text. It decides the role.
    pub(crate) token: String,
    /// The certificate request, PEM.
    pub(crate) csr: String,
    /// Whether the node takes tasks from the start.
    pub(crate) availability: Availability,
}

/// It is a node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinAnswer {
    pub(crate) node: NodeId,
    /// Its certificate and what lies between it and the root, PEM.
    pub(crate) chain: String,
    /// The roots that the cluster trusts now, PEM.
    pub(crate) roots: String,
}

/// A node asks for a new certificate. Its role is the one that the cluster wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenewCall {
    /// The certificate request, PEM.
    pub(crate) csr: String,
}

/// The new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenewAnswer {
    /// The certificate and what lies between it and the root, PEM.
    pub(crate) chain: String,
    /// The roots that the cluster trusts now, PEM.
    pub(crate) roots: String,
}

/// A manager asks for a seat in the consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeatCall {
    pub(crate) raft: RaftId,
    /// `address:port` that other managers reach it at.
    pub(crate) address: String,
}

/// A node asks about containers of its own that are no tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GuestCall {
    /// Let one onto an attachable network.
    Attach {
        container: ContainerId,
        /// The network's id or name.
        network: String,
        names: Vec<String>,
        address: Option<Ipv4Addr>,
    },
    /// Take one off.
    Detach { container: ContainerId, network: NetworkId },
    /// Take all others off, and these off all other networks.
    Keep(BTreeMap<ContainerId, Stay>),
}

/// What that gave: the network and the address, for one that was let in.
pub(crate) type GuestAnswer = Option<(NetworkId, Ipv4Addr)>;

/// A point in the log, confirmed by a quorum, that holds all that was answered before it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    pub(crate) index: u64,
    pub(crate) leader: RaftId,
    /// The members that the leader reaches.
    pub(crate) reachable: BTreeSet<RaftId>,
}
