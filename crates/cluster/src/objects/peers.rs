//! Which node each address of a network is on, for those that send to it.

use std::net::{IpAddr, Ipv4Addr};

use skep_types::assignment::Peer;
use skep_types::node::Node;
use skep_types::{NetworkId, NodeId};

use super::index::Holder;
use super::{Objects, Touched};

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub node: NodeId,
    /// The data path address of that node.
    pub host: IpAddr,
}

/// An address of a network.
pub(crate) type AddressKey = (NetworkId, Ipv4Addr);

pub(super) fn data_path(node: &Node) -> IpAddr {
    node.data_path.unwrap_or(node.address)
}

impl Objects {
    /// Where an address is: a node's own, a guest's, or a task's from its assignment until it has ended.
    pub(crate) fn place(&self, key: AddressKey) -> Option<Place> {
        let node = match self.index.addresses.get(&key)? {
            Holder::Task(task) => self.tasks.get(task)?.node?,
            Holder::Node(node) => *node,
            Holder::Guest(container) => self.guests.get(&(*container, key.0))?.node,
            // On every node.
            Holder::Service(_) => return None,
        };
        self.nodes.get(&node).map(|node| Place { node: node.id, host: data_path(node) })
    }

    /// All addresses of a network that are on other nodes than this one.
    pub(crate) fn peers_of(&self, node: NodeId, network: NetworkId) -> impl Iterator<Item = Peer> {
        let placed = self.addresses_of(network);
        let placed = placed.filter_map(move |address| Some((address, self.place((network, address))?)));
        let elsewhere = placed.filter(move |(_, place)| place.node != node);
        elsewhere.map(move |(address, place)| Peer { network, address, host: place.host })
    }

    /// Notes where addresses are before that may change. What an entry of the log changes back is no change.
    pub(super) fn note_places(&self, keys: impl IntoIterator<Item = AddressKey>, touched: &mut Touched) {
        for key in keys {
            touched.places.entry(key).or_insert_with(|| self.place(key));
        }
    }

    /// The same of all that is on a node, and of its own places.
    pub(super) fn note_node(&self, node: NodeId, touched: &mut Touched) {
        for network in self.networks_of(node) {
            self.note_held(node, network, touched);
        }
        let own = self.nodes.get(&node).and_then(|node| node.ingress_address);
        self.note_places(self.index.ingress.zip(own), touched);
        let attachments = self.tasks_on(node).flat_map(|task| &task.attachments);
        self.note_places(attachments.map(|given| (given.network, given.address)), touched);
        self.note_places(self.guests_of(node).map(|guest| (guest.network, guest.address)), touched);
    }

    /// What a node's change may mean for others.
    pub(super) fn note_node_change(&self, new: &Node, touched: &mut Touched) {
        let same =
            |old: &Node| (data_path(old), old.ingress_address) == (data_path(new), new.ingress_address);
        if !self.nodes.get(&new.id).is_some_and(same) {
            self.note_node(new.id, touched);
            self.note_places(self.index.ingress.zip(new.ingress_address), touched);
            if let Some(ingress) = self.index.ingress {
                self.note_held(new.id, ingress, touched);
            }
        }
    }

    /// Another network becomes the ingress network, or none.
    pub(super) fn note_ingress(&self, new: Option<NetworkId>, touched: &mut Touched) {
        for node in self.nodes.values() {
            self.note_node(node.id, touched);
            self.note_places(new.zip(node.ingress_address), touched);
            if let Some(new) = new {
                self.note_held(node.id, new, touched);
            }
        }
    }
}
