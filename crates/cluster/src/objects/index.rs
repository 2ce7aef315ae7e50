//! What follows from the objects, kept beside them so that no decision has to search.
//!
//! Each index is a pure function of the objects: [`super::Objects::rebuilt_index`] computes all of them
//! anew, and `check` compares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_types::generic::GenericUse;
use skep_types::network::Guest;
use skep_types::node::{Availability, Node, NodeRole, NodeState};
use skep_types::port::Protocol;
use skep_types::service::Service;
use skep_types::task::Attachment;
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, Version};

use super::Numbers;
use crate::autoscale::is_autoscaled;

/// Who holds an address of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A task that has not ended.
    Task(TaskId),
    /// A service, as its virtual address.
    Service(ServiceId),
    /// A node, as its own on the ingress network.
    Node(NodeId),
    /// A container that is no task.
    Guest(ContainerId),
}

/// What a node carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Reserved thousand-millionths of a CPU of all tasks that have not ended.
    pub nano_cpus: i64,
    /// Reserved bytes of all tasks that have not ended.
    pub memory_bytes: i64,
    /// Tasks that are wanted and have not ended.
    pub tasks: u64,
}

/// Slots of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Slots that count as one of the service's replicas: not on their way out.
    pub occupied: Numbers,
    /// Occupied slots whose task is of an older specification; those that do not run come first.
    pub outdated: BTreeSet<(Up, u64)>,
    /// Occupied slots of a job in which nothing runs any more in this iteration.
    pub finished: Numbers,
}

/// What a slot counts as, besides being occupied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has what it is to have.
    Current,
    /// Its task is of an older specification.
    Outdated(Up),
    /// Its task of this iteration of a job completed, or failed and is not tried again.
    Finished,
}

/// Whether a slot's task runs, in the order in which an update takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Up {
    /// Replacing it costs nothing.
    No,
    /// It serves.
    Yes,
}

/// Tasks that could run in each other's place, for the scheduler.
pub(crate) type Group = (ServiceId, Version);

/// All indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Nodes that have a name, by it. What names are unique is the requests' business.
    pub node_names: BTreeSet<(String, NodeId)>,
    /// Nodes that are managers, or have a seat among them still.
    pub managers: BTreeSet<NodeId>,
    /// Nodes by the number of their slot in services that have one for each.
    pub node_of_slot: BTreeMap<u64, NodeId>,
    /// Services with a slot for each node.
    pub global_services: BTreeSet<ServiceId>,
    /// Services whose load decides how many replicas they have.
    pub autoscaled: BTreeSet<ServiceId>,
    /// Nodes without an address on the ingress network.
    pub unaddressed: BTreeSet<NodeId>,
    pub service_names: BTreeMap<String, ServiceId>,
    pub network_names: BTreeMap<String, NetworkId>,
    /// Ports of the mesh.
    pub ports: BTreeMap<(Protocol, u16), ServiceId>,
    /// Ports that tasks publish on their own nodes.
    pub host_ports: BTreeMap<(Protocol, u16), BTreeSet<ServiceId>>,
    /// The services whose specification names a network.
    pub services_on: BTreeMap<NetworkId, BTreeSet<ServiceId>>,
    pub guests_on: BTreeMap<NetworkId, BTreeSet<ContainerId>>,
    pub guests_of_node: BTreeMap<NodeId, BTreeSet<(ContainerId, NetworkId)>>,
    /// Ports that tasks that have not ended publish on their nodes.
    pub ports_of_node: BTreeMap<NodeId, BTreeMap<(Protocol, u16), u64>>,
    /// How many tasks that have not ended and guests each node has on a network.
    pub presence: BTreeMap<NetworkId, BTreeMap<NodeId, u64>>,
    pub ingress: Option<NetworkId>,
    /// The tasks of each slot, the oldest first.
    pub tasks_of_slot: BTreeMap<(ServiceId, u64), Vec<TaskId>>,
    pub slots: BTreeMap<ServiceId, Slots>,
    pub tasks_of_node: BTreeMap<NodeId, BTreeSet<TaskId>>,
    pub loads: BTreeMap<NodeId, Load>,
    /// What tasks that have not ended hold of each node's generic resources.
    pub generic: BTreeMap<NodeId, GenericUse>,
    /// How many tasks of a service each node carries that are wanted and have not ended. By service first, so that
    /// the scheduler reads it beside the nodes and the loads, all three in the order of the nodes' ids.
    pub spread: BTreeMap<ServiceId, BTreeMap<NodeId, u64>>,
    pub addresses: BTreeMap<(NetworkId, Ipv4Addr), Holder>,
    /// Running tasks that serve, with their address on each of their networks.
    pub backends: BTreeMap<(ServiceId, NetworkId), BTreeMap<(u64, TaskId), Ipv4Addr>>,
    /// Tasks that wait for addresses.
    pub unallocated: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    /// Tasks that wait for a node.
    pub unassigned: BTreeMap<Group, BTreeSet<TaskId>>,
}

