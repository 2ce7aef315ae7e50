//! Services with one task for each node: they follow the nodes as these come, change and go.
//!
//! Each node has one slot of the service, [`NodeId::slot`], and whatever happens to it is decided slot by slot: a node
//! that changes is looked at in every such service, and a service that changes on every node.

use skep_types::node::Node;
use skep_types::service::{Service, UpdateState};
use skep_types::{Task, TaskState};

use super::restart::should_restart;
use super::{blocks_successor, cron, first_desired, gives_up_tasks, is_misplaced, replicated};
use crate::objects::{is_wanted, takes_tasks};
use crate::plan::{Draft, Full, Plan};
use crate::{Cause, Objects};

/// Whether an ended task of a slot may be replaced where it was; one that is bound to no node always may.
pub(crate) fn may_replace(objects: &Objects, task: &Task) -> bool {
    let Some(node) = task.pinned else { return true };
    let service = objects.service(task.service);
    service.zip(objects.node(node)).is_some_and(|(service, node)| takes_tasks(service, node))
}

/// Brings a node's slot to what the service wants there. Gives whether there is more to look at: nothing was decided.
pub(crate) fn follow(plan: &mut Plan, service: &Service, slot: u64, tasks: &[&Task]) -> Result<bool, Full> {
    let objects = plan.objects;
    let Some(node) = objects.index().node_of_slot.get(&slot).and_then(|node| objects.node(*node)) else {
        // As SwarmKit, nothing is kept of a node that was removed.
        return replicated::empty(plan, service.id, slot).map(|()| false);
    };
    if cron::awaits_run(service) {
        return Ok(true);
    }
    let wanted = || tasks.iter().copied().filter(|task| is_wanted(task));
    let takes = takes_tasks(service, node);
    if wanted().next().is_none() {
        let left = tasks.last().is_some_and(|last| !should_restart(objects, last, plan.now));
        if takes && !left {
            begin(plan, service, node, tasks)?;
        }
        return Ok(false);
    }
    if gives_up_tasks(objects, node.id) && wanted().any(|task| task.node.is_none()) {
        // It waited for a node that it will not get.
        end(plan, service, slot, tasks)?;
        return Ok(false);
    }
    // Where the node changed instead of the service, the task's own placement tells more: see `restart`.
    let excluded = |task: &Task| !gives_up_tasks(objects, node.id) && !is_misplaced(objects, task);
    if !service.spec.task.placement.allows(node) && wanted().all(excluded) {
        end(plan, service, slot, tasks)?;
        return Ok(false);
    }
    if takes && missed_update(objects, service, slot) {
        end(plan, service, slot, tasks)?;
        begin(plan, service, node, tasks)?;
        return Ok(false);
    }
    Ok(true)
}

/// Whether the node was paused while an update passed that has ended. As in SwarmKit, its task is then replaced at
/// once, and this is no update of its own.
fn missed_update(objects: &Objects, service: &Service, slot: u64) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    let ended = matches!(state, Some(UpdateState::Completed | UpdateState::RollbackCompleted));
    let is_outdated = || {
        let mut tasks = objects.tasks_of_slot(service.id, slot).rev();
        let youngest = tasks.find(|task| is_wanted(task));
        youngest.is_some_and(|task| !task.is_current(service, task.node.and_then(|node| objects.node(node))))
    };
    ended && objects.rollout(service.id).is_none() && is_outdated()
}

fn begin(plan: &mut Plan, service: &Service, node: &Node, tasks: &[&Task]) -> Result<(), Full> {
    plan.reserve(1)?;
    let slot = node.id.slot();
    plan.slots.insert((service.id, slot));
    let waits = tasks.iter().any(|task| blocks_successor(plan.objects, task));
    let goal = if service.job.is_some() { TaskState::Complete } else { TaskState::Running };
    plan.drafts.push(Draft {
        service: service.id,
        slot,
        pinned: Some(node.id),
        desired: first_desired(waits, goal),
        not_before: None,
        cause: Cause::Scale,
    });
    Ok(())
}

fn end(plan: &mut Plan, service: &Service, slot: u64, tasks: &[&Task]) -> Result<(), Full> {
    // With room for a successor.
    plan.reserve(tasks.len() + 1)?;
    plan.slots.insert((service.id, slot));
    for task in tasks.iter().filter(|task| is_wanted(task)) {
        plan.end_task(task, TaskState::Shutdown);
    }
    Ok(())
}
