//! The cluster itself: its settings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ip::Subnet;
use crate::tunnel::NetworkKey;
use crate::{ClusterId, Meta, Time};

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
    /// Whether managers' keys are locked after a restart until the unlock key is given.
    pub autolock: bool,
    /// Authorities outside the cluster that sign instead of it.
    pub external_authorities: Vec<ExternalAuthority>,
    /// Raised by the user to ask for a new root.
    pub force_rotate: u64,
}

/// An authority outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAuthority {
    /// Where it is asked, over HTTPS in cfssl's protocol.
    pub url: String,
    /// Further options, as given.
    pub options: BTreeMap<String, String>,
    /// The root that its certificates stand on, PEM; `None` is the cluster's.
    pub root: Option<String>,
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
            autolock: false,
            external_authorities: Vec::new(),
            force_rotate: 0,
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
    /// Who signs the nodes' certificates.
    pub authority: Authority,
    /// What unlocks managers, while autolock is on.
    pub unlock_key: Option<Secret>,
    /// Token that lets a worker join.
    pub worker_token: String,
    /// Token that lets a manager join.
    pub manager_token: String,
    /// The newest secrets of encrypted networks, in the order of their numbers; none before the leader made some.
    #[serde(default)]
    pub network_keys: Vec<NetworkKey>,
    /// When the last of them was made.
    #[serde(default)]
    pub network_keys_at: Time,
}

/// The cluster's certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The root certificate, PEM. Join tokens name it.
    pub certificate: String,
    /// Its key, PEM; `None` when authorities outside sign.
    pub key: Option<Secret>,
    /// The root that is taking its place.
    pub rotation: Option<Rotation>,
}

/// A root that takes the place of another, while not every node's certificate stands on it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The new root certificate, PEM.
    pub certificate: String,
    /// Its key, PEM; `None` when authorities outside sign.
    pub key: Option<Secret>,
    /// The new root's key, certified by the old root, PEM: what lets nodes that know only the old root trust
    /// those that stand on the new one.
    pub cross_signed: String,
}

/// A text that no log may show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}