/// Whether the managers still want the task to run, or to have run to completion.
pub(crate) fn is_wanted(task: &Task) -> bool {
    task.desired <= TaskState::Complete
}

/// Whether the task has not ended as far as anyone knows.
pub(crate) fn is_live(task: &Task) -> bool {
    !task.status.state.is_terminal()
}

/// Whether clients are sent to the task: while it runs and is meant to.
pub(crate) fn serves(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.desired == task.goal()
}

/// Whether a node takes a new task of a service that has one for each. One that is paused keeps what it has; one that
/// was not heard of waits, as in SwarmKit, where only jobs do so: nothing could run there before.
pub(crate) fn takes_tasks(service: &Service, node: &Node) -> bool {
    node.state == NodeState::Ready
        && node.spec.availability == Availability::Active
        && service.spec.task.placement.allows(node)
}

/// The task that a slot stands for: the wanted one, or the last one when none is wanted any more (it
/// ended and the policy says to leave it). `None` when the slot is on its way out.
pub(crate) fn representative<'a>(
    tasks: impl DoubleEndedIterator<Item = &'a Task> + Clone,
) -> Option<&'a Task> {
    let staying = || tasks.clone().rev().filter(|task| task.desired < TaskState::Remove);
    staying().find(|task| is_wanted(task)).or_else(|| staying().next())
}

/// Whether a task comes onto a node or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    On,
    Off,
}

impl Way {
    fn sign(self) -> i64 {
        match self {
            Way::On => 1,
            Way::Off => -1,
        }
    }
}

/// Whether a task counts where tasks are spread.
pub(super) fn counts(task: &Task) -> bool {
    is_live(task) && is_wanted(task)
}

impl Load {
    fn change(&mut self, task: &Task, way: Way) {
        if !is_live(task) {
            return;
        }
        let sign = way.sign();
        self.nano_cpus += sign * task.spec.reservations.nano_cpus;
        self.memory_bytes += sign * task.spec.reservations.memory_bytes;
        if !counts(task) {
            return;
        }
        self.tasks = self.tasks.strict_add_signed(sign);
    }
}

impl Index {
    /// Enters what a task alone contributes. Its slot's order and flags are separate.
    pub fn add_task(&mut self, task: &Task) {
        if let Some(node) = task.node {
            self.tasks_of_node.entry(node).or_default().insert(task.id);
            self.load(node, task, Way::On);
        }
        if !is_live(task) {
            return;
        }
        for attachment in &task.attachments {
            self.addresses.insert((attachment.network, attachment.address), Holder::Task(task.id));
        }
        if serves(task) {
            for Attachment { network, address } in &task.attachments {
                let backends = self.backends.entry((task.service, *network)).or_default();
                backends.insert((task.slot, task.id), *address);
            }
        }
        self.change_presence(task, Way::On);
        if !is_wanted(task) || task.node.is_some() {
            return;
        }
        match task.status.state {
            TaskState::New => {
                self.unallocated.entry(task.service).or_default().insert(task.id);
            }
            _ => {
                self.unassigned.entry((task.service, task.spec_version)).or_default().insert(task.id);
            }
        }
    }

