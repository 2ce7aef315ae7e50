//! How the managers stand, as `docker node ls` and `docker node inspect` show it.

use std::collections::BTreeSet;

use skep_types::node::Node;

/// A node, and how it stands as a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The node.
    pub node: Node,
    /// How it stands, while it has a seat among the managers.
    pub manager: Option<ManagerStatus>,
}

/// How a manager stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerStatus {
    /// Whether it leads.
    pub leads: bool,
    /// Whether the leader reaches it.
    pub reachability: Reachability,
    /// `address:port` that other managers reach it at.
    pub address: String,
}

/// Whether the leader reaches a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Nobody knows.
    Unknown,
    /// It does not answer the leader.
    Unreachable,
    /// It answers.
    Reachable,
}

/// What the leader said of the managers when it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Managers {
    /// The leader's name in the consensus.
    pub(crate) leader: Option<u64>,
    /// Those that it reaches; `None` where it was not asked.
    pub(crate) reachable: Option<BTreeSet<u64>>,
}

impl Managers {
    /// The node with its standing.
    pub(crate) fn view(&self, node: &Node) -> NodeView {
        let manager = node.manager.as_ref().map(|member| ManagerStatus {
            leads: self.leader == Some(member.raft),
            reachability: match &self.reachable {
                None => Reachability::Unknown,
                Some(reachable) if reachable.contains(&member.raft) => Reachability::Reachable,
                Some(_) => Reachability::Unreachable,
            },
            address: member.address.clone(),
        });
        NodeView { node: node.clone(), manager }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use skep_types::node::{Member, NodeDescription, NodeRole, NodeSpec, NodeState};
    use skep_types::{Meta, NodeId};

    use super::*;

    /// A node that is to be a manager, with or without a seat.
    pub(crate) fn manager(seat: Option<Member>) -> Node {
        let spec = NodeSpec {
            name: String::new(),
            labels: BTreeMap::new(),
            role: NodeRole::Manager,
            availability: Default::default(),
        };
        Node {
            id: NodeId(1),
            meta: Meta::default(),
            spec,
            description: NodeDescription::default(),
            state: NodeState::Ready,
            message: String::new(),
            address: [192, 0, 2, 1].into(),
            manager: seat,
            data_path: None,
            ingress_address: None,
            down_since: None,
        }
    }

    fn status(raft: Option<u64>, managers: &Managers) -> Option<(bool, Reachability)> {
        let seat = raft.map(|raft| Member { raft, address: "192.0.2.1:2377".to_owned() });
        managers.view(&manager(seat)).manager.map(|status| (status.leads, status.reachability))
    }

    #[test]
    fn a_manager_stands_as_the_leader_says() {
        let managers = Managers { leader: Some(1), reachable: Some(BTreeSet::from([1, 2])) };
        assert_eq!(status(Some(1), &managers), Some((true, Reachability::Reachable)));
        assert_eq!(status(Some(2), &managers), Some((false, Reachability::Reachable)));
        assert_eq!(status(Some(3), &managers), Some((false, Reachability::Unreachable)));
        assert_eq!(status(None, &managers), None);
        assert_eq!(status(Some(3), &Managers::default()), Some((false, Reachability::Unknown)));
    }
}
