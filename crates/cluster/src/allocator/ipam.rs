//! Addresses of a network. Which are taken, and which was given last, follows from the replicated objects: the
//! search goes on after that one, so that an address rests as long as possible before it is given again.
//!
//! A task holds its addresses until its node said that it ended, or was removed: one on a node that does not
//! answer may still run there.

use std::net::Ipv4Addr;

use skep_types::network::Network;
use skep_types::node::{Node, NodeState};
use skep_types::service::Service;
use skep_types::task::Attachment;
use skep_types::{NetworkId, Task, TaskState};

use crate::Change;
use crate::plan::{Full, Plan};

/// First offset that is given out: after the network's own address and the gateway.
const FIRST: u32 = 2;

/// Takes an address of a network for this batch; the error says why there is none.
pub(crate) fn take(plan: &mut Plan, network: &Network) -> Result<Ipv4Addr, String> {
    let hosts = 1u64 << (32 - u32::from(network.subnet.prefix()));
    let last = u32::try_from(hosts - 1).unwrap_or(u32::MAX).saturating_sub(1);
    let found = if plan.exhausted.contains(&network.id) { None } else { search(plan, network, last) };
    let Some(address) = found else {
        plan.exhausted.insert(network.id);
        let (name, subnet) = (&network.name, network.subnet);
        let all = last.saturating_sub(FIRST - 1);
        return Err(format!("no address left in network {name}: all {all} of {subnet} are in use"));
    };
    plan.addresses.insert((network.id, address));
    plan.last_given.insert(network.id, address);
    Ok(address)
}

/// The next free address after the one that was given last, round and round.
fn search(plan: &Plan, network: &Network, last: u32) -> Option<Ipv4Addr> {
    let given = plan.last_given.get(&network.id).copied().or_else(|| plan.objects.last_given(network.id));
    let base = u32::from(network.subnet.network());
    let next = given.map_or(FIRST, |given| u32::from(given).saturating_sub(base) + 1);
    let start = if (FIRST..=last).contains(&next) { next } else { FIRST };
    free(plan, network, start, last).or_else(|| free(plan, network, FIRST, start - 1))
}

/// The first free address between two offsets.
fn free(plan: &Plan, network: &Network, from: u32, to: u32) -> Option<Ipv4Addr> {
    let key =
        |offset: u32| -> Option<(NetworkId, Ipv4Addr)> { Some((network.id, network.subnet.nth(offset)?)) };
    if from > to {
        return None;
    }
    let mut taken = plan.objects.index().addresses.range(key(from)?..=key(to)?).map(|(key, _)| *key);
    let mut next = taken.next();
    for offset in from..=to {
        let candidate = key(offset)?;
        if next == Some(candidate) {
            next = taken.next();
        } else if !plan.addresses.contains(&candidate) {
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

/// Addresses for a new task of a service: one on the ingress network if the service publishes ports.
pub(crate) fn attach(plan: &mut Plan, service: &Service) -> Result<Vec<Attachment>, String> {
    if service.ports.is_empty() {
        return Ok(Vec::new());
    }
    let Some(ingress) = plan.objects.ingress() else {
        return Err("there is no ingress network".to_owned());
    };
    let address = take(plan, ingress)?;
    Ok(vec![Attachment { network: ingress.id, address }])
}

/// Tries again for tasks that found no address.
pub(crate) fn retry(plan: &mut Plan) -> Result<(), Full> {
    let objects = plan.objects;
    let waiting = objects.index().unallocated.iter().filter_map(|id| objects.task(*id));
    for task in waiting {
        let Some(service) = objects.service(task.service) else { continue };
        plan.reserve(1)?;
        match attach(plan, service) {
            Ok(attachments) => {
                let status = plan.status(TaskState::Pending, "pending task scheduling", String::new());
                plan.changes.push(Change::Allocate { task: task.id, attachments, status: Box::new(status) });
            }
            // The next ones find nothing either: only the ingress network gives addresses.
            Err(reason) => return explain(plan, task, reason),
        }
    }
    Ok(())
}

fn explain(plan: &mut Plan, task: &Task, reason: String) -> Result<(), Full> {
    if task.status.error != reason {
        let status = Box::new(plan.status(TaskState::New, &task.status.message, reason));
        plan.changes.push(Change::SetStatus { task: task.id, status, at: plan.now });
    }
    Ok(())
}
