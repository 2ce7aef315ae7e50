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
