//! Who uses a cluster-wide network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_cluster::Objects;
use skep_types::network::Network;
use skep_types::service::Service;
use skep_types::{NetworkId, NodeId, Task, TaskState};

use crate::Swarm;

/// Who uses a cluster-wide network. Nobody, where this node is no manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkUsers {
    /// The nodes that have it, with their data path addresses.
    pub nodes: BTreeMap<NodeId, String>,
    /// The services on it, by name.
    pub services: Vec<NetworkService>,
}

/// A service on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkService {
    /// Its name.
    pub name: String,
    /// Its virtual address there.
    pub virtual_ip: Option<Ipv4Addr>,
    /// Its published ports, as moby writes them there: `Target: 80, Publish: 8080`.
    pub ports: Vec<String>,
    /// Its tasks that run.
    pub tasks: Vec<NetworkTask>,
}

/// A task on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkTask {
    /// `web.1.<task id>`
    pub name: String,
    /// Its address there.
    pub address: Ipv4Addr,
    /// The data path address of its node.
    pub host: String,
}

impl Swarm {
    /// Who uses the network of this id.
    pub async fn network_users(&self, id: &str) -> NetworkUsers {
        let Ok(id) = id.parse() else { return NetworkUsers::default() };
        let read = |objects: &Objects| objects.network(id).map(|network| users(objects, network));
        self.read(read).await.ok().flatten().unwrap_or_default()
    }

    /// The ids of the cluster-wide networks that a service or a task is on. None, where this node is no manager.
    pub async fn networks_in_use(&self) -> BTreeSet<String> {
        let read = |objects: &Objects| {
            let specs = objects.services().flat_map(|service| &service.spec.task.networks);
            let attached = objects.tasks().flat_map(|task| &task.attachments);
            let used: BTreeSet<NetworkId> =
                specs.map(|it| it.network).chain(attached.map(|it| it.network)).collect();
            used.into_iter().map(|id| id.to_string()).collect()
        };
        self.read(read).await.unwrap_or_default()
    }
}

fn users(objects: &Objects, network: &Network) -> NetworkUsers {
    let mut users = NetworkUsers::default();
    let host = |task: &Task| {
        let node = objects.node(task.node?)?;
        Some((node.id, node.data_path.unwrap_or(node.address).to_string()))
    };
    let runs = |task: &&Task| task.status.state == TaskState::Running && task.desired == task.goal();
    for service in objects.services() {
        let mut tasks = Vec::new();
        for task in objects.tasks_of(service.id).filter(runs) {
            let place = task.attachments.iter().find(|attachment| attachment.network == network.id);
            if let (Some(place), Some((node, address))) = (place, host(task)) {
                tasks.push(NetworkTask {
                    name: task.container_name(),
                    address: place.address,
                    host: address.clone(),
                });
                users.nodes.insert(node, address);
            }
        }
        if !tasks.is_empty() || service.virtual_ips.iter().any(|ip| ip.network == network.id) {
            users.services.push(on_network(service, network, tasks));
        }
    }
    users.services.sort_by(|left, right| left.name.cmp(&right.name));
    users
}

fn on_network(service: &Service, network: &Network, tasks: Vec<NetworkTask>) -> NetworkService {
    let ip = service.virtual_ips.iter().find(|ip| ip.network == network.id);
    let ports = service.ingress_ports();
    NetworkService {
        name: service.spec.name.clone(),
        virtual_ip: ip.map(|ip| ip.address),
        ports: ports
            .map(|port| format!("Target: {}, Publish: {}", port.target_port, port.published_port))
            .collect(),
        tasks,
    }
}
