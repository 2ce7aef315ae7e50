//! The handle that the API holds: always present, inactive until a swarm is founded.

use skep_engine::Engine;
use skep_types::events::Event;
use skep_types::network::Network;
use skep_types::node::{Node, NodeSpec};
use skep_types::service::{Service, ServiceSpec};
use skep_types::swarm::ClusterObject;
use skep_types::{NodeId, ServiceId, Task, Time, Version};
use tokio::sync::broadcast;

use crate::{ClusterUpdate, InitRequest, SwarmConfig, SwarmError, SwarmInfo};

/// This node's place in a swarm. Clones share it.
#[derive(Clone)]
pub struct Swarm {
    _private: (),
}

/// Events of the swarm's scope.
pub struct EventSubscription {
    /// Events already past, oldest first, from the asked time on (bounded: the last 256).
    pub past: Vec<Event>,
    /// Events from now on.
    pub future: broadcast::Receiver<Event>,
}

impl Swarm {
    /// Opens the node's state; a node that was in a swarm resumes by itself.
    pub async fn open(config: SwarmConfig, engine: Engine) -> Result<Swarm, SwarmError> {
        let _ = (config, engine);
        todo!()
    }

    /// Founds a swarm of this one node. Returns once the first objects are durable.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, SwarmError> {
        let _ = request;
        todo!()
    }

    /// Leaves the swarm: stops and removes all task containers, forgets all state. The last manager
    /// leaves only with `force`.
    pub async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        let _ = force;
        todo!()
    }

    /// Stops the actors. Containers go on running; [`Swarm::open`] takes them on again.
    pub async fn shutdown(&self) {
        todo!()
    }

    /// The `Swarm` part of `docker info`. Never fails.
    pub fn info(&self) -> SwarmInfo {
        todo!()
    }

    /// The cluster with its join tokens.
    pub fn inspect(&self) -> Result<ClusterObject, SwarmError> {
        todo!()
    }

    /// Changes the cluster's settings, rotates join tokens.
    pub async fn update_cluster(&self, update: ClusterUpdate) -> Result<(), SwarmError> {
        let _ = update;
        todo!()
    }

    /// All services, ordered by id.
    pub fn services(&self) -> Result<Vec<Service>, SwarmError> {
        todo!()
    }

    /// The service with this id, name or unique id prefix.
    pub fn service(&self, name: &str) -> Result<Service, SwarmError> {
        let _ = name;
        todo!()
    }

    /// Creates a service; returns once it is durable.
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, SwarmError> {
        let _ = spec;
        todo!()
    }

    /// Replaces the specification of the service with this id, name or unique id prefix.
    pub async fn update_service(
        &self,
        name: &str,
        version: Version,
        spec: ServiceSpec,
    ) -> Result<(), SwarmError> {
        let _ = (name, version, spec);
        todo!()
    }

    /// Removes the service with this id, name or unique id prefix.
    pub async fn remove_service(&self, name: &str) -> Result<(), SwarmError> {
        let _ = name;
        todo!()
    }

    /// All tasks, ordered by id.
    pub fn tasks(&self) -> Result<Vec<Task>, SwarmError> {
        todo!()
    }

    /// The task with this id, name (`service.slot.id`) or unique id prefix.
    pub fn task(&self, name: &str) -> Result<Task, SwarmError> {
        let _ = name;
        todo!()
    }

    /// All nodes, ordered by id.
    pub fn nodes(&self) -> Result<Vec<Node>, SwarmError> {
        todo!()
    }

    /// The node with this id, host name or unique id prefix; `self` is this node.
    pub fn node(&self, name: &str) -> Result<Node, SwarmError> {
        let _ = name;
        todo!()
    }

    /// Changes what the user wants of the node with this id, host name or unique id prefix.
    pub async fn update_node(&self, name: &str, version: Version, spec: NodeSpec) -> Result<(), SwarmError> {
        let _ = (name, version, spec);
        todo!()
    }

    /// The cluster-wide networks, ordered by id; none outside a swarm.
    pub fn networks(&self) -> Vec<Network> {
        todo!()
    }

    /// Events of the swarm's scope: those since `since` that are still remembered, and those to come.
    pub fn events(&self, since: Option<Time>) -> EventSubscription {
        let _ = since;
        todo!()
    }
}
