//! The batch of decisions that is being made: everything in it is decided from committed state, and from
//! what the batch itself decided before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_types::network::Network;
use skep_types::node::Node;
use skep_types::port::Protocol;
use skep_types::{ContainerId, Ids, NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Time};

use crate::delays::Delays;
use crate::objects::{is_live, is_wanted};
use crate::{Cause, Change, Objects, Reply};

/// Changes in one entry of the log. Bounds the size of an entry, and with it the time in which nothing
/// else is decided.
pub(crate) const MAX_CHANGES: usize = 1000;

/// There is no room left in the batch; what was being looked at has to wait for the next one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A task that will be created by this batch, once it has its addresses and perhaps a node.
#[derive(Debug)]
pub(crate) struct Draft {
    pub service: ServiceId,
    pub slot: u64,
    /// See [`Task::pinned`]; a slot's tasks all have the same.
    pub pinned: Option<NodeId>,
    pub desired: TaskState,
    pub not_before: Option<Time>,
    pub cause: Cause,
}

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub objects: &'a Objects,
    pub now: Time,
    pub ids: &'a mut Ids,
    /// The leader's, for the time being.
    pub delays: Delays,
    /// What is decided.
    pub changes: Vec<Change>,
    /// Tasks to be created at the end of the batch.
    pub drafts: Vec<Draft>,
    /// Answers to be given once the batch is committed.
    pub replies: Vec<Reply>,
    /// Nodes that this batch changes, as they will be.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Nodes that this batch forgets.
    pub removed_nodes: BTreeSet<NodeId>,
    /// Services that a request in this batch creates, changes or removes: left alone until then.
    pub requested: BTreeSet<ServiceId>,
    /// Services that this batch removes.
    pub removed: BTreeSet<ServiceId>,
    /// Names of services that this batch takes.
    pub names: BTreeSet<String>,
    /// Ports of the mesh that this batch takes.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// Ports that tasks of services of this batch publish on their own nodes.
    pub host_ports: BTreeSet<(Protocol, u16)>,
    /// Networks that this batch creates.
    pub networks: Vec<Network>,
    /// Networks that this batch removes.
    pub removed_networks: BTreeSet<NetworkId>,
    /// Networks that services or guests of this batch are on.
    pub used_networks: BTreeSet<NetworkId>,
    /// Guests that this batch changes, with their addresses, or takes away.
    pub guests: BTreeMap<(ContainerId, NetworkId), Option<Ipv4Addr>>,
    /// Addresses that this batch takes.
    pub addresses: BTreeSet<(NetworkId, Ipv4Addr)>,
    /// The last of them, by network.
    pub last_given: BTreeMap<NetworkId, Ipv4Addr>,
    /// Networks that have no address left.
    pub exhausted: BTreeSet<NetworkId>,
    /// Tasks that this batch tells to end and that counted until now where tasks are spread, each with its service
    /// and node.
    pub leaving: BTreeMap<TaskId, (ServiceId, NodeId)>,
    /// Slots that this batch decided about: each is decided about once.
    pub slots: BTreeSet<(ServiceId, u64)>,
    /// Tasks whose agents' word is in this batch: what is committed of their status is old.
    pub reported: BTreeSet<TaskId>,
    /// Nodes that have been down for so long that nobody waits for their tasks.
    pub abandoned: BTreeSet<NodeId>,
    /// Services whose tasks wait for other services.
    pub held: BTreeSet<ServiceId>,
    /// Services whose rolling update this batch ends.
    pub ended_updates: BTreeSet<ServiceId>,
}

impl<'a> Plan<'a> {
    pub fn new(objects: &'a Objects, now: Time, ids: &'a mut Ids) -> Plan<'a> {
        Plan {
            objects,
            now,
            ids,
            delays: Delays::default(),
            changes: Vec::new(),
            drafts: Vec::new(),
            replies: Vec::new(),
            nodes: BTreeMap::new(),
            removed_nodes: BTreeSet::new(),
            requested: BTreeSet::new(),
            removed: BTreeSet::new(),
            names: BTreeSet::new(),
            ports: BTreeSet::new(),
            host_ports: BTreeSet::new(),
            networks: Vec::new(),
            removed_networks: BTreeSet::new(),
            used_networks: BTreeSet::new(),
            guests: BTreeMap::new(),
            addresses: BTreeSet::new(),
            last_given: BTreeMap::new(),
            exhausted: BTreeSet::new(),
            leaving: BTreeMap::new(),
            slots: BTreeSet::new(),
            reported: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            held: BTreeSet::new(),
            ended_updates: BTreeSet::new(),
        }
    }

    /// Changes that still fit.
    pub fn room(&self) -> usize {
        MAX_CHANGES.saturating_sub(self.changes.len() + self.drafts.len() + self.nodes.len())
    }

    /// Makes sure that `changes` that belong together fit.
    pub fn reserve(&self, changes: usize) -> Result<(), Full> {
        // A batch's first decision always fits, so that none waits for ever.
        let fits = self.room() >= changes || self.room() == MAX_CHANGES;
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Wants a task in another state. One that no node has yet simply vanishes.
    pub fn end_task(&mut self, task: &Task, desired: TaskState) {
        let Some(node) = task.node else {
            self.changes.push(Change::RemoveTask(task.id));
            return;
        };
        if task.desired < desired {
            if is_live(task) && is_wanted(task) {
                self.leaving.insert(task.id, (task.service, node));
            }
            self.set_desired(task.id, desired);
        }
    }

    /// Wants a task in another state.
    pub fn set_desired(&mut self, task: TaskId, desired: TaskState) {
        self.changes.push(Change::SetDesired { task, desired, at: self.now });
    }

    /// A status given by the managers, in SwarmKit's words.
    pub fn status(&self, state: TaskState, message: &str, error: String) -> TaskStatus {
        TaskStatus { state, since: self.now, message: message.to_owned(), error, container: None }
    }
}
