//! Nodes of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::generic::GenericResources;
use crate::tunnel::TunnelKey;
use crate::{Meta, NodeId, Time};

/// What a node may do in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRole {
    /// Runs tasks.
    Worker,
    /// Runs tasks and takes part in decisions.
    Manager,
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Gives up its tasks.
    Drain,
}

/// Whether a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Not heard of since the managers changed.
    Unknown,
    /// Missed its heartbeats.
    Down,
    /// Answers.
    Ready,
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Architecture, in uname's words: `x86_64`.
    pub architecture: String,
    /// Always `linux`.
    pub os: String,
    /// CPUs in thousand-millionths, and memory in bytes.
    pub nano_cpus: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Version of the engine.
    pub engine_version: String,
    /// Labels of the daemon.
    pub engine_labels: BTreeMap<String, String>,
    /// What its certificate stands on.
    pub tls: NodeTls,
    /// What it is known by in encrypted networks, once it can take part in them.
    #[serde(default)]
    pub tunnel_key: Option<TunnelKey>,
    /// What it has that only its users understand, as its daemon was told.
    #[serde(default)]
    pub generic: GenericResources,
    /// The drivers that its engine has; an engine that names none is taken to have what every one had.
    #[serde(default)]
    pub plugins: BTreeSet<Plugin>,
}

/// A driver of a node's engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Plugin {
    /// What it is for.
    pub kind: PluginKind,
    /// Its name: `local`, `overlay`, `json-file`.
    pub name: String,
}

/// What drivers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PluginKind {
    /// Containers' logs.
    Log,
    /// Networks.
    Network,
    /// Volumes.
    Volume,
}

/// What the user wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Optional name.
    pub name: String,
    /// Labels, for placement.
    pub labels: BTreeMap<String, String>,
    /// Wanted role.
    pub role: NodeRole,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What the user wants of it.
    pub spec: NodeSpec,
    /// What it told of itself.
    pub description: NodeDescription,
    /// Whether it answers.
    pub state: NodeState,
    /// Why it does not.
    pub message: String,
    /// When it was found not to answer, by the clock of the manager that led, while it is down.
    #[serde(default)]
    pub down_since: Option<Time>,
    /// The address that it is reached at.
    pub address: IpAddr,
    /// Its seat among the managers, while it has one.
    pub manager: Option<Member>,
    /// The address that overlay networks reach it at; `None` follows `address`.
    pub data_path: Option<IpAddr>,
    /// Its own address on the ingress network, once it has been given one.
    pub ingress_address: Option<Ipv4Addr>,
}

impl Node {
    /// What the node is at present: one that is promoted is a manager at once, one that is demoted only ceases to
    /// be one when it has given up its seat, as in SwarmKit.
    pub fn role(&self) -> NodeRole {
        if self.manager.is_some() { NodeRole::Manager } else { self.spec.role }
    }
}

/// A manager's seat in the managers' consensus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name in the consensus. A node that is demoted and promoted again gets another one, because its log
    /// is another one.
    pub raft: u64,
    /// `address:port` that it is reached at.
    pub address: String,
}

/// What a node's certificate stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTls {
    /// The roots that it trusts, PEM.
    pub trust_root: String,
    /// The name of its certificate's issuer, DER.
    pub issuer_subject: Vec<u8>,
    /// The public key of its certificate's issuer, DER.
    pub issuer_public_key: Vec<u8>,
}
