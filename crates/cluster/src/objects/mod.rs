//! The replicated state: every object, and every index over them.

mod change;

use serde::{Deserialize, Serialize};
use skep_types::assignment::Endpoint;
use skep_types::network::Network;
use skep_types::node::Node;
use skep_types::service::Service;
use skep_types::swarm::ClusterObject;
use skep_types::{NetworkId, NodeId, ServiceId, Task, TaskId};

pub use change::{Cause, Change, NewTask, UpdateStep};

/// Everything the managers agree on.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    applied: u64,
}

/// [`Objects`] as they are stored, without what follows from the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    applied: u64,
}

impl Objects {
    /// Position in the log of the last entry that was applied; 0 is none.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Applies a committed entry of the log. One that was applied before is ignored.
    pub fn apply(&mut self, _index: u64, _changes: &[Change]) {
        todo!()
    }

    /// What is to be stored so that the log up to [`Objects::applied`] can be forgotten.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// The objects that a snapshot was taken of.
    pub fn restore(_snapshot: Snapshot) -> Objects {
        todo!()
    }

    /// The cluster, once there is one.
    pub fn cluster(&self) -> Option<&ClusterObject> {
        todo!()
    }

    /// A node.
    pub fn node(&self, _id: NodeId) -> Option<&Node> {
        todo!()
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        [].into_iter()
    }

    /// A network.
    pub fn network(&self, _id: NetworkId) -> Option<&Network> {
        todo!()
    }

    /// A network by its name.
    pub fn network_named(&self, _name: &str) -> Option<&Network> {
        todo!()
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        [].into_iter()
    }

    /// A service.
    pub fn service(&self, _id: ServiceId) -> Option<&Service> {
        todo!()
    }

    /// A service by its name.
    pub fn service_named(&self, _name: &str) -> Option<&Service> {
        todo!()
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        [].into_iter()
    }

    /// A task.
    pub fn task(&self, _id: TaskId) -> Option<&Task> {
        todo!()
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        [].into_iter()
    }

    /// The tasks of a service, by slot, the oldest of a slot first.
    pub fn tasks_of(&self, _service: ServiceId) -> impl Iterator<Item = &Task> {
        [].into_iter()
    }

    /// The tasks given to a node, ended ones included, by id.
    pub fn tasks_on(&self, _node: NodeId) -> impl Iterator<Item = &Task> {
        [].into_iter()
    }

    /// How a service is reached; `None` for one that publishes nothing.
    pub fn endpoint(&self, _service: ServiceId) -> Option<Endpoint> {
        todo!()
    }
}
