//! Addresses of a network. Which are taken follows from the replicated objects; which is next is the
//! leader's own business, so that an address rests as long as possible before it is given again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use skep_types::network::Network;
use skep_types::service::Service;
use skep_types::task::Attachment;
use skep_types::{NetworkId, Task, TaskState};

use crate::plan::{Full, Plan};
use crate::{Change, Objects};

/// Where the search for the next free address of each network begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursors(BTreeMap<NetworkId, u32>);

/// First offset that is given out: after the network's own address and the gateway.
const FIRST: u32 = 2;

/// Takes an address of a network for this batch; the error says why there is none.
pub(crate) fn take(plan: &mut Plan, cursors: &mut Cursors, network: &Network) -> Result<Ipv4Addr, String> {
    let hosts = 1u64 << (32 - u32::from(network.subnet.prefix()));
    let last = u32::try_from(hosts - 1).unwrap_or(u32::MAX).saturating_sub(1);
    let cursor = cursors.0.entry(network.id).or_insert_with(|| after_youngest(plan.objects, network));
    let start = if (FIRST..=last).contains(cursor) { *cursor } else { FIRST };
    for offset in (start..=last).chain(FIRST..start) {
        let Some(address) = network.subnet.nth(offset) else { continue };
        let key = (network.id, address);
        if !plan.objects.index().addresses.contains_key(&key) && plan.addresses.insert(key) {
            *cursor = offset + 1;
            return Ok(address);
        }
    }
    let (name, subnet) = (&network.name, network.subnet);
    let all = last.saturating_sub(FIRST - 1);
    Err(format!("no address left in network {name}: all {all} of {subnet} are in use"))
}

/// A new leader goes on after the highest address in use.
fn after_youngest(objects: &Objects, network: &Network) -> u32 {
    let range = (network.id, network.subnet.network())..=(network.id, network.subnet.broadcast());
    let youngest = objects.index().addresses.range(range).next_back();
    youngest.map_or(FIRST, |((_, address), _)| u32::from(*address) - u32::from(network.subnet.network()) + 1)
}

/// Addresses for a new task of a service: one on the ingress network if the service publishes ports.
pub(crate) fn attach(
    plan: &mut Plan,
    cursors: &mut Cursors,
    service: &Service,
) -> Result<Vec<Attachment>, String> {
    if service.ports.is_empty() {
        return Ok(Vec::new());
    }
    let Some(ingress) = plan.objects.ingress() else {
        return Err("there is no ingress network".to_owned());
    };
    let address = take(plan, cursors, ingress)?;
    Ok(vec![Attachment { network: ingress.id, address }])
}

/// Tries again for tasks that found no address.
pub(crate) fn retry(plan: &mut Plan, cursors: &mut Cursors) -> Result<(), Full> {
    let objects = plan.objects;
    let waiting = objects.index().unallocated.iter().filter_map(|id| objects.task(*id));
    for task in waiting {
        let Some(service) = objects.service(task.service) else { continue };
        plan.reserve(1)?;
        match attach(plan, cursors, service) {
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
