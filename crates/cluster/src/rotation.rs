//! How far the rotation of the cluster's root is.

use skep_types::NodeId;
use skep_types::node::{Node, NodeState};

/// What the nodes still have to do until the old root can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationProgress {
    /// Nodes whose certificates stand on another root than the wanted one.
    Behind {
        /// Those that answer and should renew now: some at a time.
        renew: Vec<NodeId>,
        /// All of them, whether they answer or not.
        count: usize,
    },
    /// All nodes stand on the wanted root.
    Complete,
}

/// Most nodes that are told to renew at once. SwarmKit's `IssuanceStateRotateMaxBatchSize`.
const MAX_RENEWALS: usize = 30;

/// How far the nodes are on their way to an issuer, named as their certificates name it.
///
/// As SwarmKit's reconciler: a node that is down holds the rotation up, because it would be cut off; whoever does
/// not expect it back removes it.
pub fn rotation_progress<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    issuer_subject: &[u8],
    issuer_public_key: &[u8],
) -> RotationProgress {
    let stands_on_it = |node: &Node| {
        let tls = &node.description.tls;
        tls.issuer_subject == issuer_subject && tls.issuer_public_key == issuer_public_key
    };
    let behind: Vec<&Node> = nodes.into_iter().filter(|node| !stands_on_it(node)).collect();
    if behind.is_empty() {
        return RotationProgress::Complete;
    }
    let answering = behind.iter().filter(|node| node.state == NodeState::Ready);
    RotationProgress::Behind {
        renew: answering.take(MAX_RENEWALS).map(|node| node.id).collect(),
        count: behind.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use skep_types::Meta;
    use skep_types::node::{NodeDescription, NodeRole, NodeSpec, NodeTls};

    use super::*;

    fn node(id: u128, state: NodeState, key: &[u8]) -> Node {
        let tls = NodeTls {
            trust_root: String::new(),
            issuer_subject: b"root".to_vec(),
            issuer_public_key: key.to_vec(),
        };
        Node {
            id: NodeId(id),
            meta: Meta::default(),
            spec: NodeSpec {
                name: String::new(),
                labels: Default::default(),
                role: NodeRole::Worker,
                availability: Default::default(),
            },
            description: NodeDescription { tls, ..Default::default() },
            state,
            message: String::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            manager: None,
            data_path: None,
            ingress_address: None,
            down_since: None,
        }
    }

    fn progress(nodes: &[Node]) -> RotationProgress {
        rotation_progress(nodes, b"root", b"new")
    }

    #[test]
    fn nodes_on_another_issuer_are_behind_and_those_that_answer_renew() {
        let nodes = [
            node(1, NodeState::Ready, b"old"),
            node(2, NodeState::Ready, b"new"),
            node(3, NodeState::Down, b"old"),
            node(4, NodeState::Unknown, b""),
        ];
        let expected = RotationProgress::Behind { renew: vec![NodeId(1)], count: 3 };
        assert_eq!(progress(&nodes), expected);
        assert_eq!(progress(&nodes[1..2]), RotationProgress::Complete);
        assert_eq!(
            rotation_progress(&nodes[1..2], b"other", b"new"),
            RotationProgress::Behind { renew: vec![NodeId(2)], count: 1 }
        );
    }

    #[test]
    fn nodes_do_not_all_renew_at_once() {
        let nodes: Vec<Node> = (0..100).map(|id| node(id, NodeState::Ready, b"old")).collect();
        let RotationProgress::Behind { renew, count } = progress(&nodes) else { panic!("all are behind") };
        assert_eq!((renew.len(), count), (MAX_RENEWALS, 100));
    }
}
