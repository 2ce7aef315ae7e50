//! The replicated state: every object, and every index over them.

mod apply;
mod change;
mod index;
mod numbers;
mod peers;
mod presence;
mod rollout;
mod snapshot;
mod touched;
mod updating;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_types::assignment::{Endpoint, EndpointPort};
use skep_types::network::{Guest, Network};
use skep_types::node::Node;
use skep_types::port::Protocol;
use skep_types::service::Service;
use skep_types::swarm::ClusterObject;
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, Task, TaskId, Version};

pub use change::{Cause, Change, NewTask, UpdateStep};
pub(crate) use index::{Group, Index, Load, Slots, is_live, is_wanted, representative, takes_tasks};
pub(crate) use numbers::Numbers;
pub(crate) use peers::Place;
pub use rollout::{Failures, RestartHistory, Rollout, Watch};
pub use snapshot::{RestoreError, Snapshot};
pub(crate) use touched::Touched;

/// Everything the managers agree on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    applied: u64,
    cluster: Option<ClusterObject>,
    nodes: BTreeMap<NodeId, Node>,
    networks: BTreeMap<NetworkId, Network>,
    services: BTreeMap<ServiceId, Service>,
    /// In boxes: they are large, and the map moves what it holds about.
    tasks: BTreeMap<TaskId, Box<Task>>,
    rollouts: BTreeMap<ServiceId, Rollout>,
    restarts: BTreeMap<(ServiceId, u64), RestartHistory>,
    failures: BTreeMap<ServiceId, Failures>,
    /// The address of each network that was given last: the search for the next one goes on after it, under a
    /// new leader too, so that an address rests as long as possible before it is given again.
    last_given: BTreeMap<NetworkId, Ipv4Addr>,
    /// The VXLAN identifier that was given last, of those that the managers choose.
    last_vni: Option<u32>,
    /// Containers that are no tasks, on attachable networks.
    guests: BTreeMap<(ContainerId, NetworkId), Guest>,
    index: Index,
}

impl Objects {
    /// Position in the log of the last entry that was applied; 0 is none.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The cluster, once there is one.
    pub fn cluster(&self) -> Option<&ClusterObject> {
        self.cluster.as_ref()
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A network.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// A network by its name.
    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.networks.get(self.index.network_names.get(name)?)
    }

    /// The network that carries the routing mesh.
    pub fn ingress(&self) -> Option<&Network> {
        self.networks.get(&self.index.ingress?)
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// A service.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id)
    }

    /// A service by its name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.get(self.index.service_names.get(name)?)
    }

    /// The service that holds a published port.
    pub fn service_at_port(&self, protocol: Protocol, published_port: u16) -> Option<&Service> {
        self.services.get(self.index.ports.get(&(protocol, published_port))?)
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Services whose load decides how many replicas they have: agents are to measure their tasks.
    pub fn autoscaled(&self) -> &BTreeSet<ServiceId> {
        &self.index.autoscaled
    }

    /// A task.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id).map(Box::as_ref)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(Box::as_ref)
    }

    /// The tasks of a service, by slot, the oldest of a slot first.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Task> {
        let slots = self.index.tasks_of_slot.range((service, 0)..=(service, u64::MAX));
        slots.flat_map(|(_, ids)| ids).filter_map(|id| self.task(*id))
    }

    /// The tasks of one slot, the oldest first.
    pub fn tasks_of_slot(
        &self,
        service: ServiceId,
        slot: u64,
    ) -> impl DoubleEndedIterator<Item = &Task> + Clone {
        let ids = self.index.tasks_of_slot.get(&(service, slot)).map_or([].as_slice(), Vec::as_slice);
        ids.iter().filter_map(|id| self.task(*id))
    }

    /// The tasks given to a node, ended ones included, by id.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &Task> {
        self.index.tasks_of_node.get(&node).into_iter().flatten().filter_map(|id| self.task(*id))
    }

    /// A service's rolling update, while one is under way.
    pub fn rollout(&self, service: ServiceId) -> Option<&Rollout> {
        self.rollouts.get(&service)
    }

    /// The restarts of a slot, where its policy bounds them.
    pub fn restart_history(&self, service: ServiceId, slot: u64) -> Option<&RestartHistory> {
        self.restarts.get(&(service, slot))
    }

    /// Where tasks of a service's specification failed of late.
    pub(crate) fn failures_of(&self, service: ServiceId, version: Version) -> Option<&Failures> {
        self.failures.get(&service).filter(|failures| failures.spec_version == version)
    }

    pub(crate) fn last_given(&self, network: NetworkId) -> Option<Ipv4Addr> {
        self.last_given.get(&network).copied()
    }

    pub(crate) fn last_vni(&self) -> Option<u32> {
        self.last_vni
    }

    /// How a service is reached; `None` for one that publishes nothing on every node.
    pub fn endpoint(&self, id: ServiceId) -> Option<Endpoint> {
        let service = self.services.get(&id).filter(|service| service.ingress_ports().next().is_some())?;
        let ports = service.ingress_ports().map(|port| EndpointPort {
            protocol: port.protocol,
            published_port: port.published_port,
            target_port: port.target_port,
            address: port.address,
        });
        let backends = self.index.ingress.and_then(|ingress| self.index.backends.get(&(id, ingress)));
        let backends = backends.into_iter().flat_map(BTreeMap::values);
        Some(Endpoint {
            service: id,
            name: service.spec.name.clone(),
            ports: ports.collect(),
            backends: backends.copied().collect::<Vec<Ipv4Addr>>(),
        })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Every index, computed from the objects alone, for [`crate::check`].
    pub(crate) fn rebuilt_index(&self) -> Index {
        let mut rebuilt = Objects { index: Index::default(), ..self.clone() };
        // The order of a slot's tasks is the one thing that the objects do not say.
        rebuilt.index.tasks_of_slot = self.index.tasks_of_slot.clone();
        rebuilt.index_all();
        rebuilt.index
    }
}
