//! What an entry of the log changed: what the leader has to look at again, and whom it has to tell.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::tunnel::TunnelPeer;
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, TaskId};

use super::peers::{AddressKey, Place};
use super::presence::Held;

/// The trace of applied changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// The cluster's settings changed.
    pub cluster: bool,
    /// Networks that came or went.
    pub networks: BTreeSet<NetworkId>,
    /// Nodes that came, changed or went.
    pub nodes: BTreeSet<NodeId>,
    /// Services that came, changed or went.
    pub services: BTreeSet<ServiceId>,
    /// Slots whose tasks changed in any way.
    pub slots: BTreeSet<(ServiceId, u64)>,
    /// Tasks whose duty changed: their node or what is wanted of them.
    pub duties: BTreeSet<TaskId>,
    /// Tasks that were forgotten, with the node that had them.
    pub forgotten: Vec<(NodeId, TaskId)>,
    /// Services whose endpoint may have changed.
    pub endpoints: BTreeSet<ServiceId>,
    /// Tasks that clients were sent to and are not any more, because they are to end.
    pub left: BTreeSet<TaskId>,
    /// Addresses that may be elsewhere now, with where they were before.
    pub places: BTreeMap<AddressKey, Option<Place>>,
    /// What nodes may have of networks now, with what they had before.
    pub held: BTreeMap<(NodeId, NetworkId), Held>,
    /// Nodes that others may know differently in encrypted networks, with what they knew before.
    pub tunnels: BTreeMap<NodeId, Option<TunnelPeer>>,
    /// Services' names on networks that may have changed, or what they lead to.
    pub records: BTreeSet<(ServiceId, NetworkId)>,
    /// Guests that came, changed or went.
    pub guests: BTreeSet<(ContainerId, NetworkId)>,
    /// Somebody stopped using a node or addresses, or began to wait for some.
    pub capacity: bool,
}
