//! What nodes are told besides tasks: networks with all that belongs to them, and endpoints.
//!
//! What belongs to a network (peers, guests, records) is told only to the nodes that have it: all at once when a node
//! comes to have it, then in differences whose cost follows what changed and who is told, and taken away again when its
//! last task or guest there is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_types::assignment::{Duty, DutyId, Peer};
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId};

use crate::objects::{Place, Touched};
use crate::{Objects, tunnels};

/// A node's part of an entry: new or changed duties, and those that are gone.
pub(crate) type Difference = (Vec<Duty>, Vec<DutyId>);

/// All that a node is told besides its tasks. Where a table's backends are comes before the table.
pub(crate) fn all(objects: &Objects, node: NodeId) -> Vec<Duty> {
    let mut duties = Vec::new();
    for network in objects.networks_of(node) {
        network_of(objects, node, network, &mut duties);
    }
    let endpoints = objects.services().filter_map(|service| objects.endpoint(service.id));
    duties.extend(endpoints.map(Duty::Endpoint));
    duties.extend(tunnels::all(objects, node));
    duties
}

/// All of one network.
fn network_of(objects: &Objects, node: NodeId, network: NetworkId, duties: &mut Vec<Duty>) {
    duties.extend(objects.network(network).cloned().map(Duty::Network));
    duties.extend(objects.overlay_of(node, network).map(Duty::Overlay));
    duties.extend(objects.peers_of(node, network).map(Duty::Peer));
    duties.extend(objects.guests_on(network).cloned().map(Duty::Guest));
    let records = objects.services_on(network).filter_map(|service| objects.record(service, network));
    duties.extend(records.map(Duty::Record));
}

/// What an applied entry means for the nodes that have sessions.
pub(crate) fn differences(
    objects: &Objects,
    touched: &Touched,
    has_session: impl Fn(NodeId) -> bool,
    sessions: impl Iterator<Item = NodeId> + Clone,
) -> BTreeMap<NodeId, Difference> {
    let mut told: BTreeMap<NodeId, Difference> = BTreeMap::new();
    let news = News::by_network(objects, touched);
    // Those that have heard all of a network, or that it is gone.
    let mut done: BTreeSet<(NodeId, NetworkId)> = BTreeSet::new();
    // One that left the cluster is told so elsewhere.
    let listens = |node: NodeId| has_session(node) && objects.node(node).is_some();
    for (key, before) in touched.held.iter().filter(|((node, _), _)| listens(*node)) {
        let (node, network) = *key;
        match (before.has, objects.has_network(node, network)) {
            (false, false) => {}
            (false, true) => {
                network_of(objects, node, network, &mut told.entry(node).or_default().0);
                done.insert(*key);
            }
            (true, false) => {
                let gone = &mut told.entry(node).or_default().1;
                forget_network(objects, network, news.get(&network), gone);
                done.insert(*key);
            }
            (true, true) => {
                let (update, remove) = told.entry(node).or_default();
                match (before.overlay, objects.overlay_of(node, network)) {
                    (before, after) if before == after => {}
                    (_, Some(overlay)) => update.push(Duty::Overlay(overlay)),
                    (_, None) => remove.push(DutyId::Overlay(network)),
                }
            }
        }
    }
    for (network, news) in &news {
        let duties = news.duties(objects, *network);
        let mut tell = |node: NodeId| {
            if !done.contains(&(node, *network)) {
                let (update, remove) = told.entry(node).or_default();
                news.tell_moves(*network, node, update, remove);
                update.extend(duties.0.iter().cloned());
                remove.extend(duties.1.iter().copied());
            }
        };
        if objects.ingress().is_some_and(|ingress| ingress.id == *network) {
            sessions.clone().for_each(&mut tell);
        } else if objects.network(*network).is_some() {
            objects.nodes_on(*network).filter(|node| has_session(*node)).for_each(tell);
        }
    }
    endpoints(objects, touched, sessions.clone(), &mut told);
    tunnels::differences(objects, touched, listens, sessions, &mut told);
    told.retain(|_, (update, remove)| !update.is_empty() || !remove.is_empty());
    told
}

