//! What must hold of rolling updates, forward and back.

use skep_cluster::{Cause, Change, NewTask};
use skep_types::node::{Availability, NodeState};
use skep_types::service::{Service, ServiceMode, UpdateOrder, UpdateState};
use skep_types::{TaskId, TaskState};

use crate::world::{Verdict, World};

/// A rolling update replaces no more tasks at a time than it may.
pub(super) fn parallelism(world: &World, task: &NewTask) -> Verdict {
    let Some(service) = world.truth.service(task.service).filter(|_| task.cause == Cause::Update) else {
        return Ok(());
    };
    let Some(rollout) = world.truth.rollout(service.id) else { return Ok(()) };
    let (held, most) = (rollout.holding.len() as u64, service.rollout_config().parallelism);
    if most > 0 && held > most {
        let id = service.id;
        return Err(format!("the update of service {id} replaces {held} tasks at a time, not {most}"));
    }
    Ok(())
}

/// Where new tasks are to be started first, a running one is not told to end before another of its slot runs,
/// unless it may not stay where it is.
pub(super) fn order(world: &World, changes: &[Change], task: TaskId, desired: TaskState) -> Verdict {
    let Some(task) = world.truth.task(task).filter(|_| desired == TaskState::Shutdown) else { return Ok(()) };
    let Some(service) = world.truth.service(task.service) else { return Ok(()) };
    let first = service.rollout_config().order == UpdateOrder::StartFirst;
    let replicated = matches!(service.spec.mode, ServiceMode::Replicated { .. });
    let serves = task.status.state == TaskState::Running && task.desired == TaskState::Running;
    if !(first && replicated && serves) {
        return Ok(());
    }
    let node = task.node.and_then(|id| world.truth.node(id)).filter(|node| {
        node.state != NodeState::Down
            && node.spec.availability != Availability::Drain
            && task.spec.placement.allows(node)
    });
    let touched = changes.iter().any(|change| match change {
        Change::PutNode(node) => Some(node.id) == task.node,
        _ => false,
    });
    if node.is_none() || touched {
        return Ok(());
    }
    let mut others =
        world.truth.tasks_of(service.id).filter(|other| other.slot == task.slot && other.id != task.id);
    let covered =
        others.any(|other| other.status.state == TaskState::Running && other.desired <= TaskState::Running);
    if covered { Ok(()) } else { Err(format!("task {} is ended before another of its slot runs", task.id)) }
}

/// A service whose update failed goes back to the specification that it had before, whole.
pub(super) fn goes_back(world: &mut World, service: &Service) -> Verdict {
    let automatic = service.update_status.as_ref().is_some_and(|status| {
        status.state == UpdateState::RollbackStarted && status.message.starts_with("update rolled back")
    });
    let history = world.book.history(service.id);
    let former = history.len().checked_sub(2).and_then(|place| history.get(place));
    if automatic && former != Some(&service.spec) {
        return Err(format!("service {} goes back to what it was not before", service.id));
    }
    Ok(())
}
