//! The objects as they are stored.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_types::generic::GenericResources;
use skep_types::network::{Guest, Network};
use skep_types::node::Node;
use skep_types::service::{PortSpec, Service, TaskSpec};
use skep_types::swarm::ClusterObject;
use skep_types::task::Attachment;
use skep_types::{Meta, NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Time, Version};

use super::{Failures, Index, Objects, RestartHistory, Rollout};

/// [`Objects`] without what follows from the rest. A specification is stored once, not with each task.
///
/// Stored snapshots outlive this version of the program: fields are only ever added, with
/// `#[serde(default)]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    applied: u64,
    cluster: Option<ClusterObject>,
    nodes: Vec<Node>,
    networks: Vec<Network>,
    services: Vec<Service>,
    specs: Vec<Arc<TaskSpec>>,
    tasks: Vec<StoredTask>,
    rollouts: Vec<(ServiceId, Rollout)>,
    restarts: Vec<((ServiceId, u64), RestartHistory)>,
    #[serde(default)]
    failures: Vec<(ServiceId, Failures)>,
    #[serde(default)]
    last_given: Vec<(NetworkId, Ipv4Addr)>,
    #[serde(default)]
    last_vni: Option<u32>,
    #[serde(default)]
    guests: Vec<Guest>,
}

/// A [`Task`] whose specification is named by its place in [`Snapshot::specs`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredTask {
    id: TaskId,
    meta: Meta,
    service: ServiceId,
    slot: u64,
    node: Option<NodeId>,
    spec: usize,
    spec_version: Version,
    service_name: String,
    #[serde(default)]
    service_labels: BTreeMap<String, String>,
    desired: TaskState,
    status: TaskStatus,
    attachments: Vec<Attachment>,
    not_before: Option<Time>,
    #[serde(default)]
    host_ports: Vec<PortSpec>,
    #[serde(default)]
    generic: GenericResources,
    #[serde(default)]
    pinned: Option<NodeId>,
    #[serde(default)]
    iteration: Option<u64>,
    #[serde(default)]
    moves: bool,
}

/// A snapshot that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the snapshot of the cluster's objects is damaged: task {task} names a specification that is not in it"
)]
pub struct RestoreError {
    task: TaskId,
}

impl Objects {
    /// What is to be stored so that the log up to [`Objects::applied`] can be forgotten.
    pub fn snapshot(&self) -> Snapshot {
        let mut specs: Vec<Arc<TaskSpec>> = Vec::new();
        let mut places: BTreeMap<(ServiceId, Version), usize> = BTreeMap::new();
        // By slot and age, since the order within a slot is stored nowhere else.
        let ids = self.index.tasks_of_slot.values().flatten();
        let tasks = ids.filter_map(|id| self.task(*id)).map(|task| {
            let place = places.entry((task.service, task.spec_version)).or_insert_with(|| {
                specs.push(Arc::clone(&task.spec));
                specs.len() - 1
            });
            StoredTask {
                id: task.id,
                meta: task.meta,
                service: task.service,
                slot: task.slot,
                node: task.node,
                spec: *place,
                spec_version: task.spec_version,
                service_name: task.service_name.clone(),
                service_labels: task.service_labels.clone(),
                desired: task.desired,
                status: task.status.clone(),
                attachments: task.attachments.clone(),
                not_before: task.not_before,
                host_ports: task.host_ports.clone(),
                generic: task.generic.clone(),
                pinned: task.pinned,
                iteration: task.iteration,
                moves: task.moves,
            }
        });
        let tasks = tasks.collect();
        Snapshot {
            applied: self.applied,
            cluster: self.cluster.clone(),
            nodes: self.nodes.values().cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            specs,
            tasks,
            rollouts: self.rollouts.iter().map(|(id, rollout)| (*id, rollout.clone())).collect(),
            restarts: self.restarts.iter().map(|(key, history)| (*key, history.clone())).collect(),
            failures: self.failures.iter().map(|(id, failures)| (*id, failures.clone())).collect(),
            last_given: self.last_given.iter().map(|(network, address)| (*network, *address)).collect(),
            last_vni: self.last_vni,
            guests: self.guests.values().cloned().collect(),
        }
    }

    /// The objects that a snapshot was taken of.
    pub fn restore(snapshot: Snapshot) -> Result<Objects, RestoreError> {
        let mut objects = Objects {
            applied: snapshot.applied,
            cluster: snapshot.cluster,
            nodes: snapshot.nodes.into_iter().map(|node| (node.id, node)).collect(),
            networks: snapshot.networks.into_iter().map(|network| (network.id, network)).collect(),
            services: snapshot.services.into_iter().map(|service| (service.id, service)).collect(),
            tasks: BTreeMap::new(),
            rollouts: snapshot.rollouts.into_iter().collect(),
            restarts: snapshot.restarts.into_iter().collect(),
            failures: snapshot.failures.into_iter().collect(),
            last_given: snapshot.last_given.into_iter().collect(),
            last_vni: snapshot.last_vni,
            guests: snapshot.guests.into_iter().map(|it| ((it.container, it.network), it)).collect(),
            index: Index::default(),
        };
        for stored in snapshot.tasks {
            let task = restore_task(stored, &snapshot.specs, &objects)?;
            objects.enter_slot(&task);
            objects.tasks.insert(task.id, Box::new(task));
        }
        objects.index_all();
        Ok(objects)
    }
}

fn restore_task(
    stored: StoredTask,
    specs: &[Arc<TaskSpec>],
    objects: &Objects,
) -> Result<Task, RestoreError> {
    let spec = specs.get(stored.spec).ok_or(RestoreError { task: stored.id })?;
    // Share the service's copy again where the task is of its present specification.
    let current = objects.services.get(&stored.service);
    let shared = current.filter(|service| service.spec_version == stored.spec_version);
    Ok(Task {
        id: stored.id,
        meta: stored.meta,
        service: stored.service,
        slot: stored.slot,
        node: stored.node,
        spec: Arc::clone(shared.map_or(spec, |service| &service.spec.task)),
        spec_version: stored.spec_version,
        service_name: stored.service_name,
        service_labels: stored.service_labels,
        desired: stored.desired,
        status: stored.status,
        attachments: stored.attachments,
        not_before: stored.not_before,
        host_ports: stored.host_ports,
        generic: stored.generic,
        pinned: stored.pinned,
        iteration: stored.iteration,
        moves: stored.moves,
    })
}
