//! What callers hand to and get from a [`crate::Swarm`].

use std::path::PathBuf;

use skep_types::ip::Subnet;
use skep_types::node::{Availability, NodeDescription};
use skep_types::swarm::{ClusterObject, ClusterSpec};
use skep_types::{NodeId, Version};

/// Where a swarm keeps its state, and what its node tells of itself.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// `<data-root>/swarm`.
    pub dir: PathBuf,
    /// The daemon's `--swarm-default-advertise-addr`: an address or an interface; empty for none.
    pub default_advertise_addr: String,
    /// What this node tells of itself.
    pub description: NodeDescription,
}

/// `docker swarm init`. The texts are as the user typed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitRequest {
    /// `address[:port]` or `interface[:port]` to listen on; Docker's client sends `0.0.0.0:2377`.
    pub listen_addr: String,
    /// `address[:port]` or `interface[:port]` told to other nodes; empty asks for detection.
    pub advertise_addr: String,
    /// Address or interface of the overlay networks' traffic; empty is the advertised address.
    pub data_path_addr: String,
    /// UDP port of the overlay networks' traffic, 1024 to 49151; 0 is 4789.
    pub data_path_port: u32,
    /// Pools that networks' subnets are cut from; empty is 10.0.0.0/8.
    pub default_addr_pool: Vec<Subnet>,
    /// Prefix length of those subnets; 0 is 24.
    pub subnet_size: u32,
    /// Whether this node takes tasks.
    pub availability: Availability,
    /// Start a cluster of this one manager from its state: services stay, other managers lose their seats.
    pub force_new_cluster: bool,
    /// The cluster's settings.
    pub spec: ClusterSpec,
}

/// `docker swarm join`. The texts are as the user typed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// `address[:port]` or `interface[:port]` that this node listens on once it is a manager.
    pub listen_addr: String,
    /// `address[:port]` or `interface[:port]` told to other nodes; empty is the one that reaches the manager.
    pub advertise_addr: String,
    /// Address or interface of the overlay networks' traffic; empty is the advertised address.
    pub data_path_addr: String,
    /// Managers, `address[:port]`.
    pub remote_addrs: Vec<String>,
    /// The token. It decides the role.
    pub join_token: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// `docker swarm update`, `docker swarm join-token --rotate`, `docker swarm unlock-key --rotate` and
/// `docker swarm ca --rotate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterUpdate {
    /// The version that the change was made from.
    pub version: Version,
    /// The whole new settings.
    pub spec: ClusterSpec,
    /// Replace the workers' join token.
    pub rotate_worker_token: bool,
    /// Replace the managers' join token.
    pub rotate_manager_token: bool,
    /// Replace the key that unlocks managers.
    pub rotate_unlock_key: bool,
    /// The root that is to take the place of today's.
    pub signing: SigningRoot,
}

/// A root that the user brings along. Empty where the cluster makes its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningRoot {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PEM; empty where authorities outside the cluster sign.
    pub key: String,
}

/// Whether a node is in a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalState {
    /// In none.
    Inactive,
    /// On its way in.
    Pending,
    /// In one.
    Active,
    /// In one that cannot be used; see [`SwarmInfo::error`].
    Error,
    /// In one whose keys wait for `docker swarm unlock`.
    Locked,
}

impl LocalState {
    /// The state's name at the API.
    pub fn name(self) -> &'static str {
        match self {
            LocalState::Inactive => "inactive",
            LocalState::Pending => "pending",
            LocalState::Active => "active",
            LocalState::Error => "error",
            LocalState::Locked => "locked",
        }
    }
}

/// The `Swarm` part of `docker info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmInfo {
    /// Whether this node is in a swarm.
    pub state: LocalState,
    /// This node, once it is in one.
    pub node_id: Option<NodeId>,
    /// The address that this node is reached at; empty outside a swarm.
    pub node_addr: String,
    /// Whether this node is a manager that answers.
    pub control_available: bool,
    /// What is wrong; empty when nothing is.
    pub error: String,
    /// Managers by id and `address:port`.
    pub remote_managers: Vec<(NodeId, String)>,
    /// Nodes in the cluster; 0 where this node is no manager.
    pub nodes: usize,
    /// Managers in the cluster; 0 where this node is no manager.
    pub managers: usize,
    /// The cluster, where this node is a manager.
    pub cluster: Option<ClusterObject>,
}
