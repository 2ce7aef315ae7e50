//! How the cluster begins, and how nodes join it.

use std::time::Duration;

use skep_cluster::Request;
use skep_types::ClusterId;
use skep_types::node::{Availability, Member, Node, NodeRole, NodeSpec, NodeState};
use skep_types::swarm::{ClusterObject, ClusterSpec, DATA_PATH_PORT};

use super::{Happening, Verdict, World, address};

/// Long enough for any founding entry to be durable.
const PAUSE: Duration = Duration::from_millis(300);

impl World {
    /// The first node founds the cluster, the others join, and all open their sessions.
    pub(super) fn found(&mut self) -> Verdict {
        let Some(leader) = self.consensus.leader.filter(|leader| self.is_confirmed(*leader)) else {
            self.after(100, 200, Happening::Found);
            return Ok(());
        };
        let cluster = ClusterObject {
            id: ClusterId(1),
            meta: skep_types::Meta::default(),
            spec: ClusterSpec::default(),
            address_pools: vec!["10.0.0.0/8".parse().expect("a subnet")],
            // Few addresses, so that they run out now and then.
            subnet_prefix: if self.is_small() { 26 } else { 16 },
            data_path_port: DATA_PATH_PORT,
            authority: Default::default(),
            unlock_key: None,
            worker_token: "worker".to_owned(),
            manager_token: "manager".to_owned(),
            network_keys: Vec::new(),
            network_keys_at: Default::default(),
        };
        let node = Box::new(self.newcomer(leader));
        self.ask(leader, Request::CreateCluster { cluster: Box::new(cluster), node })?;
        for number in (0..self.machines.len()).filter(|number| *number != leader) {
            self.join(number)?;
        }
        for node in 0..self.machines.len() {
            self.at(self.now + PAUSE, Happening::Reconnect { node });
        }
        Ok(())
    }

    /// Lets a node in.
    pub(super) fn join(&mut self, number: usize) -> Verdict {
        let node = Box::new(self.newcomer(number));
        self.ask_leader(Request::AddNode(node))
    }

    fn newcomer(&mut self, number: usize) -> Node {
        let manages = self.is_manager(number);
        Node {
            id: self.machine(number).id,
            meta: skep_types::Meta::default(),
            spec: NodeSpec {
                name: String::new(),
                labels: Default::default(),
                role: if manages { NodeRole::Manager } else { NodeRole::Worker },
                availability: Availability::Active,
            },
            description: self.description(number),
            state: NodeState::Unknown,
            message: String::new(),
            address: address(number),
            manager: manages.then(|| self.member(number)),
            data_path: None,
            ingress_address: None,
            down_since: None,
        }
    }

    /// The seat of a machine among the managers. One that takes a seat again takes another.
    pub(super) fn member(&self, number: usize) -> Member {
        let life = self.managers.get(&number).map_or(0, |manager| manager.seat);
        Member { raft: life, address: format!("{}:2377", address(number)) }
    }
}
