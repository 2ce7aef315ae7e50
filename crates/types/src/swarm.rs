//! The cluster itself: its settings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ip::Subnet;
use crate::{ClusterId, Meta};

/// Port that managers listen on.
pub const CLUSTER_PORT: u16 = 2377;
/// UDP port of the overlay networks' VXLAN.
pub const DATA_PATH_PORT: u16 = 4789;

/// Settings of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Always `default`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ended tasks kept for each slot.
    pub task_history_limit: u64,
    /// Time between heartbeats of a node.
    pub heartbeat: Duration,
    /// Life of a node's certificate.
    pub cert_expiry: Duration,
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        ClusterSpec {
            name: "default".to_owned(),
            labels: BTreeMap::new(),
            task_history_limit: 5,
            heartbeat: Duration::from_secs(1),
            cert_expiry: Duration::from_secs(90 * 24 * 3600),
            snapshot_interval: 10_000,
        }
    }
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterObject {
    /// Its id.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// Its settings.
    pub spec: ClusterSpec,
    /// Pools that networks' subnets are cut from.
    pub address_pools: Vec<Subnet>,
    /// Prefix length of those subnets.
    pub subnet_prefix: u8,
    /// UDP port of the overlay networks.
    pub data_path_port: u16,
    /// The root certificate in PEM.
    pub root_ca: String,
    /// Token that lets a worker join.
    pub worker_token: String,
    /// Token that lets a manager join.
    pub manager_token: String,
}
