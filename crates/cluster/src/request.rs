//! What users ask of the cluster, and what they are answered.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use skep_types::network::{NetworkSpec, Stay};
use skep_types::node::{Member, Node, NodeSpec};
use skep_types::service::ServiceSpec;
use skep_types::swarm::{Authority, ClusterObject, ClusterSpec, Secret};
use skep_types::tunnel::NetworkKey;
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, Version};

/// Names one request of one leader's life, chosen by whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something a user wants changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Found the cluster, with its first manager and its ingress network.
    CreateCluster {
        /// The cluster; `meta` is filled in.
        cluster: Box<ClusterObject>,
        /// The first manager; `meta` is filled in.
        node: Box<Node>,
    },
    /// Change the cluster's settings, its secrets or its authority, all at once. The leader itself asks for this
    /// with unchanged settings when it moves the rotation of the root on.
    UpdateCluster {
        /// The version that the change was made from.
        version: Version,
        /// The new settings.
        spec: Box<ClusterSpec>,
        /// A new token for workers; `None` keeps the old.
        worker_token: Option<String>,
        /// A new token for managers; `None` keeps the old.
        manager_token: Option<String>,
        /// A new key that unlocks managers; `None` keeps the old. Whatever is given, there is none while the
        /// settings say that managers are not locked.
        unlock_key: Option<Secret>,
        /// The authority as it is from now on; `None` keeps it.
        authority: Option<Box<Authority>>,
    },
    /// Let a node in. Its token or certificate was checked by the caller. One that is in already keeps what is
    /// wanted of it: joining may be repeated.
    AddNode(Box<Node>),
    /// Change what is wanted of a node.
    UpdateNode {
        /// Which.
        id: NodeId,
        /// The version that the change was made from.
        version: Version,
        /// What is wanted now.
        spec: Box<NodeSpec>,
    },
    /// Record that a manager took a seat in the managers' consensus (after it was added there), moved it to
    /// another address, or gave it up (`None`, after it was removed there). Repeating it changes nothing.
    ///
    /// Refused for a node that is no manager, and for one that still has another seat.
    SetSeat {
        /// Which node.
        node: NodeId,
        /// Its seat from now on.
        seat: Option<Member>,
    },
    /// Forget a node.
    RemoveNode {
        /// Which.
        id: NodeId,
        /// Whether even a node that still answers.
        force: Force,
    },
    /// Create a service; answered with [`Answer::Service`].
    CreateService(Box<ServiceSpec>),
    /// Replace a service's specification.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// The version that the change was made from.
        version: Version,
        /// What is wanted now.
        spec: Box<ServiceSpec>,
    },
    /// Take a service back to the specification that it had before.
    RollBackService {
        /// Which.
        id: ServiceId,
        /// The version that this was asked of.
        version: Version,
    },
    /// Remove a service, and then its tasks.
    RemoveService(ServiceId),
    /// Add these to the secrets of encrypted networks, if that is due. The leader itself asks for this.
    RotateNetworkKeys(Vec<NetworkKey>),
    /// Create a network; answered with [`Answer::Network`].
    CreateNetwork(Box<NetworkSpec>),
    /// Remove a network that nothing uses.
    RemoveNetwork(NetworkId),
    /// Let a container that is no task onto an attachable network, or change what it is called there; answered
    /// with [`Answer::Attached`].
    Attach {
        /// The node that it is on.
        node: NodeId,
        /// The container.
        container: ContainerId,
        /// The network.
        network: NetworkId,
        /// What it is to be called there.
        names: Vec<String>,
        /// The address that it asks for; `None` takes any, or keeps the one that it has.
        address: Option<Ipv4Addr>,
    },
    /// Take such a container off a network. That it is not on it is no error.
    Detach {
        /// The node that it is on.
        node: NodeId,
        /// The container.
        container: ContainerId,
        /// The network.
        network: NetworkId,
    },
    /// Take all such containers of a node off the networks that are not named. Said when a node's session begins.
    KeepGuests {
        /// The node.
        node: NodeId,
        /// Those that are still there, and where.
        guests: BTreeMap<ContainerId, Stay>,
    },
    /// Let the tasks of a service that would be elsewhere if all were placed now be replaced there, as a rolling
    /// update does. That there is none is no error.
    Rebalance(ServiceId),
}

/// Whether the usual guards are overridden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Force {
    /// The guards hold.
    #[default]
    No,
    /// They do not.
    Yes,
}

/// What a committed request gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// The service that was created.
    Service(ServiceId),
    /// The network that was created.
    Network(NetworkId),
    /// The address that a guest has on its network.
    Attached(Ipv4Addr),
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which request.
    pub to: RequestId,
    /// Committed, or refused and without effect. After [`RefusalKind::Unavailable`] alone nobody knows.
    pub result: Result<Answer, Refusal>,
}

/// Why a request was refused, in SwarmKit's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal, for the status code.
    pub kind: RefusalKind,
    /// What is wrong, naming it.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// No such object: 404.
    NotFound,
    /// The name is taken: 409.
    Conflict,
    /// The request makes no sense: 400.
    Invalid,
    /// It was made from an old version of the object: `update out of sequence`, 500 at the API.
    OutOfSequence,
    /// It is nothing that a cluster ever does: 501.
    Unsupported,
    /// A guard forbids it for now (the last manager...): 400 at the API.
    Precondition,
    /// The log did not take it (a full disk): it had no effect, 500.
    Log,
    /// This manager does not lead, or lost the lead or its log meanwhile: 503. Whether the request took
    /// effect is unknown.
    Unavailable,
}
