//! Cluster-wide networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ip::Subnet;
use crate::{Meta, NetworkId};

/// Name of the network that carries the routing mesh.
pub const INGRESS: &str = "ingress";

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
}
