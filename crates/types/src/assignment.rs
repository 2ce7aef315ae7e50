//! What a manager tells an agent to do, and what an agent reports back.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::network::{Guest, Network};
use crate::port::Protocol;
use crate::tunnel::{Tunnel, TunnelPeer};
use crate::{ContainerId, NetworkId, NodeId, ServiceId, Task, TaskId, TaskStatus};

/// A change to what a node is responsible for. Applying changes in order to an empty node gives its duties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assignment {
    /// Everything at once: whatever is not named is no longer this node's.
    Complete(Vec<Duty>),
    /// The difference to the last one.
    Incremental {
        /// New or changed.
        update: Vec<Duty>,
        /// No longer this node's.
        remove: Vec<DutyId>,
    },
}

/// One thing that a node is responsible for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duty {
    /// Run a task, or end it: see [`Task::desired`].
    Task(Box<Task>),
    /// Know a network that a task or guest here is on, or every node.
    Network(Network),
    /// Serve a published port or virtual address.
    Endpoint(Endpoint),
    /// Take part in a network that spans machines.
    Overlay(Overlay),
    /// Know where an address of a network that this node has is.
    Peer(Peer),
    /// Answer for a service's names on a network that this node has.
    Record(ServiceRecord),
    /// Answer for the names of a guest of a network that this node has, wherever the guest is.
    Guest(Guest),
    /// Take part in encrypted networks.
    Tunnel(Tunnel),
    /// Know another node that may.
    TunnelPeer(TunnelPeer),
}

impl Duty {
    /// What it is named by.
    pub fn id(&self) -> DutyId {
        match self {
            Duty::Task(task) => DutyId::Task(task.id),
            Duty::Network(network) => DutyId::Network(network.id),
            Duty::Endpoint(endpoint) => DutyId::Endpoint(endpoint.service),
            Duty::Overlay(overlay) => DutyId::Overlay(overlay.network),
            Duty::Peer(peer) => DutyId::Peer(peer.network, peer.address),
            Duty::Record(record) => DutyId::Record(record.service, record.network),
            Duty::Guest(guest) => DutyId::Guest(guest.container, guest.network),
            Duty::Tunnel(_) => DutyId::Tunnel,
            Duty::TunnelPeer(peer) => DutyId::TunnelPeer(peer.host),
        }
    }
}

/// Names a [`Duty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DutyId {
    /// A task.
    Task(TaskId),
    /// A network.
    Network(NetworkId),
    /// The endpoint of a service.
    Endpoint(ServiceId),
    /// A node's own place on a network.
    Overlay(NetworkId),
    /// An address of a network.
    Peer(NetworkId, Ipv4Addr),
    /// The names of a service on a network.
    Record(ServiceId, NetworkId),
    /// The names of a guest on a network.
    Guest(ContainerId, NetworkId),
    /// A node's own part in encrypted networks.
    Tunnel,
    /// Another node's, by its data path address.
    TunnelPeer(IpAddr),
}

impl DutyId {
    /// Whether clients find tasks by it. A change of it is acknowledged once it is in force.
    pub fn is_table(&self) -> bool {
        match self {
            DutyId::Endpoint(_) | DutyId::Record(..) => true,
            DutyId::Task(_)
            | DutyId::Network(_)
            | DutyId::Overlay(_)
            | DutyId::Peer(..)
            | DutyId::Guest(..)
            | DutyId::Tunnel
            | DutyId::TunnelPeer(_) => false,
        }
    }
}

impl Assignment {
    /// Whether it may change what clients find tasks by, so that it is acknowledged.
    pub fn changes_tables(&self) -> bool {
        match self {
            Assignment::Complete(_) => true,
            Assignment::Incremental { update, remove } => {
                update.iter().any(|duty| duty.id().is_table()) || remove.iter().any(DutyId::is_table)
            }
        }
    }
}

/// A node's own place on a network that spans machines: what it must know besides the [`Network`] and its [`Peer`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The network.
    pub network: NetworkId,
    /// The node's own address on it; nodes have one on the ingress network only.
    pub address: Option<Ipv4Addr>,
    /// The node's own data path address, that its peers send to.
    pub host: IpAddr,
    /// The UDP port that every node of the cluster takes packets at.
    pub port: u16,
}

/// Where an address of a network is: another node, that carries packets to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The network.
    pub network: NetworkId,
    /// The address on it: a task's, a guest's or a node's own.
    pub address: Ipv4Addr,
    /// The data path address of the node that it is on.
    pub host: IpAddr,
}

/// What a service is called on a network, and what that leads to: the one truth that names and virtual addresses serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The service.
    pub service: ServiceId,
    /// The network.
    pub network: NetworkId,
    /// The service's name.
    pub name: String,
    /// What else it is called there.
    pub aliases: Vec<String>,
    /// What its names lead to; `None` where they lead to the tasks.
    pub virtual_ip: Option<Ipv4Addr>,
    /// The tasks that run, are healthy and are to go on running, by slot.
    pub tasks: Vec<TaskAddress>,
}

/// Where a task is on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskAddress {
    /// Which instance of the service.
    pub slot: u64,
    /// The node that the task is told by instead: see [`Task::told_by_node`].
    #[serde(default)]
    pub node: Option<NodeId>,
    /// The task.
    pub task: TaskId,
    /// Its address.
    pub address: Ipv4Addr,
}

/// How a service is reached: the one truth that name service, virtual addresses and the routing mesh serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// Ports published on every node, numbers filled in.
    pub ports: Vec<EndpointPort>,
    /// Addresses on the ingress network of the tasks that run and are healthy, in order.
    pub backends: Vec<Ipv4Addr>,
}

/// A published port of an [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Transport.
    pub protocol: Protocol,
    /// Port on the node.
    pub published_port: u16,
    /// Port inside the tasks.
    pub target_port: u16,
    /// The address of the nodes that it answers on; `None` is every one.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// An agent's report on one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The task.
    pub task: TaskId,
    /// What the agent observes.
    pub status: TaskStatus,
}

/// What a running task used of late, as its agent measures it. Never replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskUsage {
    /// The task.
    pub task: TaskId,
    /// Processor time in a second, in thousand-millionths of a core.
    pub nano_cpus: u64,
    /// New connections that it accepted, in thousandths a second; `None` where that cannot be told.
    pub milli_connections: Option<u64>,
}
