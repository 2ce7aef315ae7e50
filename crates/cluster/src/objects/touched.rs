//! What an entry of the log changed: what the leader has to look at again, and whom it has to tell.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::assignment::Overlay;
use skep_types::{NodeId, ServiceId, TaskId};

use super::peers::{AddressKey, Place};

/// The trace of applied changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// The cluster's settings changed.
    pub cluster: bool,
    /// Networks came or went.
    pub networks: bool,
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
    /// Nodes whose own place on the ingress network may be another, with what it was before.
    pub overlays: BTreeMap<NodeId, Option<Overlay>>,
    /// A task stopped using its node or its addresses, or one began to wait for some.
    pub capacity: bool,
}
