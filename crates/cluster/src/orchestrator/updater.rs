//! Rolling updates, stop-first or start-first: a few slots at a time, each watched for a while, as SwarmKit's updater.
//!
//! Its progress is replicated ([`crate::Rollout`]), so a new leader goes on in the middle.

use skep_types::service::{FailureAction, Service, UpdateOrder, UpdateState, UpdateStatus};
use skep_types::{Task, TaskId, TaskState, Time};

use super::{blocks_successor, first_desired, gives_up_tasks, is_misplaced};
use crate::objects::{Rollout, Slots, Watch, is_live, is_wanted};
use crate::plan::{Draft, Full, Plan};
use crate::requests::{self, MAX_SPECS_OF_BATCH};
use crate::{Cause, Change, UpdateStep};

/// Takes a service back to what it was, if its update was given up.
///
/// First of all of a batch: whatever else there is to decide is decided by the specification that was gone back to.
pub(crate) fn roll_back(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    let rollout = plan.objects.rollout(service.id);
    let Some(task) = rollout.and_then(|rollout| rollout.given_up) else { return Ok(()) };
    if plan.requested.len() >= MAX_SPECS_OF_BATCH {
        return Err(Full);
    }
    plan.reserve(1)?;
    let message = format!("update rolled back due to failure or early termination of task {task}");
    match requests::service::revert(plan, service, message) {
        Ok(()) => Ok(()),
        // What it needs is gone or belongs to others by now: a network, a port.
        Err(refusal) => pause(plan, service, format!("{}: cannot roll back: {refusal}", paused_by(task))),
    }
}

/// Begins, continues or completes the update of a service.
pub(crate) fn advance(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    let objects = plan.objects;
    let state = service.update_status.as_ref().map(|status| status.state);
    // A paused update waits for the user's next.
    let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    if paused || plan.ended_updates.contains(&service.id) {
        return Ok(());
    }
    let none = Slots::default();
    let slots = objects.index().slots.get(&service.id).unwrap_or(&none);
    let rollout = objects.rollout(service.id);
    let watched = rollout.map_or(0, |rollout| rollout.watched.len());
    if slots.outdated.is_empty() && watched == 0 {
        let under_way = matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted));
        return if under_way { complete(plan, service) } else { Ok(()) };
    }
    if !rollout.is_some_and(Rollout::has_begun) {
        // What this very batch scales away needs no update.
        let staying = slots.outdated.iter().filter(|(_, slot)| !plan.slots.contains(&(service.id, *slot)));
        let slots = (staying.count() + watched) as u64;
        if slots == 0 {
            return Ok(());
        }
        plan.reserve(1)?;
        push_step(plan, service, UpdateStep::Start { slots });
    }
    let places = match service.rollout_config().parallelism {
        0 => usize::MAX,
        parallelism => usize::try_from(parallelism).unwrap_or(usize::MAX),
    };
    let held = rollout.map_or(0, |rollout| rollout.holding.len());
    let mut free = places.saturating_sub(held);
    for (_, slot) in &slots.outdated {
        if free == 0 {
            break;
        }
        if !plan.slots.contains(&(service.id, *slot)) && renew(plan, service, *slot)? == Renewal::Place {
            free -= 1;
        }
    }
    Ok(())
}

/// What it takes to renew a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// One of the update's parallel places.
    Place,
    /// Nothing: what it is to have runs already.
    Nothing,
}

