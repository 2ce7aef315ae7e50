//! Addresses of a network. Which are taken, and which was given last, follows from the replicated objects: the
//! search goes on after that one, so that an address rests as long as possible before it is given again.
//!
//! A task holds its addresses until its node said that it ended, or was removed: one on a node that does not
//! answer may still run there.

use std::net::Ipv4Addr;

use skep_types::network::Network;
use skep_types::node::{Node, NodeState};
use skep_types::service::{EndpointMode, NetworkAttachment, PortSpec, PublishMode, Service, VirtualIp};
use skep_types::task::Attachment;
use skep_types::{NetworkId, Task, TaskState};

use crate::Change;
use crate::plan::{Full, Plan};

/// Takes an address of a network for this batch; the error says why there is none.
pub(crate) fn take(plan: &mut Plan, network: &Network) -> Result<Ipv4Addr, String> {
    let found = if plan.exhausted.contains(&network.id) { None } else { search(plan, network) };
    let Some(address) = found else {
        plan.exhausted.insert(network.id);
        return Err(exhausted(network));
    };
    plan.addresses.insert((network.id, address));
    plan.last_given.insert(network.id, address);
    Ok(address)
}

/// Takes an address of each of several networks, or none at all.
fn take_all<'n>(
    plan: &mut Plan,
    networks: impl Iterator<Item = &'n Network>,
) -> Result<Vec<(NetworkId, Ipv4Addr)>, String> {
    let mut taken: Vec<(NetworkId, Ipv4Addr)> = Vec::new();
    for network in networks {
        match take(plan, network) {
            Ok(address) => taken.push((network.id, address)),
            Err(reason) => {
                for key in &taken {
                    plan.addresses.remove(key);
                    // It is free again for the rest of the batch.
                    plan.exhausted.remove(&key.0);
                }
                return Err(reason);
            }
        }
    }
    Ok(taken)
}

/// Takes the address that somebody asks for; the error says why it cannot be had.
pub(crate) fn take_exact(plan: &mut Plan, network: &Network, address: Ipv4Addr) -> Result<(), String> {
    if !network.subnet.contains(address) {
        return Err(format!("no configured subnet contains IP address {address}"));
    }
    let key = (network.id, address);
    let taken = plan.objects.index().addresses.contains_key(&key) || plan.addresses.contains(&key);
    if taken || is_reserved(network, address) {
        return Err(format!("Address already in use: {address} on network {}", network.name));
    }
    plan.addresses.insert(key);
    Ok(())
}

/// Whether an address of a network is nobody's: the subnet's own, its broadcast address and the gateway.
pub(crate) fn is_reserved(network: &Network, address: Ipv4Addr) -> bool {
    [network.subnet.network(), network.subnet.broadcast(), network.gateway()].contains(&address)
}

/// The first and the last address that is given out without being asked for, except for the gateway.
fn bounds(network: &Network) -> (u32, u32) {
    let range = network.range.unwrap_or(network.subnet);
    let first = u32::from(range.network()).max(u32::from(network.subnet.network()).saturating_add(1));
    let last = u32::from(range.broadcast()).min(u32::from(network.subnet.broadcast()).saturating_sub(1));
    (first, last)
}

/// How many addresses can be given out without being asked for.
pub(crate) fn capacity(network: &Network) -> u64 {
    let (first, last) = bounds(network);
    let all = u64::from(last) + 1;
    let gateway = u32::from(network.gateway());
    all.saturating_sub(u64::from(first)).saturating_sub(u64::from((first..=last).contains(&gateway)))
}

fn exhausted(network: &Network) -> String {
    let range = network.range.unwrap_or(network.subnet);
    format!("no available address on network {} ({range}: {} in use)", network.name, capacity(network))
}

/// The next free address after the one that was given last, round and round.
fn search(plan: &Plan, network: &Network) -> Option<Ipv4Addr> {
    let (first, last) = bounds(network);
    let given = plan.last_given.get(&network.id).copied().or_else(|| plan.objects.last_given(network.id));
    let next = given.map_or(first, |given| u32::from(given).saturating_add(1));
    let start = if (first..=last).contains(&next) { next } else { first };
    free(plan, network, start, last).or_else(|| free(plan, network, first, start.saturating_sub(1)))
}

/// The first free address between two.
fn free(plan: &Plan, network: &Network, from: u32, to: u32) -> Option<Ipv4Addr> {
    let key = |address: u32| (network.id, Ipv4Addr::from(address));
    if from > to {
        return None;
    }
    let gateway = u32::from(network.gateway());
    let mut taken = plan.objects.index().addresses.range(key(from)..=key(to)).map(|(key, _)| *key);
    let mut next = taken.next();
    for address in from..=to {
        let candidate = key(address);
        if next == Some(candidate) {
            next = taken.next();
        } else if address != gateway && !plan.addresses.contains(&candidate) {
            return Some(candidate.1);
        }
    }
    None
}

