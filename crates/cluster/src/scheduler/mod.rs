//! Choosing nodes: first who can, then who is preferred, then who carries least.

mod candidates;
mod fit;
mod placed;
mod tree;

use std::collections::BTreeMap;

use skep_types::{TaskId, TaskState};

pub(crate) use candidates::{Candidates, Seat};
pub(crate) use placed::Placed;

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
        let mut waiting = waiting.iter();
        for task in waiting.by_ref() {
            plan.reserve(1)?;
            if !assign(plan, placed, &mut candidates, *task) {
                let explanation = candidates.explanation();
                if explained.get(group) != Some(&explanation) {
                    explain(plan, std::iter::once(task).chain(waiting), &explanation)?;
                    explained.insert(*group, explanation);
                }
                break;
            }
        }
    }
    Ok(())
}

fn assign(plan: &mut Plan, placed: &mut Placed, candidates: &mut Candidates, task: TaskId) -> bool {
    let Some(Seat { node, generic }) = candidates.take(placed) else { return false };
    let status = Box::new(plan.status(TaskState::Assigned, "scheduler assigned task to node", String::new()));
    plan.changes.push(Change::Assign { task, node, status, generic });
    true
}

fn explain<'t>(
    plan: &mut Plan,
    tasks: impl Iterator<Item = &'t TaskId>,
    explanation: &str,
) -> Result<(), Full> {
    for id in tasks {
        let Some(task) = plan.objects.task(*id) else { continue };
        if task.status.error != explanation {
            plan.reserve(1)?;
            let status = plan.status(TaskState::Pending, "pending task scheduling", explanation.to_owned());
            plan.changes.push(Change::SetStatus { task: *id, status: Box::new(status), at: plan.now });
        }
    }
    Ok(())
}

/// Orders drafts so that those of one service follow each other.
pub(crate) fn by_service(drafts: &mut [Draft]) {
    drafts.sort_by_key(|draft| (draft.service, draft.slot));
}
