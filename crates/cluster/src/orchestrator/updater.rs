//! Rolling updates, stop-first or start-first: a few slots at a time, each watched for a while, as SwarmKit's updater.
//!
//! Its progress is replicated ([`crate::Rollout`]), so a new leader goes on in the middle.

use skep_types::service::{FailureAction, Service, UpdateOrder, UpdateState, UpdateStatus};
use skep_types::{Task, TaskId, TaskState, Time};

use super::{blocks_successor, first_desired};
use crate::objects::{Rollout, Slots, Watch, is_live, is_wanted};
use crate::plan::{Draft, Full, Plan};
use crate::{Cause, Change, UpdateStep};

/// Begins, continues or completes the update of a service.
pub(crate) fn advance(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    let objects = plan.objects;
    // A paused update waits for the user's next.
    let paused = service.update_status.as_ref().is_some_and(|status| status.state == UpdateState::Paused);
    if paused || plan.ended_updates.contains(&service.id) {
        return Ok(());
    }
    let none = Slots::default();
    let slots = objects.index().slots.get(&service.id).unwrap_or(&none);
    let held = match objects.rollout(service.id) {
        Some(rollout) if slots.outdated.is_empty() => {
            return if rollout.watched.is_empty() { complete(plan, service) } else { Ok(()) };
        }
        Some(rollout) => rollout.holding.len(),
        None => {
            // What this very batch scales away needs no update.
            let staying =
                slots.outdated.iter().filter(|(_, slot)| !plan.slots.contains(&(service.id, *slot)));
            let slots = staying.count() as u64;
            if slots == 0 {
                return Ok(());
            }
            plan.reserve(1)?;
            push_step(plan, service, UpdateStep::Start { slots });
            0
        }
    };
    let places = match service.spec.update.parallelism {
        0 => usize::MAX,
        parallelism => usize::try_from(parallelism).unwrap_or(usize::MAX),
    };
    let mut free = places.saturating_sub(held);
    for (_, slot) in &slots.outdated {
        if free == 0 {
            break;
        }
        if !plan.slots.contains(&(service.id, *slot)) {
            renew(plan, service, *slot)?;
            free -= 1;
        }
    }
    Ok(())
}

/// Prepares a task of the new specification in a slot, and stops what the slot has: at once, or once the new task
/// runs ([`super::slot`]) if that is to be first.
fn renew(plan: &mut Plan, service: &Service, slot: u64) -> Result<(), Full> {
    let objects = plan.objects;
    let tasks = objects.tasks_of_slot(service.id, slot);
    plan.reserve(2 + tasks.clone().count())?;
    plan.slots.insert((service.id, slot));
    let stays = |task: &Task| {
        let start_first = service.spec.update.order == UpdateOrder::StartFirst;
        start_first && is_wanted(task) && task.status.state == TaskState::Running
    };
    let pinned = tasks.clone().find_map(|task| task.pinned);
    let waits = tasks.clone().any(|task| !stays(task) && blocks_successor(objects, task));
    for task in tasks.filter(|task| is_wanted(task) && !stays(task)) {
        plan.end_task(task, TaskState::Shutdown);
    }
    plan.drafts.push(Draft {
        service: service.id,
        slot,
        pinned,
        desired: first_desired(waits),
        not_before: None,
        cause: Cause::Update,
    });
    Ok(())
}

fn complete(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    end(plan, service, UpdateState::Completed, "update completed".to_owned())
}

fn end(plan: &mut Plan, service: &Service, state: UpdateState, message: String) -> Result<(), Full> {
    plan.reserve(1)?;
    if !plan.ended_updates.insert(service.id) {
        return Ok(());
    }
    let started_at = service.update_status.as_ref().map_or(plan.now, |status| status.started_at);
    let completed_at = (state == UpdateState::Completed).then_some(plan.now);
    push_step(plan, service, UpdateStep::End(UpdateStatus { state, started_at, completed_at, message }));
    Ok(())
}

fn push_step(plan: &mut Plan, service: &Service, step: UpdateStep) {
    plan.changes.push(Change::Update { service: service.id, step, at: plan.now });
}

/// Looks at a task that the update made. Gives the time at which to look again.
///
/// As SwarmKit, a task that ends before it ran, or within the time of monitoring after it came to run,
/// is a failure, also with exit code 0; one that was told to end is none.
pub(crate) fn watch(
    plan: &mut Plan,
    service: &Service,
    rollout: &Rollout,
    task: &Task,
) -> Result<Option<Time>, Full> {
    let Some(watch) = rollout.watched.get(&task.id).copied() else { return Ok(None) };
    plan.reserve(2)?;
    let config = &service.spec.update;
    let holds = rollout.holding.contains(&task.id);
    let ended_early = !is_live(task) && is_wanted(task);
    let now = plan.now;
    let mut end = |at, delay| plan.delays.end(task, at, delay, now);
    // When the delay before the next slot's turn is over, and when the task has proven itself.
    let (turn, proof) = match watch {
        Watch::Starting => (now, now),
        Watch::Ran(at) => (end(at, config.delay), end(at, config.monitor)),
        Watch::Failed(at) => (end(at, config.delay), now),
    };
    match watch {
        Watch::Failed(_) if now < turn => return Ok(Some(turn)),
        Watch::Starting if is_wanted(task) && !ended_early => {
            if task.status.state == TaskState::Running {
                push_step(plan, service, UpdateStep::Ran { task: task.id });
            }
        }
        Watch::Starting if ended_early => fail(plan, service, rollout, task.id)?,
        Watch::Ran(_) if ended_early && now <= proof => fail(plan, service, rollout, task.id)?,
        Watch::Ran(_) if is_wanted(task) && (now < proof || holds && now < turn) => {
            if holds && now >= turn {
                push_step(plan, service, UpdateStep::Release { task: task.id });
                return Ok(Some(proof));
            }
            return Ok(Some(if holds { turn } else { proof }));
        }
        Watch::Starting | Watch::Ran(_) | Watch::Failed(_) => {
            push_step(plan, service, UpdateStep::Forget { task: task.id });
        }
    }
    Ok(None)
}

/// Counts a failure, and ends the update when there were too many.
fn fail(plan: &mut Plan, service: &Service, rollout: &Rollout, task: TaskId) -> Result<(), Full> {
    let in_batch = plan.changes.iter().filter(|change| {
        matches!(change, Change::Update { service: of, step: UpdateStep::Failed { .. }, .. } if *of == service.id)
    });
    let failures = rollout.failures + 1 + in_batch.count() as u64;
    push_step(plan, service, UpdateStep::Failed { task });
    let too_many = failures * 1000 > u64::from(service.spec.update.max_failure_permille) * rollout.slots;
    match service.spec.update.failure_action {
        FailureAction::Pause | FailureAction::Rollback if too_many => {
            let message = format!("update paused due to failure or early termination of task {task}");
            end(plan, service, UpdateState::Paused, message)
        }
        FailureAction::Pause | FailureAction::Rollback | FailureAction::Continue => Ok(()),
    }
}
