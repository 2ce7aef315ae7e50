//! Which nodes have which networks, and what they are told because of it.
//!
//! A node has a network while a task that has not ended or a guest on the node is on it. The ingress network every node
//! has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_types::assignment::{Overlay, ServiceRecord, TaskAddress};
use skep_types::network::Guest;
use skep_types::tunnel::TunnelPeer;
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, Task, TaskId};

use super::index::Holder;
use super::peers::data_path;
use super::{Objects, Touched};

/// What a node had of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub has: bool,
    /// Whether that is encrypted.
    pub encrypted: bool,
    /// Its own place there, once there is one.
    pub overlay: Option<Overlay>,
}

impl Objects {
    /// Whether a node has a network.
    pub(crate) fn has_network(&self, node: NodeId, network: NetworkId) -> bool {
        let present = || self.index.presence.get(&network).is_some_and(|nodes| nodes.contains_key(&node));
        self.networks.contains_key(&network)
            && (self.index.ingress == Some(network) && self.nodes.contains_key(&node) || present())
    }

    /// The nodes with a task that has not ended or a guest on a network.
    pub(crate) fn nodes_on(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.index.presence.get(&network).into_iter().flat_map(BTreeMap::keys).copied()
    }

    /// The networks that a node has.
    pub(crate) fn networks_of(&self, node: NodeId) -> BTreeSet<NetworkId> {
        let attached = self.tasks_on(node).filter(|task| super::is_live(task));
        let attached = attached.flat_map(|task| &task.attachments).map(|attachment| attachment.network);
        let guests = self.index.guests_of_node.get(&node).into_iter().flatten().map(|(_, network)| *network);
        let ingress = self.index.ingress.filter(|_| self.nodes.contains_key(&node));
        let all = attached.chain(guests).chain(ingress);
        all.filter(|network| self.networks.contains_key(network)).collect()
    }

    /// A node's own place on a network that it has.
    pub(crate) fn overlay_of(&self, node: NodeId, network: NetworkId) -> Option<Overlay> {
        self.held(node, network).overlay
    }

    fn held(&self, node: NodeId, network: NetworkId) -> Held {
        let has = self.has_network(node, network);
        self.held_if(has, node, network)
    }

    fn held_if(&self, has: bool, node: NodeId, network: NetworkId) -> Held {
        let encrypted = self.networks.get(&network).is_some_and(|network| network.encrypted);
        Held { has, encrypted, overlay: if has { self.overlay(node, network) } else { None } }
    }

    /// What others know a node by in encrypted networks, once it said so.
    pub(crate) fn tunnel_peer(&self, node: NodeId) -> Option<TunnelPeer> {
        let node = self.nodes.get(&node)?;
        Some(TunnelPeer { host: data_path(node), key: node.description.tunnel_key? })
    }

    /// A node's own place on a network, if it has that.
    fn overlay(&self, node: NodeId, network: NetworkId) -> Option<Overlay> {
        let node = self.nodes.get(&node)?;
        let is_ingress = self.index.ingress == Some(network);
        Some(Overlay {
            network,
            // Without its address on it a node can do nothing on the ingress network.
            address: if is_ingress { Some(node.ingress_address?) } else { None },
            host: data_path(node),
            port: self.cluster.as_ref()?.data_path_port,
        })
    }

    /// Notes what a node has of a network before that may change.
    pub(super) fn note_held(&self, node: NodeId, network: NetworkId, touched: &mut Touched) {
        touched.held.entry((node, network)).or_insert_with(|| self.held(node, network));
    }

    /// Notes that a task began or ceased to be a reason for its node to have its networks, after that is in the index.
    pub(super) fn note_presence(&self, task: &Task, node: NodeId, began: bool, touched: &mut Touched) {
        for attachment in &task.attachments {
            let network = attachment.network;
            touched.held.entry((node, network)).or_insert_with(|| {
                let count = self.index.presence.get(&network).and_then(|nodes| nodes.get(&node));
                let others = count.copied().unwrap_or(0) > u64::from(began);
                let is_ingress = self.index.ingress == Some(network) && self.nodes.contains_key(&node);
                let has = self.networks.contains_key(&network) && (is_ingress || others || !began);
                self.held_if(has, node, network)
            });
        }
    }

