//! Who is let in, and as what.

use std::net::IpAddr;

use skep_identity::JoinToken;
use skep_types::node::{Availability, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::swarm::ClusterObject;
use skep_types::{Meta, NodeId};

use crate::SwarmError;

/// The role that a join token gives.
///
/// # Errors
/// 400 in SwarmKit's words for whatever is not one of the two tokens of today: another cluster's, one that was
/// rotated away, a text that is none. Which of them it is, is not told.
pub(crate) fn admit(cluster: &ClusterObject, token: &str) -> Result<NodeRole, SwarmError> {
    let refused = || {
        let message = "A valid join token is necessary to join this cluster";
        Err(SwarmError::InvalidParameter(message.to_owned()))
    };
    let Ok(token) = token.parse::<JoinToken>() else { return refused() };
    // The time that this takes tells nothing: both are compared whole. The digest is public.
    let is = |kept: &str| kept.parse::<JoinToken>().is_ok_and(|kept| kept.is_same(&token));
    match (is(&cluster.manager_token), is(&cluster.worker_token)) {
        (true, _) => Ok(NodeRole::Manager),
        (false, true) => Ok(NodeRole::Worker),
        (false, false) => refused(),
    }
}

/// A node that is let in, for [`skep_cluster::Request::AddNode`]. It tells of itself once its agent's session opens.
pub(crate) fn new_node(id: NodeId, role: NodeRole, availability: Availability, address: IpAddr) -> Node {
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec { name: String::new(), labels: Default::default(), role, availability },
        description: NodeDescription::default(),
        state: NodeState::Unknown,
        message: String::new(),
        address,
        manager: None,
        data_path: None,
        ingress_address: None,
        down_since: None,
    }
}

#[cfg(test)]
mod tests {
    use skep_types::swarm::Authority;

    use super::super::tests;
    use super::*;

    fn cluster() -> ClusterObject {
        ClusterObject {
            worker_token: JoinToken::new("root", [1; 16]).to_string(),
            manager_token: JoinToken::new("root", [2; 16]).to_string(),
            network_keys: Vec::new(),
            network_keys_at: Default::default(),
            ..tests::cluster(Authority::default())
        }
    }

    #[test]
    fn a_token_gives_its_role_and_nothing_else_gives_any() {
        let cluster = cluster();
        assert_eq!(admit(&cluster, &cluster.worker_token), Ok(NodeRole::Worker));
        assert_eq!(admit(&cluster, &cluster.manager_token), Ok(NodeRole::Manager));
        let cut = &cluster.manager_token[..cluster.manager_token.len() - 1];
        let rotated = JoinToken::new("root", [3; 16]).to_string();
        let of_another_cluster = JoinToken::new("another root", [2; 16]).to_string();
        for token in
            ["", "SWMTKN-1-", cut, &rotated, &of_another_cluster, &cluster.worker_token.to_uppercase()]
        {
            let told = admit(&cluster, token).expect_err("nobody is let in").to_string();
            assert_eq!(told, "A valid join token is necessary to join this cluster");
        }
    }

    #[test]
    fn a_cluster_without_tokens_lets_nobody_in() {
        let closed = ClusterObject { worker_token: String::new(), manager_token: String::new(), ..cluster() };
        assert!(admit(&closed, "").is_err());
    }
}