/// Gives a node its own address on the ingress network, if it has none and there is one. One that answers says
/// why it has none.
pub(crate) fn address_node(plan: &mut Plan, node: &mut Node) {
    let Some(ingress) = plan.objects.ingress().filter(|_| node.ingress_address.is_none()) else { return };
    match take(plan, ingress) {
        Ok(address) => {
            node.ingress_address = Some(address);
            if node.state == NodeState::Ready {
                node.message.clear();
            }
        }
        Err(reason) if node.state == NodeState::Ready => node.message = reason,
        Err(_) => {}
    }
}

/// Addresses for a task: one on each of its networks, and one on the ingress network, which comes last, if the service
/// publishes ports there.
pub(crate) fn attach(
    plan: &mut Plan,
    service: &Service,
    on: &[NetworkAttachment],
) -> Result<Vec<Attachment>, String> {
    let objects = plan.objects;
    if on.is_empty() && service.ports.is_empty() {
        return Ok(Vec::new());
    }
    let mut networks = Vec::with_capacity(on.len() + 1);
    for on in on {
        let Some(network) = objects.network(on.network) else {
            return Err(format!("network {} not found", on.network));
        };
        networks.push(network);
    }
    if service.ingress_ports().next().is_some() {
        let Some(ingress) = objects.ingress() else { return Err(NO_INGRESS.to_owned()) };
        networks.push(ingress);
    }
    // Those that wait for the same network are many.
    if let Some(network) = networks.iter().find(|network| plan.exhausted.contains(&network.id)) {
        return Err(exhausted(network));
    }
    let taken = take_all(plan, networks.into_iter())?;
    Ok(taken.into_iter().map(|(network, address)| Attachment { network, address }).collect())
}

/// SwarmKit's words.
pub(crate) const NO_INGRESS: &str = "service needs ingress network, but no ingress network is present";

/// A service's virtual addresses: one on each of its networks, and one on the ingress network, which comes last, if it
/// publishes ports there; none where its name leads to its tasks. It keeps those that it `had`.
pub(crate) fn virtual_ips(
    plan: &mut Plan,
    mode: EndpointMode,
    on: &[NetworkAttachment],
    ports: &[PortSpec],
    had: &[VirtualIp],
) -> Result<Vec<VirtualIp>, String> {
    let objects = plan.objects;
    let ingress = objects.ingress().filter(|_| ports.iter().any(|port| port.mode == PublishMode::Ingress));
    let networks = match mode {
        EndpointMode::Dnsrr => Vec::new(),
        EndpointMode::Vip => {
            let on = on.iter().filter_map(|on| objects.network(on.network));
            on.chain(ingress).collect::<Vec<&Network>>()
        }
    };
    let kept = |network: &Network| had.iter().find(|had| had.network == network.id);
    let new = networks.iter().copied().filter(|network| kept(network).is_none());
    let taken = take_all(plan, new)?;
    let address = |network: &Network| {
        let given = || taken.iter().find(|(id, _)| *id == network.id).map(|(_, address)| *address);
        let address = kept(network).map(|kept| kept.address).or_else(given)?;
        Some(VirtualIp { network: network.id, address })
    };
    Ok(networks.into_iter().filter_map(address).collect())
}

/// Tries again for tasks that found no address.
pub(crate) fn retry(plan: &mut Plan) -> Result<(), Full> {
    let objects = plan.objects;
    for (service, waiting) in &objects.index().unallocated {
        let Some(service) = objects.service(*service) else { continue };
        for task in waiting.iter().filter_map(|id| objects.task(*id)) {
            plan.reserve(1)?;
            match attach(plan, service, &task.spec.networks) {
                Ok(attachments) => {
                    let status = plan.status(TaskState::Pending, "pending task scheduling", String::new());
                    plan.changes.push(Change::Allocate {
                        task: task.id,
                        attachments,
                        status: Box::new(status),
                    });
                }
                // The next ones of the service find nothing either, and were told so when they were made.
                Err(reason) => {
                    explain(plan, task, reason);
                    break;
                }
            }
        }
    }
    Ok(())
}

fn explain(plan: &mut Plan, task: &Task, reason: String) {
    if task.status.error != reason {
        let status = Box::new(plan.status(TaskState::New, &task.status.message, reason));
        plan.changes.push(Change::SetStatus { task: task.id, status, at: plan.now });
    }
}
