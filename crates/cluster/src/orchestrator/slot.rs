//! Looking at one slot: everything that may have to happen there.

use skep_types::{ServiceId, Task, TaskState, Time};

use super::{gives_up_tasks, global, jobs, replicated, restart, updater};
use crate::objects::{is_live, is_wanted};
use crate::plan::{Full, Plan};
use crate::{Change, reaper};

/// Looks at a slot. Gives the time at which to look again, if its present state has a deadline.
pub(crate) fn examine(plan: &mut Plan, id: ServiceId, slot: u64) -> Result<Option<Time>, Full> {
    let objects = plan.objects;
    let tasks: Vec<&Task> = objects.tasks_of_slot(id, slot).collect();
    let Some(service) = objects.service(id) else {
        replicated::empty(plan, id, slot)?;
        orphan(plan, &tasks)?;
        return reaper::reap(plan, &tasks).map(|()| None);
    };
    orphan(plan, &tasks)?;
    reaper::reap(plan, &tasks)?;
    if service.job.is_some() && !jobs::retire(plan, service, slot, &tasks)? {
        return Ok(None);
    }
    // What the scaling of this batch decided comes first; its commit leads here again.
    if plan.slots.contains(&(id, slot)) {
        return Ok(None);
    }
    let mut next: Option<Time> = None;
    let mut remind = |time: Option<Time>| next = next.into_iter().chain(time).min();
    if let Some(rollout) = objects.rollout(id) {
        for task in &tasks {
            remind(updater::watch(plan, service, rollout, task)?);
        }
    }
    let tasks: Vec<&Task> = tasks.into_iter().filter(|task| !objects.is_past(task)).collect();
    let is_global = service.spec.mode.is_global();
    if is_global && !global::follow(plan, service, slot, &tasks)? {
        return Ok(next);
    }
    let wanted: Vec<&Task> = tasks.into_iter().filter(|task| is_wanted(task)).collect();
    if updater::keep_current(plan, service, &wanted)? {
        return Ok(next);
    }
    if let Some((youngest, older)) = wanted.split_last() {
        succeed(plan, youngest, older)?;
        remind(restart::examine(plan, youngest)?);
    }
    Ok(next)
}

/// Ends tasks whose successor was started first, once it runs. Those that ended themselves nobody starts again.
fn succeed(plan: &mut Plan, youngest: &Task, older: &[&Task]) -> Result<(), Full> {
    let objects = plan.objects;
    for task in older {
        let lost = task.node.is_none_or(|node| gives_up_tasks(objects, node));
        if youngest.status.state == TaskState::Running || !is_live(task) || lost {
            plan.reserve(1)?;
            plan.slots.insert((task.service, task.slot));
            plan.end_task(task, TaskState::Shutdown);
        }
    }
    Ok(())
}

/// Ends, on paper, the tasks whose node is gone for good, or was down for so long that it is taken to be: what they
/// hold is free then, their addresses too. As in SwarmKit, a node that comes back after all stops them.
fn orphan(plan: &mut Plan, tasks: &[&Task]) -> Result<(), Full> {
    let objects = plan.objects;
    for task in tasks.iter().filter(|task| is_live(task)) {
        let message = match task.node {
            Some(node) if objects.node(node).is_none() => "Task belonged to a node that has been deleted",
            Some(node) if plan.abandoned.contains(&node) => {
                "Task belonged to a node that was down for 24 hours"
            }
            Some(_) | None => continue,
        };
        plan.reserve(1)?;
        let mut status = plan.status(TaskState::Orphaned, message, String::new());
        status.container.clone_from(&task.status.container);
        plan.changes.push(Change::SetStatus { task: task.id, status: Box::new(status), at: plan.now });
    }
    Ok(())
}
