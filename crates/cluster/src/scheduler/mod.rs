//! Choosing nodes: first who can, then who is preferred, then who carries least.

mod balance;
mod candidates;
mod fit;
mod placed;
mod tree;

use std::collections::BTreeMap;

use skep_types::{NodeId, Task, TaskState};

pub(crate) use balance::surplus;
pub(crate) use candidates::{Candidates, Seat};
pub(crate) use fit::{Reasons, Unfit};
pub(crate) use placed::{Placed, Standing};

use crate::Change;
use crate::objects::Group;
use crate::plan::{Draft, Full, Plan};

/// Tries again for tasks that wait for a node. `explained` holds what was last said of each group, so
/// that a long queue is not read again while nothing changed for it.
pub(crate) fn retry(
    plan: &mut Plan,
    placed: &mut Placed,
    explained: &mut BTreeMap<Group, String>,
) -> Result<(), Full> {
    let objects = plan.objects;
    explained.retain(|group, _| objects.index().unassigned.contains_key(group));
    for (group, waiting) in &objects.index().unassigned {
        let Some(first) = waiting.first().and_then(|id| objects.task(*id)) else { continue };
        let mut candidates = Candidates::new(
            objects,
            group.0,
            (&first.spec, first.spec_version),
            first.host_ports.iter(),
            plan.now,
        );
        if candidates.is_held() {
            plan.held.insert(group.0);
        }
        let mut waiting = waiting.iter();
        for id in waiting.by_ref() {
            plan.reserve(1)?;
            let Some(task) = objects.task(*id) else { continue };
            match candidates.seat(placed, task.pinned) {
                Ok(seat) => assign(plan, task, seat),
                // Each such task has its own reason.
                Err(reason) if task.pinned.is_some() => explain(plan, task, &reason)?,
                Err(reason) => {
                    // All that follow have the same.
                    if explained.get(group) != Some(&reason) {
                        for id in std::iter::once(id).chain(waiting) {
                            objects.task(*id).map_or(Ok(()), |task| explain(plan, task, &reason))?;
                        }
                        explained.insert(*group, reason);
                    }
                    break;
                }
            }
        }
    }
    Ok(())
}

/// What is said of a task that was given a node, in SwarmKit's words.
pub(crate) fn found(pinned: Option<NodeId>) -> &'static str {
    match pinned {
        Some(_) => "scheduler confirmed task can run on preassigned node",
        None => "scheduler assigned task to node",
    }
}

fn assign(plan: &mut Plan, task: &Task, Seat { node, generic }: Seat) {
    let status = Box::new(plan.status(TaskState::Assigned, found(task.pinned), String::new()));
    plan.changes.push(Change::Assign { task: task.id, node, status, generic });
}

fn explain(plan: &mut Plan, task: &Task, reason: &str) -> Result<(), Full> {
    if task.status.error != reason {
        plan.reserve(1)?;
        let status = plan.status(TaskState::Pending, "pending task scheduling", reason.to_owned());
        plan.changes.push(Change::SetStatus { task: task.id, status: Box::new(status), at: plan.now });
    }
    Ok(())
}

/// Orders drafts so that those of one service follow each other.
pub(crate) fn by_service(drafts: &mut [Draft]) {
    drafts.sort_by_key(|draft| (draft.service, draft.slot));
}
