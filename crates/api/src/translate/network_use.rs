//! Who uses a network of the cluster, as `docker network inspect` shows it.

use std::collections::BTreeMap;

use bollard_stubs::models;
use skep_swarm::NetworkUsers;

use super::network::{ServiceInfo, ServiceTask};

/// The nodes that have it.
pub fn peers(users: &NetworkUsers) -> Vec<models::PeerInfo> {
    let peer = |(node, address): (&_, &String)| models::PeerInfo {
        // Moby's name of a peer: twelve digits that nobody reads.
        name: Some(skep_types::NodeId::to_string(node).chars().take(12).collect()),
        ip: Some(address.clone()),
    };
    users.nodes.iter().map(peer).collect()
}

/// The services on it, by name.
pub fn services(users: &NetworkUsers) -> BTreeMap<String, ServiceInfo> {
    let service = |user: &skep_swarm::NetworkService| {
        let task = |task: &skep_swarm::NetworkTask| ServiceTask {
            name: task.name.clone(),
            endpoint_id: String::new(),
            endpoint_ip: task.address.to_string(),
            info: BTreeMap::from([("Host IP".to_owned(), task.host.clone())]),
        };
        let info = ServiceInfo {
            vip: user.virtual_ip.map_or_else(String::new, |address| address.to_string()),
            ports: user.ports.clone(),
            local_lb_index: 0,
            tasks: user.tasks.iter().map(task).collect(),
        };
        (user.name.clone(), info)
    };
    users.services.iter().map(service).collect()
}
