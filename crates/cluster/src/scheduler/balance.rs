//! Which tasks of a service would be elsewhere if all of them were placed now.

use std::collections::BTreeMap;

use skep_types::service::Service;
use skep_types::{NodeId, Task, TaskId, Time};

use super::{Candidates, Placed};
use crate::Objects;
use crate::objects::{is_live, is_wanted};

/// The tasks that are more than their node would have if the service's tasks were placed anew, the youngest first.
/// None where nothing would be gained by it: a move that only changes which node has the odd task is none.
pub(crate) fn surplus(objects: &Objects, service: &Service, now: Time) -> Vec<TaskId> {
    let present: Vec<&Task> = objects
        .tasks_of(service.id)
        .filter(|task| is_live(task) && is_wanted(task) && task.node.is_some())
        .collect();
    // While a successor is started first, its slot has two: the older one is about to go.
    let youngest: BTreeMap<u64, &Task> = present.iter().map(|task| (task.slot, *task)).collect();
    let standing: Vec<&Task> = youngest.into_values().collect();
    let spec = (service.spec.task.as_ref(), service.spec_version);
    let mut placed = Placed::without(present.into_iter());
    let mut candidates = Candidates::new(objects, service.id, spec, service.host_ports(), now);
    let mut wanted: BTreeMap<NodeId, u64> = BTreeMap::new();
    for _ in &standing {
        if let Ok(seat) = candidates.seat(&mut placed, None) {
            *wanted.entry(seat.node).or_default() += 1;
        }
    }
    let mut present: BTreeMap<NodeId, Vec<&Task>> = BTreeMap::new();
    for task in standing.iter().copied() {
        present.entry(task.node.unwrap_or(NodeId(0))).or_default().push(task);
    }
    let count = |node: &NodeId| present.get(node).map_or(0, |tasks| tasks.len() as u64);
    // What nodes lack that have fewer than they would, by more than the odd task.
    let most = present.values().map(|tasks| tasks.len() as u64).max().unwrap_or_default();
    let gains = wanted.iter().any(|(node, wanted)| *wanted > count(node) && count(node) + 1 < most);
    if !gains && service.spec.task.placement.preferences.is_empty() {
        return Vec::new();
    }
    let mut moves = Vec::new();
    for (node, mut tasks) in present {
        let excess = (tasks.len() as u64).saturating_sub(wanted.get(&node).copied().unwrap_or_default());
        tasks.sort_by_key(|task| (task.meta.created_at, task.id));
        let excess = usize::try_from(excess).unwrap_or(usize::MAX);
        moves.extend(tasks.iter().rev().take(excess).map(|task| task.id));
    }
    moves
}