    /// Takes out what [`Index::add_task`] entered for a task in this same condition.
    pub fn remove_task(&mut self, task: &Task) {
        if let Some(node) = task.node {
            remove_from(&mut self.tasks_of_node, &node, |tasks| {
                tasks.remove(&task.id);
                tasks.is_empty()
            });
            self.load(node, task, Way::Off);
        }
        for attachment in &task.attachments {
            let key = (attachment.network, attachment.address);
            if self.addresses.get(&key) == Some(&Holder::Task(task.id)) {
                self.addresses.remove(&key);
            }
        }
        if serves(task) {
            for attachment in &task.attachments {
                remove_from(&mut self.backends, &(task.service, attachment.network), |backends| {
                    backends.remove(&(task.slot, task.id));
                    backends.is_empty()
                });
            }
        }
        self.change_presence(task, Way::Off);
        remove_from(&mut self.unallocated, &task.service, |tasks| {
            tasks.remove(&task.id);
            tasks.is_empty()
        });
        remove_from(&mut self.unassigned, &(task.service, task.spec_version), |tasks| {
            tasks.remove(&task.id);
            tasks.is_empty()
        });
    }

    /// A node that carries nothing has no entry.
    fn load(&mut self, node: NodeId, task: &Task, way: Way) {
        let load = self.loads.entry(node).or_default();
        load.change(task, way);
        if *load == Load::default() {
            self.loads.remove(&node);
        }
        if is_live(task) && !task.generic.is_empty() {
            let held = self.generic.entry(node).or_default();
            match way {
                Way::On => held.add(&task.generic),
                Way::Off => held.remove(&task.generic),
            }
            if held.is_empty() {
                self.generic.remove(&node);
            }
        }
        if !counts(task) {
            return;
        }
        let nodes = self.spread.entry(task.service).or_default();
        let count = nodes.entry(node).or_default();
        *count = count.strict_add_signed(way.sign());
        if *count == 0 {
            nodes.remove(&node);
        }
        if nodes.is_empty() {
            self.spread.remove(&task.service);
        }
    }

    fn change_presence(&mut self, task: &Task, way: Way) {
        let Some(node) = task.node.filter(|_| is_live(task)) else { return };
        for attachment in &task.attachments {
            self.count(attachment.network, node, way);
        }
        for port in task.host_ports.iter().filter(|port| port.published_port != 0) {
            let ports = self.ports_of_node.entry(node).or_default();
            let count = ports.entry((port.protocol, port.published_port)).or_default();
            *count = count.strict_add_signed(way.sign());
            if *count == 0 {
                ports.remove(&(port.protocol, port.published_port));
            }
            if ports.is_empty() {
                self.ports_of_node.remove(&node);
            }
        }
    }

    /// A node that has nothing on a network has no entry.
    fn count(&mut self, network: NetworkId, node: NodeId, way: Way) {
        let nodes = self.presence.entry(network).or_default();
        let count = nodes.entry(node).or_default();
        *count = count.strict_add_signed(way.sign());
        if *count == 0 {
            nodes.remove(&node);
        }
        if nodes.is_empty() {
            self.presence.remove(&network);
        }
    }

    /// Enters a guest.
    pub fn add_guest(&mut self, guest: &Guest) {
        let (container, network) = (guest.container, guest.network);
        self.guests_on.entry(network).or_default().insert(container);
        self.guests_of_node.entry(guest.node).or_default().insert((container, network));
        self.addresses.insert((network, guest.address), Holder::Guest(container));
        self.count(network, guest.node, Way::On);
    }

    /// Takes out what [`Index::add_guest`] entered.
    pub fn remove_guest(&mut self, guest: &Guest) {
        let (container, network) = (guest.container, guest.network);
        remove_from(&mut self.guests_on, &network, |guests| {
            guests.remove(&container);
            guests.is_empty()
        });
        remove_from(&mut self.guests_of_node, &guest.node, |guests| {
            guests.remove(&(container, network));
            guests.is_empty()
        });
        self.addresses.remove(&(network, guest.address));
        self.count(network, guest.node, Way::Off);
    }

