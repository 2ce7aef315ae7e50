//! The rotation of the root, from its start to its end: which nodes have to renew, and when the old root goes.

use skep_cluster::{Request, RotationProgress, rotation_progress};
use skep_identity::RootName;
use skep_types::NodeId;
use skep_types::node::Node;
use skep_types::swarm::{Authority, ClusterObject};

use crate::SwarmError;
use crate::error::chain;
use crate::founding::join_token;

/// What the leader has to do next. To be asked whenever nodes or the cluster change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// No root is being rotated.
    Idle,
    /// These nodes have to renew their certificates; empty while those that would have to do not answer.
    Renew(Vec<NodeId>),
    /// All nodes stand on the new root: this makes it the only one. Refused as out of sequence when the cluster
    /// changed meanwhile; then the question is to be asked again.
    Finish(Box<Request>),
}

/// How to go on with the rotation of the root.
///
/// # Errors
/// 500 when the new root cannot be read, or the system has no randomness for new tokens.
pub(crate) fn advance<'a>(
    cluster: &ClusterObject,
    nodes: impl IntoIterator<Item = &'a Node>,
) -> Result<Advance, SwarmError> {
    let Some(rotation) = &cluster.authority.rotation else { return Ok(Advance::Idle) };
    let wanted = RootName::of(&rotation.certificate).map_err(|error| SwarmError::Internal(chain(&error)))?;
    match rotation_progress(nodes, &wanted.subject_der, &wanted.public_key_der) {
        RotationProgress::Behind { renew, .. } => Ok(Advance::Renew(renew)),
        RotationProgress::Complete => {
            let authority = Authority {
                certificate: rotation.certificate.clone(),
                key: rotation.key.clone(),
                rotation: None,
            };
            // Tokens name the root, so the old ones would lead nobody in any more.
            let (worker, manager) =
                (join_token(&authority.certificate)?, join_token(&authority.certificate)?);
            Ok(Advance::Finish(Box::new(Request::UpdateCluster {
                version: cluster.meta.version,
                spec: Box::new(cluster.spec.clone()),
                worker_token: Some(worker),
                manager_token: Some(manager),
                unlock_key: None,
                authority: Some(Box::new(authority)),
            })))
        }
    }
}
