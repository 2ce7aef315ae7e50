//! The decisions that the log holds.

use serde::{Deserialize, Serialize};
use skep_types::generic::GenericResources;
use skep_types::network::{Guest, Network};
use skep_types::node::Node;
use skep_types::service::{Scaled, Service, UpdateStatus};
use skep_types::swarm::ClusterObject;
use skep_types::task::Attachment;
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, TaskId, TaskState, TaskStatus, Time};

/// One decision. Applying the changes of the log in order gives the same [`crate::Objects`] everywhere.
///
/// Changes are small: a task's creation names its service instead of repeating the specification.
/// Versions of objects are not in them, they are the log's positions.
///
/// The log outlives this version of the program: variants and fields are only ever added, new fields
/// with `#[serde(default)]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Create or replace the cluster.
    PutCluster(Box<ClusterObject>),
    /// Create or replace a node.
    PutNode(Box<Node>),
    /// Forget a node.
    RemoveNode(NodeId),
    /// Create or replace a network.
    PutNetwork(Box<Network>),
    /// Forget a network.
    RemoveNetwork(NetworkId),
    /// Create or replace a service. Its rolling update starts anew.
    PutService(Box<Service>),
    /// Forget a service and its rolling update. Its tasks stay until they have ended.
    RemoveService(ServiceId),
    /// Move a service's rolling update on.
    Update {
        /// Which service.
        service: ServiceId,
        /// The move.
        step: UpdateStep,
        /// When it was decided.
        at: Time,
    },
    /// Create a task from the service's specification as it is at this point of the log.
    CreateTask(Box<NewTask>),
    /// Give an unallocated task its addresses.
    Allocate {
        /// Which task.
        task: TaskId,
        /// Its addresses.
        attachments: Vec<Attachment>,
        /// `pending`, from now on.
        status: Box<TaskStatus>,
    },
    /// Give a task to a node.
    Assign {
        /// Which task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// `assigned`, from now on.
        status: Box<TaskStatus>,
        /// What it is given of the node's generic resources.
        #[serde(default)]
        generic: GenericResources,
    },
    /// Set the state that a task is wanted in.
    SetDesired {
        /// Which task.
        task: TaskId,
        /// The wanted state; never lower than before.
        desired: TaskState,
        /// When it was decided.
        at: Time,
    },
    /// Record what is known of a task.
    SetStatus {
        /// Which task.
        task: TaskId,
        /// Its status.
        status: Box<TaskStatus>,
        /// When the managers learned of it.
        at: Time,
    },
    /// Forget a task.
    RemoveTask(TaskId),
    /// Let a guest onto a network, or replace what is known of it.
    PutGuest(Box<Guest>),
    /// Take guests off networks.
    RemoveGuests(Vec<(ContainerId, NetworkId)>),
    /// Let the rolling update replace these tasks of a service, though nothing about their specification changed.
    Move {
        /// The service.
        service: ServiceId,
        /// Which of its tasks.
        tasks: Vec<TaskId>,
        /// When it was decided.
        at: Time,
    },
    /// Change the number of a service's replicas because of its load. Its rolling update goes on.
    Scale {
        /// The service.
        service: ServiceId,
        /// From how many to how many, and why.
        scaled: Box<Scaled>,
    },
}

/// What a new task consists of besides its service's specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// The service; without it the change has no effect.
    pub service: ServiceId,
    /// Which instance.
    pub slot: u64,
    /// Its node, if it could be given one at once.
    pub node: Option<NodeId>,
    /// The state that it is wanted in.
    pub desired: TaskState,
    /// Its first status.
    pub status: TaskStatus,
    /// Its addresses, if it could be given some at once.
    pub attachments: Vec<Attachment>,
    /// See [`skep_types::Task::not_before`].
    pub not_before: Option<Time>,
    /// Why it was made.
    pub cause: Cause,
    /// See [`skep_types::Task::pinned`].
    #[serde(default)]
    pub pinned: Option<NodeId>,
    /// When it was made.
    pub at: Time,
    /// What it is given of its node's generic resources.
    #[serde(default)]
    pub generic: GenericResources,
}

/// Why a task was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its slot is new.
    Scale,
    /// It takes the place of a task that ended or lost its node: counts as an attempt.
    Restart,
    /// It takes the place of a task of an older specification: watched by the update.
    Update,
}

/// A move of a rolling update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStep {
    /// It began, over this many slots.
    Start {
        /// Slots that were out of date, or that an update before it was not done with.
        slots: u64,
    },
    /// A task that it made came to run at this time.
    Ran {
        /// Which task.
        task: TaskId,
    },
    /// A task that it made ended too early.
    Failed {
        /// Which task.
        task: TaskId,
    },
    /// The delay after a task that it made is over: the next slot's turn.
    Release {
        /// Which task.
        task: TaskId,
    },
    /// A task that it made has proven itself, or is gone for another reason.
    Forget {
        /// Which task.
        task: TaskId,
    },
    /// It is over, or waits for the user.
    End(UpdateStatus),
    /// A task that it made ended too early, and was one too many: the service is to go back to what it was.
    GiveUp {
        /// Which task.
        task: TaskId,
    },
}

impl UpdateStep {
    /// The task that the step is about, if it is about one.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            UpdateStep::Ran { task }
            | UpdateStep::Failed { task }
            | UpdateStep::Release { task }
            | UpdateStep::Forget { task }
            | UpdateStep::GiveUp { task } => Some(*task),
            UpdateStep::Start { .. } | UpdateStep::End(_) => None,
        }
    }
}
