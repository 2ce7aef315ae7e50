//! Jobs: services whose tasks run to completion, once in each iteration.
//!
//! A slot of a job completes once and is done with then; one whose task failed is tried again as the restart policy
//! says. The tasks of older iterations are history.

use skep_types::service::{Service, ServiceMode};
use skep_types::{Task, TaskState};

use super::{cron, replicated};
use crate::Cause;
use crate::objects::{Slots, is_live};
use crate::plan::{Draft, Full, Plan};

/// Fills the lowest slots of a replicated job that are still to be run, as many as may run at a time.
///
/// A slot whose task failed and is not tried again takes no place from others, and stays as it is until the next
/// iteration. (SwarmKit runs it once more whenever another task of the job ends, against the restart policy.)
pub(crate) fn fill(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    let ServiceMode::ReplicatedJob { max_concurrent, total_completions } = service.spec.mode else {
        return Ok(());
    };
    let none = Slots::default();
    let slots = plan.objects.index().slots.get(&service.id).unwrap_or(&none);
    let active = slots.occupied.len() - slots.finished.len();
    let missing = total_completions.saturating_sub(slots.occupied.len());
    let missing = max_concurrent.saturating_sub(active).min(missing);
    for slot in slots.occupied.free(0).take(usize::try_from(missing).unwrap_or(usize::MAX)) {
        plan.reserve(1)?;
        plan.slots.insert((service.id, slot));
        plan.drafts.push(Draft {
            service: service.id,
            slot,
            pinned: None,
            desired: TaskState::Complete,
            not_before: None,
            cause: Cause::Scale,
        });
    }
    Ok(())
}

/// Sends away what older iterations left in a slot, and what is not to begin any more. Gives whether there is more to look at.
///
/// As SwarmKit, a replicated job keeps its ended tasks as history and a global one keeps none. Nobody waits for those
/// that still run.
pub(crate) fn retire(plan: &mut Plan, service: &Service, slot: u64, tasks: &[&Task]) -> Result<bool, Full> {
    let objects = plan.objects;
    let awaits_run = cron::awaits_run(service);
    let keeps_history = match service.spec.mode {
        ServiceMode::ReplicatedJob { total_completions, .. } if slot >= total_completions && !awaits_run => {
            return replicated::empty(plan, service.id, slot).map(|()| false);
        }
        ServiceMode::ReplicatedJob { .. } => true,
        ServiceMode::Replicated { .. } | ServiceMode::Global | ServiceMode::GlobalJob => false,
    };
    for task in tasks.iter().filter(|task| objects.is_past(task) && task.desired < TaskState::Remove) {
        if is_live(task) || !keeps_history {
            plan.reserve(1)?;
            plan.end_task(task, TaskState::Remove);
        }
    }
    // What has no node yet is not begun.
    let homeless = |task: &&&Task| awaits_run && task.node.is_none() && !objects.is_past(task);
    for task in tasks.iter().filter(homeless) {
        plan.reserve(1)?;
        plan.end_task(task, TaskState::Remove);
    }
    Ok(true)
}
