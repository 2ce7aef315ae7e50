//! Rolling updates: how many tasks at a time, and in which order.

use skep_types::node::{Availability, NodeState};
use skep_types::service::{Service, UpdateOrder, UpdateState};
use skep_types::{ServiceId, Task, TaskId, TaskState};

use crate::world::{Verdict, World};

/// A rolling update begins to replace no more tasks at a time than it may. One that follows another, which might replace
/// more, takes over what that began.
pub(super) fn parallelism(world: &World, service: Option<&Service>) -> Verdict {
    let Some(service) = service else { return Ok(()) };
    let Some(rollout) = world.truth.rollout(service.id) else { return Ok(()) };
    let before = world.book.replacing.get(&service.id).copied().unwrap_or_default() as u64;
    let (held, most) = (rollout.holding.len() as u64, service.rollout_config().parallelism);
    if most > 0 && held > most.max(before) {
        return Err(format!(
            "the update of service {} replaces {held} tasks at a time, not {most}",
            service.id
        ));
    }
    Ok(())
}

/// A slot has one wanted task, and a second one only while an update starts it before the first has ended.
pub(super) fn filled_once(world: &World, service: ServiceId, slot: u64) -> Verdict {
    let current = world.truth.service(service).and_then(|service| service.job).map(|job| job.iteration);
    let wanted = world
        .truth
        .tasks_of_slot(service, slot)
        .filter(|task| task.desired <= TaskState::Complete && task.iteration == current)
        // What failed is replaced in a moment.
        .filter(|task| !task.status.state.is_terminal());
    let (running, coming): (Vec<&Task>, Vec<&Task>) =
        wanted.partition(|task| task.status.state == TaskState::Running);
    let first = world.book.starts_first(service);
    if coming.len() > 1 || !first && coming.len() + running.len() > 1 {
        let count = coming.len() + running.len();
        return Err(format!(
            "slot {slot} of service {service} has {count} wanted tasks: {running:?} {coming:?}"
        ));
    }
    Ok(())
}

/// A task is told to end: one whose successor is to be started first only when that runs.
pub(super) fn ends(world: &World, id: TaskId, desired: TaskState) -> Verdict {
    let Some(task) = world.truth.task(id).filter(|_| desired == TaskState::Shutdown) else { return Ok(()) };
    let Some(service) = world.truth.service(task.service) else { return Ok(()) };
    let running = |task: &Task| task.desired == TaskState::Running && task.status.state == TaskState::Running;
    let updated = service.job.is_none() && task.spec_version != service.spec_version;
    let starts_first = service.rollout_config().order == UpdateOrder::StartFirst;
    if !running(task) || !updated || !starts_first {
        return Ok(());
    }
    // What its node no longer may have waits for nobody.
    let placements = [&task.spec.placement, &service.spec.task.placement];
    let stays = task.node.and_then(|node| world.truth.node(node)).is_some_and(|node| {
        node.state != NodeState::Down
            && node.spec.availability != Availability::Drain
            && placements.into_iter().all(|placement| placement.allows(node))
    });
    // As in SwarmKit, what a node missed while it was paused is made up for at once.
    let state = service.update_status.as_ref().map(|status| status.state);
    let missed = task.pinned.is_some()
        && matches!(state, Some(UpdateState::Completed | UpdateState::RollbackCompleted));
    let mut others = world.truth.tasks_of_slot(service.id, task.slot).filter(|other| other.id != id);
    if !stays || missed || others.any(running) {
        return Ok(());
    }
    Err(format!("task {id} of service {} is told to end before its successor runs", service.spec.name))
}
