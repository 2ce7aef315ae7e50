//! Forgetting tasks: those on their way out once they have ended, and old ones beyond the history limit.

use skep_types::{Task, TaskState};

use crate::objects::{is_live, is_wanted};
use crate::plan::{Full, Plan};
use crate::{Change, Objects};

/// Whether nothing runs behind a task any more, as far as anyone can know.
fn is_removable(objects: &Objects, task: &Task) -> bool {
    !is_live(task) || task.node.is_none_or(|node| objects.node(node).is_none())
}

/// Forgets what a slot no longer needs. `tasks` are all of it, the oldest first.
///
/// As SwarmKit's task reaper, a slot keeps as many tasks as the cluster's history limit says, the wanted
/// one among them, and tasks whose service or slot is gone are forgotten as soon as they have ended. The
/// last task of a slot that is not restarted stays, whatever the limit: it stands for its slot.
pub(crate) fn reap(plan: &mut Plan, tasks: &[&Task]) -> Result<(), Full> {
    let objects = plan.objects;
    let (staying, leaving): (Vec<&Task>, Vec<&Task>) =
        tasks.iter().partition(|task| task.desired < TaskState::Remove);
    for task in leaving.into_iter().filter(|task| is_removable(objects, task)) {
        plan.reserve(1)?;
        plan.changes.push(Change::RemoveTask(task.id));
    }
    let limit = objects.cluster().map_or(u64::MAX, |cluster| cluster.spec.task_history_limit);
    let excess = staying.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    if excess == 0 {
        return Ok(());
    }
    let is_wanted = |task: &Task| is_wanted(task) && !objects.is_past(task);
    let any_wanted = staying.iter().any(|task| is_wanted(task));
    let stands = staying.last().filter(|_| !any_wanted).map(|task| task.id);
    let old = |task: &&Task| !is_wanted(task) && is_removable(objects, task) && Some(task.id) != stands;
    for task in staying.iter().copied().filter(old).take(excess) {
        plan.reserve(1)?;
        plan.changes.push(Change::RemoveTask(task.id));
    }
    Ok(())
}
