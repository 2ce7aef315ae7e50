//! A rotation of the root from its start to its end, as nodes live through it.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use skep_cluster::Request;
use skep_identity::{Credentials, JoinToken, NodeKey, Role, RootCa, RootName, Trust};
use skep_types::node::{Node, NodeState, NodeTls};
use skep_types::swarm::{ClusterObject, ClusterSpec, Secret};
use skep_types::{ClusterId, Meta, NodeId};

use super::*;

pub(super) fn authority(root: &RootCa) -> Authority {
    Authority {
        certificate: root.certificate_pem().to_owned(),
        key: Some(Secret(root.key_pem())),
        rotation: None,
    }
}

pub(super) fn cluster(authority: Authority) -> ClusterObject {
    ClusterObject {
        id: ClusterId(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        address_pools: Vec::new(),
        subnet_prefix: 24,
        data_path_port: 4789,
        authority,
        unlock_key: None,
        worker_token: String::new(),
        manager_token: String::new(),
        network_keys: Vec::new(),
        network_keys_at: Default::default(),
    }
}

/// A manager's.
pub(super) fn credentials(root: &RootCa, cluster: &ClusterObject) -> Credentials {
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let issued = root.issue(&NodeId(1).to_string(), Role::Manager, &cluster.id.to_string(), now, hour);
    let trust = Trust::parse(root.certificate_pem()).expect("a root");
    Credentials::new(issued.expect("issued"), trust, now).expect("credentials")
}

fn told(chain: &str, roots: &str) -> NodeTls {
    let issuer = RootName::of_issuer(chain, roots).expect("one of them issued it");
    NodeTls {
        trust_root: roots.to_owned(),
        issuer_subject: issuer.subject_der,
        issuer_public_key: issuer.public_key_der,
    }
}

#[tokio::test]
async fn a_root_takes_the_place_of_another_once_all_nodes_stand_on_it() {
    let now = SystemTime::now();
    let root = RootCa::generate(now).expect("a root");
    let mut cluster = cluster(authority(&root));
    let credentials = credentials(&root, &cluster);
    let old = told(&credentials.node().chain_pem, root.certificate_pem());
    let mut nodes: Vec<Node> = (1..=3)
        .map(|id| {
            let role = NodeRole::Manager;
            let mut node = new_node(NodeId(id), role, Default::default(), Ipv4Addr::LOCALHOST.into());
            node.description.tls = old.clone();
            node.state = NodeState::Ready;
            node
        })
        .collect();
    assert_eq!(advance(&cluster, &nodes), Ok(Advance::Idle));

    let spec = ClusterSpec { force_rotate: 1, ..cluster.spec.clone() };
    let wish = Wish { spec: &spec, certificate: "", key: "" };
    let next = change(&cluster, &wish, &credentials, now).expect("a rotation").expect("it changes");
    cluster.authority = next;
    cluster.spec = spec;
    assert_eq!(cluster.authority.certificate, root.certificate_pem(), "tokens still name the old root");
    let again = Wish { spec: &cluster.spec.clone(), certificate: "", key: "" };
    assert_eq!(change(&cluster, &again, &credentials, now), Ok(None));

    nodes[2].state = NodeState::Down;
    assert_eq!(advance(&cluster, &nodes), Ok(Advance::Renew(vec![NodeId(1), NodeId(2)])));
    for index in 0..3 {
        let signer = Signer::of(&cluster, &credentials).expect("a signer");
        let key = NodeKey::generate().expect("a key");
        let csr = key.csr().expect("a request");
        let given = signer.sign(&csr, nodes[index].id, NodeRole::Manager, now).await.expect("signed");
        // Nodes that know only the old root follow.
        Trust::parse(root.certificate_pem())
            .and_then(|trust| trust.verify_own(&given.chain, now))
            .expect("the old root is enough");
        nodes[index].description.tls = told(&given.chain, &given.roots);
        if index == 1 {
            assert_eq!(advance(&cluster, &nodes), Ok(Advance::Renew(Vec::new())), "one is down");
        }
    }
    let Ok(Advance::Finish(request)) = advance(&cluster, &nodes) else { panic!("all have renewed") };
    let Request::UpdateCluster { authority, worker_token, manager_token, .. } = *request else {
        panic!("the cluster changes")
    };
    let (authority, rotation) = (authority.expect("it changes"), cluster.authority.rotation);
    let rotation = rotation.expect("one was under way");
    assert_eq!((&authority.certificate, &authority.key), (&rotation.certificate, &rotation.key));
    assert_eq!(authority.rotation, None);
    for token in [worker_token, manager_token] {
        let token: JoinToken = token.expect("a new one").parse().expect("a token");
        assert!(token.names(&authority.certificate));
    }
}

#[test]
fn nodes_trust_both_roots_while_one_takes_the_place_of_the_other() {
    let now = SystemTime::now();
    let root = RootCa::generate(now).expect("a root");
    let mut cluster = cluster(authority(&root));
    assert_eq!(roots(&cluster.authority).expect("roots"), root.certificate_pem());
    let wish =
        Wish { spec: &ClusterSpec { force_rotate: 1, ..Default::default() }, certificate: "", key: "" };
    let credentials = credentials(&root, &cluster);
    cluster.authority = change(&cluster, &wish, &credentials, now).expect("a rotation").expect("it changes");
    let rotation = cluster.authority.rotation.clone().expect("begun");
    assert_eq!(
        roots(&cluster.authority).expect("roots"),
        root.certificate_pem().to_owned() + &rotation.certificate
    );
    let shown = format!("{cluster:?} {credentials:?}");
    assert!(!shown.contains("PRIVATE"), "keys stay out of logs");
}
