//! What must be so of networks: addresses with one holder each, and in the end on every node all that it needs of its
//! networks and nothing of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_cluster::Objects;
use skep_types::assignment::Overlay;
use skep_types::network::{Guest, Network};
use skep_types::node::Node;
use skep_types::records::Records;
use skep_types::task::Attachment;
use skep_types::tunnel::{Tunnel, TunnelPeer};
use skep_types::{ContainerId, NetworkId, NodeId, Task, TaskId};

use super::book::{Holder, Who};
use super::is_forsaken;
use crate::machine::{Machine, Place};
use crate::world::{Verdict, World};

/// Something begins to run at an address: nothing else may, but on nodes that were given up.
pub(super) fn unshared(world: &World, address: Place, holder: Holder) -> Verdict {
    let others = world.book.at_address(address).filter(|(other, _)| other.1 != holder.1);
    let other = others.into_iter().find(|(other, since)| !is_forsaken(world, *other, *since));
    other.map_or(Ok(()), |((place, other), _)| {
        let ((node, who), address) = (holder, address.1);
        Err(format!("address {address} is given to {who} on node {node} and {other} on node {place}"))
    })
}

/// The log gives an address to something that does not run yet: what had it before has ended.
fn is_free(world: &World, address: Place, who: Who) -> Verdict {
    let others = world.book.at_address(address).filter(|((_, other), _)| *other != who);
    let other = others.into_iter().find(|(other, since)| !is_forsaken(world, *other, *since));
    other.map_or(Ok(()), |((place, other), _)| {
        let address = address.1;
        Err(format!("address {address} is given to {who} too early: {other} runs there on node {place}"))
    })
}

/// The log gives a task its addresses.
pub(super) fn rested(world: &World, task: TaskId, attachments: &[Attachment]) -> Verdict {
    let mut places = attachments.iter().map(|held| (held.network, held.address));
    places.try_for_each(|place| is_free(world, place, Who::Task(task)))
}

/// The log lets a guest in.
pub(super) fn admitted(world: &World, guest: &Guest) -> Verdict {
    if !world.truth.network(guest.network).is_some_and(|network| network.attachable) {
        return Err(format!("guest {} is let onto a network that takes none", guest.container.short()));
    }
    is_free(world, (guest.network, guest.address), Who::Guest(guest.container))
}

/// A guest begins to run on a node.
pub(crate) fn arriving(world: &World, node: usize, container: ContainerId, address: Place) -> Verdict {
    unshared(world, address, (node, Who::Guest(container)))
}

/// A node is about to take a network away: nothing that runs may be on it.
pub(crate) fn removing_network(world: &World, node: usize, id: NetworkId) -> Verdict {
    let Some(machine) = world.machines.get(node) else { return Ok(()) };
    let mut running = machine.containers.values().filter(|container| container.is_running());
    let user = running.find(|container| container.addresses().any(|(network, _)| network == id));
    user.map_or(Ok(()), |user| {
        Err(format!("node {node} takes network {id} away while task {} is on it", user.task.id))
    })
}

/// Where addresses are, by network: of tasks that have not ended, guests, and nodes on the ingress network.
type Places = BTreeMap<NetworkId, BTreeMap<Ipv4Addr, NodeId>>;

fn places(objects: &Objects) -> Places {
    let mut places = Places::new();
    let mut put = |network: NetworkId, address: Ipv4Addr, node: NodeId| {
        places.entry(network).or_default().insert(address, node);
    };
    let live = |task: &&Task| !task.status.state.is_terminal();
    for task in objects.tasks().filter(live) {
        for (held, node) in task.attachments.iter().zip(task.node.iter().cycle()) {
            put(held.network, held.address, *node);
        }
    }
    for network in objects.networks() {
        objects.guests_on(network.id).for_each(|guest| put(network.id, guest.address, guest.node));
    }
    if let Some(ingress) = objects.ingress() {
        let own = objects.nodes().filter_map(|node| Some((node.ingress_address?, node.id)));
        own.for_each(|(address, node)| put(ingress.id, address, node));
    }
    places
}

fn host(node: &Node) -> IpAddr {
    node.data_path.unwrap_or(node.address)
}

/// In the end: every node has the networks that it needs with all that belongs to them, and nothing of others.
pub(super) fn settled(world: &World, objects: &Objects) -> Verdict {
    let places = places(objects);
    let mut expected_records: BTreeMap<NetworkId, Records> = BTreeMap::new();
    for network in objects.networks() {
        expected_records.insert(network.id, records(objects, network));
    }
    for (number, machine) in world.machines.iter().enumerate() {
        let Some(node) = objects.node(machine.id) else {
            let left = (&machine.networks, &machine.peers, &machine.records);
            if !left.0.is_empty() || !left.1.is_empty() || !left.2.is_empty() {
                return Err(format!("node {number} was removed and keeps {left:?}"));
            }
            continue;
        };
        let needed = needed(objects, machine);
        let has: BTreeSet<NetworkId> = machine.networks.keys().copied().collect();
        if has != needed {
            return Err(format!("node {number} has networks {has:?} and needs {needed:?}"));
        }
        brought_up(objects, number, machine, node)?;
        peers(objects, &places, &needed, number, machine)?;
        names(&expected_records, &needed, number, machine)?;
        tunnel(objects, &needed, number, machine, node)?;
        guests(objects, number, machine)?;
    }
    Ok(())
}

