//! Replacing tasks that ended or lost their node, as SwarmKit's restart supervisor does.

use skep_types::service::RestartCondition;
use skep_types::{Task, TaskState, TaskStatus, Time};

use super::{blocks_successor, cron, first_desired, gives_up_tasks, global, is_misplaced};
use crate::objects::{is_live, is_wanted};
use crate::plan::{Draft, Full, Plan};
use crate::{Cause, Change, Objects};

/// Why a task has to go whose node changed; SwarmKit's words.
pub(crate) const MISPLACED: &str = "assigned node no longer meets constraints";

/// Whether the policy of an ended or stopped task asks for a replacement.
pub(crate) fn should_restart(objects: &Objects, task: &Task, now: Time) -> bool {
    let policy = &task.spec.restart;
    let wanted = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        // As SwarmKit: what a job completed is never run again.
        RestartCondition::Any => task.iteration.is_none() || task.status.state != TaskState::Complete,
    };
    if !wanted || policy.max_attempts == 0 {
        return wanted;
    }
    // A new specification starts with a clean slate.
    let history = objects.restart_history(task.service, task.slot);
    let history = history.filter(|history| history.spec_version == task.spec_version);
    history.is_none_or(|history| history.counted(policy, now) < policy.max_attempts)
}

/// Looks at a slot's wanted task: replaces it when it cannot go on, starts it when its wait is over.
/// Gives the time at which to look again.
pub(crate) fn examine(plan: &mut Plan, task: &Task) -> Result<Option<Time>, Full> {
    let objects = plan.objects;
    if task.iteration.is_some() && task.status.state == TaskState::Complete {
        return Ok(None);
    }
    let misplaced = is_live(task) && is_misplaced(objects, task);
    let displaced = misplaced || task.node.is_some_and(|node| gives_up_tasks(objects, node));
    if displaced && is_live(task) && plan.reported.contains(&task.id) {
        // It may have completed. The commit of the report leads here again.
        return Ok(None);
    }
    if is_live(task) && !displaced {
        return promote(plan, task);
    }
    // A task that failed while it waited for its turn does not shorten the wait: an image that is not
    // there would otherwise be asked for without a pause.
    if let Some(end) = plan.delays.restart(task, plan.now).filter(|_| !displaced) {
        return Ok(Some(end));
    }
    plan.reserve(3)?;
    plan.slots.insert((task.service, task.slot));
    let begins = objects.service(task.service).is_none_or(|service| !cron::awaits_run(service));
    let restart = begins && should_restart(objects, task, plan.now) && global::may_replace(objects, task);
    if misplaced {
        let status = TaskStatus {
            message: "task rejected by constraint enforcer".to_owned(),
            error: MISPLACED.to_owned(),
            ..task.status.clone()
        };
        plan.changes.push(Change::SetStatus { task: task.id, status: Box::new(status), at: plan.now });
    }
    plan.end_task(task, TaskState::Shutdown);
    if restart {
        // A task that lost its node did nothing wrong: no delay, as SwarmKit's for drained nodes.
        let delay = task.spec.restart.delay;
        let not_before = (!displaced && !delay.is_zero()).then(|| plan.now + delay);
        let waits = not_before.is_some() || blocked(objects, task, Some(task));
        plan.drafts.push(Draft {
            service: task.service,
            slot: task.slot,
            pinned: task.pinned,
            desired: first_desired(waits, task.goal()),
            not_before,
            cause: Cause::Restart,
        });
    }
    Ok(None)
}

/// Starts a prepared task once its delay is over and its predecessor has stopped.
fn promote(plan: &mut Plan, task: &Task) -> Result<Option<Time>, Full> {
    if task.desired != TaskState::Ready {
        return Ok(None);
    }
    if let Some(end) = plan.delays.restart(task, plan.now) {
        return Ok(Some(end));
    }
    if !blocked(plan.objects, task, None) {
        plan.reserve(1)?;
        plan.slots.insert((task.service, task.slot));
        plan.set_desired(task.id, task.goal());
    }
    Ok(None)
}

/// Whether another task of the slot is still to stop. `leaving` is stopped by this very batch.
fn blocked(objects: &Objects, task: &Task, leaving: Option<&Task>) -> bool {
    let mut others = objects.tasks_of_slot(task.service, task.slot);
    others.any(|other| {
        let ends = !is_wanted(other) || leaving.is_some_and(|leaving| leaving.id == other.id);
        ends && blocks_successor(objects, other)
    })
}
