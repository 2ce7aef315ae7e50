//! Services with a number of replicas: one slot for each.

use std::collections::BTreeMap;

use skep_types::service::Service;
use skep_types::{NodeId, ServiceId, TaskState};

use crate::Cause;
use crate::objects::{Numbers, Slots, representative};
use crate::plan::{Draft, Full, Plan};

/// Brings the number of a service's slots to the number of its replicas.
pub(crate) fn scale(plan: &mut Plan, service: &Service, replicas: u64) -> Result<(), Full> {
    let none = Slots::default();
    let slots = plan.objects.index().slots.get(&service.id).unwrap_or(&none);
    let present = slots.occupied.len();
    if present < replicas {
        scale_up(plan, service.id, &slots.occupied, replicas - present)
    } else if present > replicas {
        scale_down(plan, service.id, &slots.occupied, present - replicas)
    } else {
        Ok(())
    }
}

/// Fills the lowest free slots.
fn scale_up(plan: &mut Plan, service: ServiceId, occupied: &Numbers, missing: u64) -> Result<(), Full> {
    let missing = usize::try_from(missing).unwrap_or(usize::MAX);
    for slot in occupied.free(1).take(missing) {
        plan.reserve(1)?;
        plan.slots.insert((service, slot));
        plan.drafts.push(Draft {
            service,
            slot,
            pinned: None,
            desired: TaskState::Running,
            not_before: None,
            cause: Cause::Scale,
        });
    }
    Ok(())
}

/// Empties the slots that leave the best spread: as SwarmKit, each slot is counted as the n-th of its
/// node, running ones before others, and the highest counts go first. What has no node goes before all.
fn scale_down(plan: &mut Plan, service: ServiceId, occupied: &Numbers, excess: u64) -> Result<(), Full> {
    let objects = plan.objects;
    let mut standing: Vec<(bool, u64, Option<NodeId>)> = occupied
        .iter()
        .filter_map(|slot| {
            let task = representative(objects.tasks_of_slot(service, slot))?;
            Some((task.status.state != TaskState::Running, slot, task.node))
        })
        .collect();
    standing.sort();
    let mut of_node: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut ranked: Vec<(u64, bool, u64)> = standing
        .into_iter()
        .map(|(down, slot, node)| {
            let Some(node) = node else { return (u64::MAX, down, slot) };
            let nth = of_node.entry(node).or_default();
            *nth += 1;
            (*nth, down, slot)
        })
        .collect();
    ranked.sort();
    for (_, _, slot) in ranked.into_iter().rev().take(usize::try_from(excess).unwrap_or(usize::MAX)) {
        empty(plan, service, slot)?;
    }
    Ok(())
}

/// Sends away all tasks of a slot, its history included.
pub(crate) fn empty(plan: &mut Plan, service: ServiceId, slot: u64) -> Result<(), Full> {
    let objects = plan.objects;
    plan.reserve(objects.tasks_of_slot(service, slot).count())?;
    plan.slots.insert((service, slot));
    for task in objects.tasks_of_slot(service, slot) {
        plan.end_task(task, TaskState::Remove);
    }
    Ok(())
}
