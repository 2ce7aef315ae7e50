//! Keeping the tasks of services as their specifications say.

pub(crate) mod autoscale;
pub(crate) mod cron;
pub(crate) mod global;
pub(crate) mod jobs;
pub(crate) mod replicated;
pub(crate) mod restart;
pub(crate) mod slot;
pub(crate) mod updater;

use skep_types::{NodeId, Task, TaskState};

use crate::Objects;
use crate::objects::is_live;
use crate::plan::{Full, Plan};
use skep_types::node::{Availability, NodeState};
use skep_types::service::{Service, ServiceMode};

/// Whether a node may not keep its tasks: it is drained, does not answer, or is gone. This is the
/// enforcer: a slot whose node became unfit is looked at again like one whose task ended.
pub(crate) fn gives_up_tasks(objects: &Objects, node: NodeId) -> bool {
    objects
        .node(node)
        .is_none_or(|node| node.state == NodeState::Down || node.spec.availability == Availability::Drain)
}

/// Whether a task's node no longer is what the task's placement asks for. A node that is paused keeps what it has.
///
/// SwarmKit's constraint enforcer calls such a task rejected while it still runs. Here it is told to end as on a
/// drained node, so that its address and its resources stay its own until it did. Where only the service's newer
/// specification asks for another node, the rolling update replaces the task in its turn.
pub(crate) fn is_misplaced(objects: &Objects, task: &Task) -> bool {
    let node = task.node.and_then(|node| objects.node(node));
    let active = node.filter(|node| node.spec.availability == Availability::Active);
    active.is_some_and(|node| !task.spec.placement.allows(node))
}

/// Whether a slot's next task has to wait for this one to stop. Nobody waits for a lost node, nor for
/// what was scaled away.
pub(crate) fn blocks_successor(objects: &Objects, task: &Task) -> bool {
    task.desired < TaskState::Remove && is_live(task) && task.node.is_some_and(|node| !objects.is_lost(node))
}

/// The state that a new task with this goal is wanted in at first: SwarmKit prepares a replacement while it has to
/// wait, and starts it then.
pub(crate) fn first_desired(waits: bool, goal: TaskState) -> TaskState {
    if waits { TaskState::Ready } else { goal }
}

/// Brings the number of a service's slots to what its mode asks for. One with a slot for each node is looked at slot
/// by slot instead ([`global`]).
pub(crate) fn scale(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    if cron::awaits_run(service) {
        return Ok(());
    }
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicated::scale(plan, service, replicas),
        ServiceMode::ReplicatedJob { .. } => jobs::fill(plan, service),
        ServiceMode::Global | ServiceMode::GlobalJob => Ok(()),
    }
}
