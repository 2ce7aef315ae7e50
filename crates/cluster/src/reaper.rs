//! Forgetting tasks: those on their way out once they have ended, and old ones beyond the history limit.

use skep_types::{ServiceId, Task, TaskState};

use crate::objects::{is_live, is_wanted};
use crate::plan::{Full, Plan};
use crate::{Change, Objects};

/// Whether nothing runs behind a task any more, as far as anyone can know.
fn is_removable(objects: &Objects, task: &Task) -> bool {
    !is_live(task) || task.node.is_none_or(|node| objects.node(node).is_none())
}

/// Forgets what a slot no longer needs.
///
/// As SwarmKit's task reaper, a slot keeps as many tasks as the cluster's history limit says, the wanted
/// one among them, and tasks whose service or slot is gone are forgotten as soon as they have ended. The
/// last task of a slot that is not restarted stays, whatever the limit: it stands for its slot.
pub(crate) fn reap(plan: &mut Plan, service: ServiceId, slot: u64) -> Result<(), Full> {
    let objects = plan.objects;
    let tasks = objects.tasks_of_slot(service, slot);
    let leaving = tasks.clone().filter(|task| task.desired >= TaskState::Remove);
    for task in leaving.filter(|task| is_removable(objects, task)) {
        plan.reserve(1)?;
        plan.changes.push(Change::RemoveTask(task.id));
    }
    let limit = objects
        .cluster()
        .map_or(usize::MAX, |cluster| usize::try_from(cluster.spec.task_history_limit).unwrap_or(usize::MAX));
    let staying = tasks.filter(|task| task.desired < TaskState::Remove);
    let excess = staying.clone().count().saturating_sub(limit);
    let stands =
        if staying.clone().any(is_wanted) { None } else { staying.clone().next_back().map(|task| task.id) };
    let old =
        staying.filter(|task| !is_wanted(task) && is_removable(objects, task) && Some(task.id) != stands);
    for task in old.take(excess) {
        plan.reserve(1)?;
        plan.changes.push(Change::RemoveTask(task.id));
    }
    Ok(())
}
