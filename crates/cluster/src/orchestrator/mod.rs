//! Keeping the tasks of services as their specifications say.

pub(crate) mod replicated;
pub(crate) mod restart;
pub(crate) mod slot;
pub(crate) mod updater;

use skep_types::{NodeId, Task, TaskState};

use crate::Objects;
use crate::objects::is_live;
use skep_types::node::{Availability, NodeState};

/// Whether a node may not keep its tasks: it is drained, does not answer, or is gone. This is the
/// enforcer: a slot whose node became unfit is looked at again like one whose task ended.
pub(crate) fn gives_up_tasks(objects: &Objects, node: NodeId) -> bool {
    objects
        .node(node)
        .is_none_or(|node| node.state == NodeState::Down || node.spec.availability == Availability::Drain)
}

/// Whether a slot's next task has to wait for this one to stop. Nobody waits for a lost node, nor for
/// what was scaled away.
pub(crate) fn blocks_successor(objects: &Objects, task: &Task) -> bool {
    task.desired < TaskState::Remove && is_live(task) && task.node.is_some_and(|node| !objects.is_lost(node))
}

/// The state that a new task is wanted in at first: SwarmKit prepares a replacement while it has to
/// wait, and starts it then.
pub(crate) fn first_desired(waits: bool) -> TaskState {
    if waits { TaskState::Ready } else { TaskState::Running }
}
