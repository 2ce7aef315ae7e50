//! Tasks: one try at running one instance of a service, and the ladder of states it climbs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::generic::GenericResources;
use crate::node::Node;
use crate::service::{PortSpec, Service, TaskSpec};
use crate::{ContainerId, Meta, NetworkId, NodeId, ServiceId, TaskId, Time, Version};

/// Where a task stands. The names and numbers are SwarmKit's (api/types.proto); a task only ever moves up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum TaskState {
    /// Created, without resources.
    New = 0,
    /// Has its network resources; waits for a node.
    Pending = 64,
    /// Has a node.
    Assigned = 192,
    /// The node's agent has taken it on.
    Accepted = 256,
    /// Image, mounts and networks are being made ready.
    Preparing = 320,
    /// Could start at once.
    Ready = 384,
    /// Being started.
    Starting = 448,
    /// Runs, and is healthy where it has a health check.
    Running = 512,
    /// Ended with exit code 0.
    Complete = 576,
    /// Was told to stop, and did.
    Shutdown = 640,
    /// Ended with an error.
    Failed = 704,
    /// Could not be run on its node.
    Rejected = 768,
    /// Desired only: the service or slot is gone.
    Remove = 800,
    /// Its node was lost for so long that nobody waits for it.
    Orphaned = 832,
}

impl TaskState {
    /// Whether nothing more will happen to a task in this state.
    pub fn is_terminal(self) -> bool {
        self > TaskState::Running
    }

    /// The state's name at the API.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Remove => "remove",
            TaskState::Orphaned => "orphaned",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a task: reported by its agent once it is assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The observed state.
    pub state: TaskState,
    /// When that state was reached.
    pub since: Time,
    /// What is happening, in SwarmKit's words.
    pub message: String,
    /// Why it is not further; empty when all is well.
    pub error: String,
    /// The container, once there is one.
    pub container: Option<ContainerStatus>,
}

/// The container behind a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Its first process, 0 when it does not run.
    pub pid: u32,
    /// Set once it has ended.
    pub exit_code: Option<i32>,
    /// The ports of the node that lead to it, numbers that the node chose filled in.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
}

/// An address of a task on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// The task's address there.
    pub address: Ipv4Addr,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// The service that it is an instance of.
    pub service: ServiceId,
    /// Which instance: from 1, for a job's tasks from 0 as in SwarmKit. Where a service has one for each node, it is
    /// [`NodeId::slot`].
    pub slot: u64,
    /// The node it was given to.
    pub node: Option<NodeId>,
    /// What to run: the service's specification when the task was made.
    pub spec: Arc<TaskSpec>,
    /// The version of the service's specification that `spec` was taken from.
    pub spec_version: Version,
    /// The service's name when the task was made.
    pub service_name: String,
    /// The service's labels then, where a template of `spec` may ask for them.
    #[serde(default)]
    pub service_labels: BTreeMap<String, String>,
    /// The state the managers want it in: at most [`TaskState::Running`], or [`TaskState::Complete`] for a job's task,
    /// until it is to end.
    pub desired: TaskState,
    /// The state it is in.
    pub status: TaskStatus,
    /// Its addresses, given before a node is.
    pub attachments: Vec<Attachment>,
    /// A restarted task is not started before this time.
    pub not_before: Option<Time>,
    /// Ports that it publishes on its own node.
    #[serde(default)]
    pub host_ports: Vec<PortSpec>,
    /// The generic resources that it was given with its node.
    #[serde(default)]
    pub generic: GenericResources,
    /// The only node it may be given to: for tasks of services that have one for each node.
    #[serde(default)]
    pub pinned: Option<NodeId>,
    /// The iteration of the job that it belongs to.
    #[serde(default)]
    pub iteration: Option<u64>,
    /// Whether it is to be replaced by one elsewhere, in its turn: the user asked for balance.
    #[serde(default)]
    pub moves: bool,
}

impl Task {
    /// The state that it is wanted in once nothing is in its way.
    pub fn goal(&self) -> TaskState {
        if self.iteration.is_some() { TaskState::Complete } else { TaskState::Running }
    }

    /// Whether the task is of the service's present specification, by value: an update back to what a
    /// task has already leaves it alone, and so does one that only moves the bounds of its placement around
    /// `node`, the node that it is on; as in SwarmKit's `IsTaskDirty`.
    pub fn is_current(&self, service: &Service, node: Option<&Node>) -> bool {
        let same_spec = self.spec_version == service.spec_version
            || self.spec == service.spec.task
            || self.spec.differs_in_placement_only(&service.spec.task)
                && node.is_some_and(|node| service.spec.task.placement.allows(node));
        // A service that publishes its first port needs tasks with an address on the ingress network too.
        let publishes = service.ingress_ports().next().is_some();
        let reachable = !publishes || self.attachments.len() > self.spec.networks.len();
        let same_ports = service.host_ports().eq(&self.host_ports);
        same_spec && same_ports && (reachable || self.status.state == TaskState::New)
    }

    /// The node that it is told by among the tasks of its service instead of its slot: where the service has one task
    /// for each node. As SwarmKit, which knows no slot 0, the first task of a job is told by its node too.
    pub fn told_by_node(&self) -> Option<NodeId> {
        self.pinned.or(self.node.filter(|_| self.slot == 0))
    }

    /// What it is told by: its slot, or its node.
    pub fn slot_name(&self) -> String {
        slot_name(self.slot, self.told_by_node())
    }

    /// `service.slot.id`, the name of the task's container.
    pub fn container_name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.slot_name(), self.id)
    }
}

/// See [`Task::slot_name`].
pub fn slot_name(slot: u64, told_by: Option<NodeId>) -> String {
    told_by.map_or_else(|| slot.to_string(), |node| node.to_string())
}