/// Prepares a task of the new specification in a slot, and stops what the slot has: at once, or once the new task
/// runs ([`super::slot`]) if that is to be first.
fn renew(plan: &mut Plan, service: &Service, slot: u64) -> Result<Renewal, Full> {
    let objects = plan.objects;
    let tasks = objects.tasks_of_slot(service.id, slot);
    let wanted: Vec<&Task> = tasks.clone().filter(|task| is_wanted(task)).collect();
    if keep_current(plan, service, &wanted)? {
        return Ok(Renewal::Nothing);
    }
    plan.reserve(2 + tasks.clone().count())?;
    plan.slots.insert((service.id, slot));
    let stays = |task: &Task| {
        let start_first = service.rollout_config().order == UpdateOrder::StartFirst;
        start_first && is_wanted(task) && task.status.state == TaskState::Running
    };
    let pinned = tasks.clone().find_map(|task| task.pinned);
    let waits = tasks.clone().any(|task| !stays(task) && blocks_successor(objects, task));
    for task in wanted.into_iter().filter(|task| !stays(task)) {
        plan.end_task(task, TaskState::Shutdown);
    }
    plan.drafts.push(Draft {
        service: service.id,
        slot,
        pinned,
        desired: first_desired(waits, TaskState::Running),
        not_before: None,
        cause: Cause::Update,
    });
    Ok(Renewal::Place)
}

/// Sends away what was to follow a task that is wanted again, and runs still: an update that started the new task
/// first was gone back on. Gives whether it was so.
pub(crate) fn keep_current(plan: &mut Plan, service: &Service, wanted: &[&Task]) -> Result<bool, Full> {
    let objects = plan.objects;
    let current = |task: &Task| {
        let node = task.node.and_then(|node| objects.node(node));
        let stays =
            task.node.is_some_and(|node| !gives_up_tasks(objects, node)) && !is_misplaced(objects, task);
        let runs = task.desired == TaskState::Running && task.status.state == TaskState::Running;
        runs && stays && !task.moves && task.is_current(service, node)
    };
    let Some((_, older)) = wanted.split_last() else { return Ok(false) };
    let Some(kept) = older.iter().rev().find(|task| current(task)) else { return Ok(false) };
    plan.reserve(wanted.len())?;
    plan.slots.insert((kept.service, kept.slot));
    wanted.iter().filter(|task| task.id != kept.id).for_each(|task| plan.end_task(task, TaskState::Shutdown));
    Ok(true)
}

fn complete(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    let (state, message) = match service.goes_back() {
        true => (UpdateState::RollbackCompleted, "rollback completed"),
        false => (UpdateState::Completed, "update completed"),
    };
    end(plan, service, state, message.to_owned())
}

fn pause(plan: &mut Plan, service: &Service, message: String) -> Result<(), Full> {
    let state = if service.goes_back() { UpdateState::RollbackPaused } else { UpdateState::Paused };
    end(plan, service, state, message)
}

fn paused_by(task: TaskId) -> String {
    format!("update paused due to failure or early termination of task {task}")
}

fn end(plan: &mut Plan, service: &Service, state: UpdateState, message: String) -> Result<(), Full> {
    plan.reserve(1)?;
    if !plan.ended_updates.insert(service.id) {
        return Ok(());
    }
    let started_at = service.update_status.as_ref().map_or(plan.now, |status| status.started_at);
    let completed = matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted);
    let completed_at = completed.then_some(plan.now);
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
    let watch = rollout.watched.get(&task.id).filter(|_| rollout.has_begun());
    let Some(watch) = watch.copied() else { return Ok(None) };
    plan.reserve(2)?;
    let config = service.rollout_config();
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
    let config = service.rollout_config();
    if failures * 1000 <= u64::from(config.max_failure_permille) * rollout.slots {
        return Ok(());
    }
    match config.failure_action {
        FailureAction::Continue => Ok(()),
        // In these words also where it is a rollback that is paused, as SwarmKit.
        FailureAction::Pause => pause(plan, service, paused_by(task)),
        // As SwarmKit's updater: never roll back a rollback.
        FailureAction::Rollback if service.goes_back() => {
            let message = format!("rollback paused due to failure or early termination of task {task}");
            pause(plan, service, message)
        }
        // There is nothing to go back to where it is no change of the service that made its tasks out of date.
        FailureAction::Rollback if service.previous_spec.is_none() => pause(plan, service, paused_by(task)),
        FailureAction::Rollback => {
            // What else this batch decides of the service, it decides by the present specification: the next
            // one begins with the former.
            if plan.ended_updates.insert(service.id) {
                push_step(plan, service, UpdateStep::GiveUp { task });
            }
            Ok(())
        }
    }
}
