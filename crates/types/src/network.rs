//! Cluster-wide networks, and the containers that are guests on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::ip::{Subnet, Subnet6};
use crate::{ContainerId, Meta, NetworkId, NodeId};

/// Name of the network that carries the routing mesh.
pub const INGRESS: &str = "ingress";

/// The driver's option that asks for a VXLAN network identifier.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// A cluster-wide network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Version and times.
    pub meta: Meta,
    /// Unique name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub subnet: Subnet,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Whether it carries the routing mesh.
    pub ingress: bool,
    /// The gateway as asked for; see [`Network::gateway`].
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are given from; `None` is all of it.
    #[serde(default)]
    pub range: Option<Subnet>,
    /// Where its IPv6 addresses are; `None` has none.
    #[serde(default)]
    pub subnet6: Option<Subnet6>,
    /// Whether containers that are no tasks may join it.
    #[serde(default)]
    pub attachable: bool,
    /// Whether it leads nowhere else.
    #[serde(default)]
    pub internal: bool,
    /// Whether its packets between machines are encrypted.
    #[serde(default)]
    pub encrypted: bool,
    /// Bytes of the largest packet on it; `None` follows the machines.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The driver's options as given, for inspect.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The configuration that it was made from, for inspect.
    #[serde(default)]
    pub config_from: Option<String>,
}

impl Network {
    /// A network with these and nothing else asked for.
    pub fn new(id: NetworkId, name: &str, subnet: Subnet, vni: u32) -> Network {
        Network {
            id,
            meta: Meta::default(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            subnet,
            vni,
            ingress: false,
            gateway: None,
            range: None,
            subnet6: None,
            attachable: false,
            internal: false,
            encrypted: false,
            mtu: None,
            options: BTreeMap::new(),
            config_from: None,
        }
    }

    /// The address that leads out of the network: the one asked for, or the subnet's first.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway.or(self.subnet.nth(1)).unwrap_or(self.subnet.network())
    }

    /// The IPv6 address that goes with an IPv4 address of the network: the prefix of `subnet6` with it as the low 32
    /// bits. What has a unique address has a unique one there too, without a second allocation.
    pub fn address6(&self, of: Ipv4Addr) -> Option<Ipv6Addr> {
        self.subnet6?.with_low_bits(of)
    }
}

/// What a user asks of a cluster-wide network. What a `config-only` network says was filled in by who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses; `None` asks for a free subnet of the cluster's pools.
    pub subnet: Option<Subnet>,
    /// The address that leads out of it; `None` is the subnet's first.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are given from.
    pub range: Option<Subnet>,
    /// Where its IPv6 addresses are: a prefix of at most 96 bits.
    pub subnet6: Option<Subnet6>,
    /// VXLAN network identifier; `None` asks for a free one.
    pub vni: Option<u32>,
    /// Whether it carries the routing mesh.
    pub ingress: bool,
    /// Whether containers that are no tasks may join it.
    pub attachable: bool,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether its packets between machines are encrypted.
    pub encrypted: bool,
    /// Bytes of the largest packet on it.
    pub mtu: Option<u32>,
    /// The driver's options as given, for inspect.
    pub options: BTreeMap<String, String>,
    /// The configuration that it was made from, for inspect.
    pub config_from: Option<String>,
}

/// A container that is no task, on an attachable network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The container.
    pub container: ContainerId,
    /// The node that it is on.
    pub node: NodeId,
    /// The network.
    pub network: NetworkId,
    /// Its address there.
    pub address: Ipv4Addr,
    /// What it is called there: its name, its short id, its aliases.
    pub names: Vec<String>,
}

/// What a node says of one of its guests when a session begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stay {
    /// It is about to be let onto a network: it keeps whatever it has.
    Arrives,
    /// It is on these networks and no others.
    On(BTreeSet<NetworkId>),
}

impl Stay {
    /// Whether it keeps its place on a network.
    pub fn keeps(&self, network: NetworkId) -> bool {
        match self {
            Stay::Arrives => true,
            Stay::On(networks) => networks.contains(&network),
        }
    }
}
