//! What nodes that have an encrypted network are told of each other: their own part, and every other node's key.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::assignment::{Duty, DutyId};
use skep_types::tunnel::{Tunnel, TunnelPeer};
use skep_types::{NetworkId, NodeId};

use crate::Objects;
use crate::objects::Touched;
use crate::tables::Difference;

/// All of it; nothing for a node without encrypted networks.
pub(crate) fn all(objects: &Objects, node: NodeId) -> Vec<Duty> {
    if encrypts(objects, node) { everything(objects, node) } else { Vec::new() }
}

fn encrypts(objects: &Objects, node: NodeId) -> bool {
    let is_encrypted = |network: &NetworkId| objects.network(*network).is_some_and(|it| it.encrypted);
    objects.networks().any(|network| network.encrypted) && objects.networks_of(node).iter().any(is_encrypted)
}

fn everything(objects: &Objects, node: NodeId) -> Vec<Duty> {
    let own = own(objects, node).map(Duty::Tunnel);
    let others = objects.nodes().filter(|other| other.id != node);
    let others = others.filter_map(|other| objects.tunnel_peer(other.id)).map(Duty::TunnelPeer);
    own.into_iter().chain(others).collect()
}

fn own(objects: &Objects, node: NodeId) -> Option<Tunnel> {
    let cluster = objects.cluster()?;
    let node = objects.node(node)?;
    Some(Tunnel {
        host: node.data_path.unwrap_or(node.address),
        port: cluster.data_path_port.saturating_add(1),
        keys: cluster.network_keys.clone(),
    })
}

/// What an applied entry means for the nodes that have sessions.
pub(crate) fn differences(
    objects: &Objects,
    touched: &Touched,
    has_session: impl Fn(NodeId) -> bool,
    sessions: impl Iterator<Item = NodeId>,
    told: &mut BTreeMap<NodeId, Difference>,
) {
    let mut done: BTreeSet<NodeId> = BTreeSet::new();
    for ((node, network), before) in &touched.held {
        let encrypted = before.encrypted || objects.network(*network).is_some_and(|it| it.encrypted);
        let has = objects.has_network(*node, *network);
        if !encrypted || before.has == has || !has_session(*node) || done.contains(node) {
            continue;
        }
        let (update, remove) = told.entry(*node).or_default();
        if has {
            update.extend(everything(objects, *node));
            done.insert(*node);
        } else if !encrypts(objects, *node) {
            let known = objects.nodes().filter_map(|other| objects.tunnel_peer(other.id));
            let known = known.chain(touched.tunnels.values().flatten().copied());
            remove.extend(known.map(|peer| DutyId::TunnelPeer(peer.host)));
            remove.push(DutyId::Tunnel);
            done.insert(*node);
        }
    }
    let moved: Vec<(NodeId, Option<TunnelPeer>, Option<TunnelPeer>)> =
        touched.tunnels.iter().map(|(node, before)| (*node, *before, objects.tunnel_peer(*node))).collect();
    if !touched.cluster && moved.iter().all(|(_, before, after)| before == after) {
        return;
    }
    for node in sessions.filter(|node| !done.contains(node) && encrypts(objects, *node)) {
        let (update, remove) = told.entry(node).or_default();
        if touched.cluster || touched.tunnels.contains_key(&node) {
            update.extend(own(objects, node).map(Duty::Tunnel));
        }
        for (_, before, after) in moved.iter().filter(|(other, ..)| *other != node) {
            if before == after {
                continue;
            }
            if let Some(gone) = before.filter(|before| after.is_none_or(|after| after.host != before.host)) {
                remove.push(DutyId::TunnelPeer(gone.host));
            }
            update.extend(after.map(Duty::TunnelPeer));
        }
    }
}