/// Every node serves the published ports of all services.
fn endpoints(
    objects: &Objects,
    touched: &Touched,
    sessions: impl Iterator<Item = NodeId>,
    told: &mut BTreeMap<NodeId, Difference>,
) {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for id in &touched.endpoints {
        match objects.endpoint(*id) {
            Some(endpoint) => changed.push(Duty::Endpoint(endpoint)),
            None => gone.push(DutyId::Endpoint(*id)),
        }
    }
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    for node in sessions {
        let (update, remove) = told.entry(node).or_default();
        update.extend(changed.iter().cloned());
        remove.extend(gone.iter().copied());
    }
}

/// An address that an entry moved: where it was, and where it is.
type Move = (Ipv4Addr, Option<Place>, Option<Place>);

/// What an entry changed of one network.
#[derive(Default)]
struct News {
    network: bool,
    moves: Vec<Move>,
    guests: Vec<ContainerId>,
    records: Vec<ServiceId>,
}

impl News {
    fn by_network(objects: &Objects, touched: &Touched) -> BTreeMap<NetworkId, News> {
        let mut news: BTreeMap<NetworkId, News> = BTreeMap::new();
        for network in &touched.networks {
            news.entry(*network).or_default().network = true;
        }
        for (key, before) in &touched.places {
            let after = objects.place(*key);
            if *before != after {
                news.entry(key.0).or_default().moves.push((key.1, *before, after));
            }
        }
        for (container, network) in &touched.guests {
            news.entry(*network).or_default().guests.push(*container);
        }
        for (service, network) in &touched.records {
            news.entry(*network).or_default().records.push(*service);
        }
        news
    }

    /// What all nodes that have the network are told alike.
    fn duties(&self, objects: &Objects, network: NetworkId) -> Difference {
        let (mut update, mut remove) = (Vec::new(), Vec::new());
        update.extend(objects.network(network).filter(|_| self.network).cloned().map(Duty::Network));
        for container in &self.guests {
            match objects.guest(*container, network) {
                Some(guest) => update.push(Duty::Guest(guest.clone())),
                None => remove.push(DutyId::Guest(*container, network)),
            }
        }
        for service in &self.records {
            match objects.record(*service, network) {
                Some(record) => update.push(Duty::Record(record)),
                None => remove.push(DutyId::Record(*service, network)),
            }
        }
        (update, remove)
    }

    /// What the moves mean for one node, which is told of addresses on other nodes alone.
    fn tell_moves(&self, network: NetworkId, node: NodeId, update: &mut Vec<Duty>, remove: &mut Vec<DutyId>) {
        let elsewhere =
            |place: &Option<Place>| place.filter(|place| place.node != node).map(|place| place.host);
        for (address, before, after) in &self.moves {
            let address = *address;
            match (elsewhere(before), elsewhere(after)) {
                (before, after) if before == after => {}
                (_, Some(host)) => update.push(Duty::Peer(Peer { network, address, host })),
                (_, None) => remove.push(DutyId::Peer(network, address)),
            }
        }
    }
}

/// Takes away all that a node was told of a network, and perhaps more. What an entry took away with the network is only
/// in its news.
fn forget_network(objects: &Objects, network: NetworkId, news: Option<&News>, gone: &mut Vec<DutyId>) {
    let records = objects.services_on(network).chain(news.into_iter().flat_map(|news| news.records.clone()));
    let records: BTreeSet<ServiceId> = records.collect();
    gone.extend(records.into_iter().map(|service| DutyId::Record(service, network)));
    let guests = objects.guests_on(network).map(|guest| guest.container);
    let guests: BTreeSet<ContainerId> =
        guests.chain(news.into_iter().flat_map(|news| news.guests.clone())).collect();
    gone.extend(guests.into_iter().map(|guest| DutyId::Guest(guest, network)));
    let moved = news.into_iter().flat_map(|news| news.moves.iter().map(|(address, ..)| *address));
    let peers: BTreeSet<Ipv4Addr> = objects.addresses_of(network).chain(moved).collect();
    gone.extend(peers.into_iter().map(|address| DutyId::Peer(network, address)));
    gone.extend([DutyId::Overlay(network), DutyId::Network(network)]);
}
