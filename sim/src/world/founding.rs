//! How the cluster begins.

use std::time::Duration;

use skep_cluster::Request;
use skep_types::ClusterId;
use skep_types::node::{Availability, Node, NodeRole, NodeSpec, NodeState};
use skep_types::swarm::{ClusterObject, ClusterSpec, DATA_PATH_PORT};

use super::{Happening, Verdict, World, address};

/// Long enough for any founding entry to be durable.
const PAUSE: Duration = Duration::from_millis(50);

impl World {
    /// The first node founds the cluster, the others join, and all open their sessions.
    pub(super) fn found(&mut self) -> Verdict {
        let cluster = ClusterObject {
            id: ClusterId(1),
            meta: skep_types::Meta::default(),
            spec: ClusterSpec::default(),
            address_pools: vec!["10.0.0.0/8".parse().expect("a subnet")],
            // Few addresses, so that they run out now and then.
            subnet_prefix: 26,
            data_path_port: DATA_PATH_PORT,
            authority: Default::default(),
            unlock_key: None,
            worker_token: "worker".to_owned(),
            manager_token: "manager".to_owned(),
        };
        let node = Box::new(self.newcomer(0, NodeRole::Manager));
        self.ask(Request::CreateCluster { cluster: Box::new(cluster), node })?;
        for number in 1..self.machines.len() {
            let node = Box::new(self.newcomer(number, NodeRole::Worker));
            self.ask(Request::AddNode(node))?;
        }
        for node in 0..self.machines.len() {
            self.at(self.now + PAUSE, Happening::Reconnect { node });
        }
        Ok(())
    }

    fn newcomer(&mut self, number: usize, role: NodeRole) -> Node {
        Node {
            id: self.machine(number).id,
            meta: skep_types::Meta::default(),
            spec: NodeSpec {
                name: String::new(),
                labels: Default::default(),
                role,
                availability: Availability::Active,
            },
            description: self.description(number),
            state: NodeState::Unknown,
            message: String::new(),
            address: address(number),
            manager: None,
            data_path: None,
            ingress_address: None,
        }
    }
}