    /// What a service is called on a network, and what that leads to; `None` where its specification does not name it.
    pub fn record(&self, service: ServiceId, network: NetworkId) -> Option<ServiceRecord> {
        let service = self.services.get(&service)?;
        let on = service.spec.task.networks.iter().find(|on| on.network == network)?;
        let virtual_ip = service.virtual_ips.iter().find(|given| given.network == network);
        let backends = self.index.backends.get(&(service.id, network)).into_iter().flatten();
        Some(ServiceRecord {
            service: service.id,
            network,
            name: service.spec.name.clone(),
            aliases: on.aliases.clone(),
            virtual_ip: virtual_ip.map(|given| given.address),
            tasks: backends
                .map(|((slot, task), address)| TaskAddress {
                    slot: *slot,
                    node: self.task(*task).and_then(Task::told_by_node),
                    task: *task,
                    address: *address,
                })
                .collect(),
        })
    }

    /// All services whose specification names a network.
    pub fn services_on(&self, network: NetworkId) -> impl Iterator<Item = ServiceId> {
        self.index.services_on.get(&network).into_iter().flatten().copied()
    }

    /// A container that is no task, on a network.
    pub fn guest(&self, container: ContainerId, network: NetworkId) -> Option<&Guest> {
        self.guests.get(&(container, network))
    }

    /// All guests of a network.
    pub fn guests_on(&self, network: NetworkId) -> impl Iterator<Item = &Guest> {
        let containers = self.index.guests_on.get(&network).into_iter().flatten();
        containers.filter_map(move |container| self.guest(*container, network))
    }

    /// All guests on a node.
    pub fn guests_of(&self, node: NodeId) -> impl Iterator<Item = &Guest> {
        self.index.guests_of_node.get(&node).into_iter().flatten().filter_map(|key| self.guests.get(key))
    }

    pub(super) fn put_guest(&mut self, guest: &Guest, touched: &mut Touched) {
        self.note_guest(guest, touched);
        let old = self.guests.get(&(guest.container, guest.network)).cloned();
        if let Some(old) = &old {
            self.note_guest(old, touched);
            self.index.remove_guest(old);
        }
        if old.is_none_or(|old| old.address != guest.address) {
            self.note_given(Some((guest.network, guest.address)).into_iter());
        }
        self.index.add_guest(guest);
        self.guests.insert((guest.container, guest.network), guest.clone());
    }

    pub(super) fn remove_guest(&mut self, container: ContainerId, network: NetworkId, touched: &mut Touched) {
        let Some(guest) = self.guests.get(&(container, network)).cloned() else { return };
        self.note_guest(&guest, touched);
        self.index.remove_guest(&guest);
        self.guests.remove(&(container, network));
        touched.capacity = true;
    }

    fn note_guest(&self, guest: &Guest, touched: &mut Touched) {
        self.note_held(guest.node, guest.network, touched);
        self.note_places(Some((guest.network, guest.address)), touched);
        touched.guests.insert((guest.container, guest.network));
    }

    /// The tasks that have an address of a network.
    pub(crate) fn tasks_with_address_on(&self, network: NetworkId) -> impl Iterator<Item = TaskId> {
        let all = (network, Ipv4Addr::UNSPECIFIED)..=(network, Ipv4Addr::BROADCAST);
        self.index.addresses.range(all).filter_map(|(_, holder)| match holder {
            Holder::Task(task) => Some(*task),
            Holder::Service(_) | Holder::Node(_) | Holder::Guest(_) => None,
        })
    }

    /// The addresses of a network that somebody has.
    pub(crate) fn addresses_of(&self, network: NetworkId) -> impl Iterator<Item = Ipv4Addr> {
        let all = (network, Ipv4Addr::UNSPECIFIED)..=(network, Ipv4Addr::BROADCAST);
        self.index.addresses.range(all).map(|((_, address), _)| *address)
    }
}