    /// Enters what a node alone contributes.
    pub fn add_node(&mut self, node: &Node) {
        if !node.spec.name.is_empty() {
            self.node_names.insert((node.spec.name.clone(), node.id));
        }
        self.node_of_slot.insert(node.id.slot(), node.id);
        if node.spec.role == NodeRole::Manager || node.manager.is_some() {
            self.managers.insert(node.id);
        }
        match (self.ingress, node.ingress_address) {
            (Some(network), Some(address)) => {
                self.addresses.insert((network, address), Holder::Node(node.id));
            }
            _ => {
                self.unaddressed.insert(node.id);
            }
        }
    }

    /// Takes out what [`Index::add_node`] entered.
    pub fn remove_node(&mut self, node: &Node) {
        self.node_names.remove(&(node.spec.name.clone(), node.id));
        if self.node_of_slot.get(&node.id.slot()) == Some(&node.id) {
            self.node_of_slot.remove(&node.id.slot());
        }
        self.managers.remove(&node.id);
        self.unaddressed.remove(&node.id);
        if let Some(key) = self.ingress.zip(node.ingress_address)
            && self.addresses.get(&key) == Some(&Holder::Node(node.id))
        {
            self.addresses.remove(&key);
        }
    }

    /// Enters a service's name, ports and virtual addresses.
    pub fn add_service(&mut self, service: &Service) {
        self.service_names.insert(service.spec.name.clone(), service.id);
        if service.spec.mode.is_global() {
            self.global_services.insert(service.id);
        }
        if is_autoscaled(&service.spec.labels) {
            self.autoscaled.insert(service.id);
        }
        for port in service.ingress_ports() {
            self.ports.insert((port.protocol, port.published_port), service.id);
        }
        for port in service.host_ports().filter(|port| port.published_port != 0) {
            self.host_ports.entry((port.protocol, port.published_port)).or_default().insert(service.id);
        }
        for on in &service.spec.task.networks {
            self.services_on.entry(on.network).or_default().insert(service.id);
        }
        for address in &service.virtual_ips {
            self.addresses.insert((address.network, address.address), Holder::Service(service.id));
        }
    }

    /// Takes out what [`Index::add_service`] entered.
    pub fn remove_service(&mut self, service: &Service) {
        self.service_names.remove(&service.spec.name);
        self.global_services.remove(&service.id);
        self.autoscaled.remove(&service.id);
        for port in service.ingress_ports() {
            self.ports.remove(&(port.protocol, port.published_port));
        }
        for port in service.host_ports() {
            remove_from(&mut self.host_ports, &(port.protocol, port.published_port), |services| {
                services.remove(&service.id);
                services.is_empty()
            });
        }
        for on in &service.spec.task.networks {
            remove_from(&mut self.services_on, &on.network, |services| {
                services.remove(&service.id);
                services.is_empty()
            });
        }
        for address in &service.virtual_ips {
            self.addresses.remove(&(address.network, address.address));
        }
    }

    /// Sets what a slot counts as; `None` takes it out.
    pub fn set_slot(&mut self, service: ServiceId, slot: u64, standing: Option<Standing>) {
        let slots = self.slots.entry(service).or_default();
        slots.outdated.remove(&(Up::No, slot));
        slots.outdated.remove(&(Up::Yes, slot));
        slots.finished.remove(slot);
        match standing {
            Some(_) => slots.occupied.insert(slot),
            None => slots.occupied.remove(slot),
        }
        match standing {
            Some(Standing::Outdated(up)) => {
                slots.outdated.insert((up, slot));
            }
            Some(Standing::Finished) => slots.finished.insert(slot),
            Some(Standing::Current) | None => {}
        }
        if slots.occupied.is_empty() {
            self.slots.remove(&service);
        }
    }
}

/// Changes an entry and drops it when the change says that it is empty.
fn remove_from<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K, change: impl FnOnce(&mut V) -> bool) {
    if let Some(value) = map.get_mut(key)
        && change(value)
    {
        map.remove(key);
    }
}
