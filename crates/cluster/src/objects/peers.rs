//! Which node each address of a network is on, for those that send to it.

use std::net::{IpAddr, Ipv4Addr};

use skep_types::assignment::{Overlay, Peer};
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
    /// Its own address on the ingress network, for addresses of that network.
    pub via: Option<Ipv4Addr>,
}

/// An address of a network.
pub(crate) type AddressKey = (NetworkId, Ipv4Addr);

fn data_path(node: &Node) -> IpAddr {
    node.data_path.unwrap_or(node.address)
}

impl Objects {
    /// Where an address is: a node's own, or a task's from its assignment until it has ended.
    pub(crate) fn place(&self, key: AddressKey) -> Option<Place> {
        let node = match self.index.addresses.get(&key)? {
            Holder::Task(task) => self.tasks.get(task)?.node?,
            Holder::Node(node) => *node,
            // On every node.
            Holder::Service(_) => return None,
        };
        let via = |node: &Node| node.ingress_address.filter(|_| self.index.ingress == Some(key.0));
        self.nodes.get(&node).map(|node| Place { node: node.id, host: data_path(node), via: via(node) })
    }

    /// All addresses that are on other nodes.
    pub(crate) fn peers_of(&self, node: NodeId) -> impl Iterator<Item = Peer> {
        let placed = self.index.addresses.keys().filter_map(|key| Some((*key, self.place(*key)?)));
        let elsewhere = placed.filter(move |(_, place)| place.node != node);
        elsewhere.map(|((network, address), place)| Peer {
            network,
            address,
            host: place.host,
            via: place.via,
        })
    }

    /// A node's own place on the ingress network, once both are there.
    pub(crate) fn overlay_of(&self, node: NodeId) -> Option<Overlay> {
        let node = self.nodes.get(&node)?;
        Some(Overlay {
            network: self.index.ingress?,
            address: Some(node.ingress_address?),
            host: data_path(node),
            port: self.cluster.as_ref()?.data_path_port,
        })
    }

    /// Notes where addresses are before that may change. What an entry of the log changes back is no change.
    pub(super) fn note_places(&self, keys: impl IntoIterator<Item = AddressKey>, touched: &mut Touched) {
        for key in keys {
            touched.places.entry(key).or_insert_with(|| self.place(key));
        }
    }

    /// The same of all that is on a node, and of its own place.
    pub(super) fn note_node(&self, node: NodeId, touched: &mut Touched) {
        touched.overlays.entry(node).or_insert_with(|| self.overlay_of(node));
        let own = self.nodes.get(&node).and_then(|node| node.ingress_address);
        self.note_places(self.index.ingress.zip(own), touched);
        let attachments = self.tasks_on(node).flat_map(|task| &task.attachments);
        self.note_places(attachments.map(|given| (given.network, given.address)), touched);
    }

    /// What a node's change may mean for others.
    pub(super) fn note_node_change(&self, new: &Node, touched: &mut Touched) {
        let same =
            |old: &Node| (data_path(old), old.ingress_address) == (data_path(new), new.ingress_address);
        if !self.nodes.get(&new.id).is_some_and(same) {
            self.note_node(new.id, touched);
            self.note_places(self.index.ingress.zip(new.ingress_address), touched);
        }
    }

    /// Another network becomes the ingress network, or none.
    pub(super) fn note_ingress(&self, new: Option<NetworkId>, touched: &mut Touched) {
        for node in self.nodes.values() {
            self.note_node(node.id, touched);
            self.note_places(new.zip(node.ingress_address), touched);
        }
    }
}