/// The networks of all that is on a node, and the ingress network.
fn needed(objects: &Objects, machine: &Machine) -> BTreeSet<NetworkId> {
    let live = objects.tasks_on(machine.id).filter(|task| !task.status.state.is_terminal());
    let attached = live.flat_map(|task| &task.attachments).map(|held| held.network);
    let guests = objects.guests_of(machine.id).map(|guest| guest.network);
    attached.chain(guests).chain(objects.ingress().map(|network| network.id)).collect()
}

/// Each network is as it was asked for, with this node's own place on it.
fn brought_up(objects: &Objects, number: usize, machine: &Machine, node: &Node) -> Verdict {
    let port = objects.cluster().map_or(0, |cluster| cluster.data_path_port);
    for (id, (network, overlay)) in &machine.networks {
        let address = node.ingress_address.filter(|_| network.ingress);
        let own = Overlay { network: *id, address, host: host(node), port };
        let placed = !network.ingress || address.is_some();
        if objects.network(*id) != Some(network) || *overlay != placed.then_some(own) {
            return Err(format!("node {number} has network {network:?} as {overlay:?}, not {own:?}"));
        }
    }
    Ok(())
}

/// Its kernel knows where all addresses of its networks are that are on other nodes, and no others.
fn peers(
    objects: &Objects,
    places: &Places,
    needed: &BTreeSet<NetworkId>,
    number: usize,
    machine: &Machine,
) -> Verdict {
    for ((network, address), known) in &machine.peers {
        let place = places.get(network).and_then(|on| on.get(address)).filter(|node| **node != machine.id);
        let place = place.filter(|_| needed.contains(network));
        if place.and_then(|node| objects.node(*node)).map(host) != Some(*known) {
            return Err(format!("node {number} takes {address} to be on {known}, and it is on {place:?}"));
        }
    }
    let all = needed.iter().filter_map(|network| places.get(network)).flat_map(BTreeMap::values);
    let elsewhere = all.filter(|node| **node != machine.id).count();
    if machine.peers.len() != elsewhere {
        let known = machine.peers.len();
        return Err(format!("node {number} knows where {known} of {elsewhere} addresses are"));
    }
    Ok(())
}

/// What is to be answered for on a network.
fn records(objects: &Objects, network: &Network) -> Records {
    let services = objects.services_on(network.id);
    Records {
        services: services.filter_map(|id| Some((id, objects.record(id, network.id)?))).collect(),
        guests: objects.guests_on(network.id).map(|guest| (guest.container, guest.clone())).collect(),
    }
}

/// It answers for the names of its networks as the objects say, and for no others.
fn names(
    expected: &BTreeMap<NetworkId, Records>,
    needed: &BTreeSet<NetworkId>,
    number: usize,
    machine: &Machine,
) -> Verdict {
    if let Some(network) = machine.records.keys().find(|network| !needed.contains(network)) {
        return Err(format!("node {number} answers for names of network {network}, which it does not need"));
    }
    let nothing = Records::default();
    for network in needed {
        let known = machine.records.get(network).unwrap_or(&nothing);
        let expected = expected.get(network).unwrap_or(&nothing);
        if known != expected {
            return Err(format!(
                "node {number} answers for {known:?} on network {network}, not {expected:?}"
            ));
        }
    }
    Ok(())
}

/// Where it has an encrypted network, it has the keys, and knows all who may take part.
fn tunnel(
    objects: &Objects,
    needed: &BTreeSet<NetworkId>,
    number: usize,
    machine: &Machine,
    node: &Node,
) -> Verdict {
    let encrypted = |id: &NetworkId| objects.network(*id).is_some_and(|network| network.encrypted);
    let Some(cluster) = objects.cluster().filter(|_| needed.iter().any(encrypted)) else { return Ok(()) };
    let (host, keys) = (host(node), cluster.network_keys.clone());
    let own = Tunnel { host, port: cluster.data_path_port.saturating_add(1), keys };
    let others = objects.nodes().filter(|other| other.id != node.id);
    let known = |other: &Node| {
        let host = self::host(other);
        Some((host, TunnelPeer { host, key: other.description.tunnel_key? }))
    };
    let expected = (Some(own), others.filter_map(known).collect::<BTreeMap<IpAddr, TunnelPeer>>());
    if machine.tunnel != expected {
        return Err(format!("node {number} takes part as {:?}, not {expected:?}", machine.tunnel));
    }
    Ok(())
}

/// Every guest is known at its address, and none that is not there.
fn guests(objects: &Objects, number: usize, machine: &Machine) -> Verdict {
    let known: BTreeMap<_, _> = objects
        .guests_of(machine.id)
        .map(|guest| ((guest.container, guest.network), guest.address))
        .collect();
    let there: BTreeMap<_, _> = machine.guests.iter().map(|(key, (address, _))| (*key, *address)).collect();
    if known != there {
        return Err(format!("node {number} has guests {there:?}, and the managers know {known:?}"));
    }
    Ok(())
}
