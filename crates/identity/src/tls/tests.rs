//! Handshakes between two configurations, in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::time::Duration;

use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::{JoinToken, NodeKey, RootCa, verify_root};

const HOUR: Duration = Duration::from_secs(3600);

fn issued(root: &RootCa, node: &str, role: Role, cluster: &str, now: SystemTime) -> NodeCertificate {
    root.issue(node, role, cluster, now, HOUR).unwrap()
}

fn trust(roots: &[&RootCa]) -> Trust {
    let pem: String = roots.iter().map(|root| root.certificate_pem()).collect();
    Trust::parse(&pem).unwrap()
}

fn credentials(root: &RootCa, node: &str, role: Role, cluster: &str) -> Credentials {
    let now = SystemTime::now();
    Credentials::new(issued(root, node, role, cluster, now), trust(&[root]), now).unwrap()
}

/// Runs the handshake: whom the server sees, or what the one that refused says.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Option<Identity>, String> {
    let name = ServerName::try_from("192.0.2.1").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let text = |error: Error| handshake_failure(&io::Error::other(error));
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(text)?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(text)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "ten rounds are enough");
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(PROTOCOL));
    Ok(server.peer_certificates().map(|shown| peer_identity(&shown[0]).unwrap()))
}

fn root() -> RootCa {
    RootCa::generate(SystemTime::now()).unwrap()
}

#[test]
fn nodes_of_one_cluster_know_each_other() {
    let root = root();
    let manager = credentials(&root, "m", Role::Manager, "c");
    for role in [Role::Worker, Role::Manager] {
        let node = credentials(&root, "n", role, "c");
        let seen = shake(&node.client_config(), &manager.server_config()).unwrap().unwrap();
        assert_eq!(seen, Identity { node: "n".to_owned(), role, cluster: "c".to_owned() });
    }
}

#[test]
fn a_machine_without_a_certificate_may_fetch_the_root_and_join() {
    let root = root();
    let manager = credentials(&root, "m", Role::Manager, "c");
    let token = JoinToken::new(root.certificate_pem(), [1; 16]);
    assert_eq!(shake(&unverified_client_config().unwrap(), &manager.server_config()), Ok(None));
    let trust = verify_root(&token, manager.trust().pem()).unwrap();
    assert_eq!(shake(&join_client_config(&trust).unwrap(), &manager.server_config()), Ok(None));
}

#[test]
fn a_root_that_the_token_does_not_name_is_found_out_before_the_secret_is_sent() {
    let (root, other) = (root(), self::root());
    let token = JoinToken::new(root.certificate_pem(), [1; 16]);
    let bundle = root.certificate_pem().to_owned() + other.certificate_pem();
    for liar in [other.certificate_pem(), bundle.as_str(), ""] {
        let error = verify_root(&token, liar).unwrap_err().to_string();
        assert!(error.starts_with("remote CA does not match fingerprint. Expected: "), "{error}");
    }
    let liar = credentials(&other, "m", Role::Manager, "c");
    let verified = join_client_config(&trust(&[&root])).unwrap();
    let error = shake(&verified, &liar.server_config()).unwrap_err();
    assert!(error.contains("not issued by this cluster's authority"), "{error}");
}

#[test]
fn whoever_is_no_manager_of_the_cluster_is_refused_as_one() {
    let root = root();
    let node = credentials(&root, "n", Role::Manager, "c");
    let stranger = RootCa::generate(SystemTime::now()).unwrap();
    let cases = [
        (credentials(&root, "w", Role::Worker, "c"), "it is for a swarm-worker, not a swarm-manager"),
        (credentials(&root, "m", Role::Manager, "other"), "it is for cluster other, not c"),
        (credentials(&stranger, "m", Role::Manager, "c"), "not issued by this cluster's authority"),
    ];
    for (peer, why) in cases {
        let error = shake(&node.client_config(), &peer.server_config()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn strangers_are_refused_as_clients() {
    let root = root();
    let manager = credentials(&root, "m", Role::Manager, "c");
    let stranger = RootCa::generate(SystemTime::now()).unwrap();
    let trusting =
        |node: NodeCertificate| Credentials::unverified(node, trust(&[&root])).unwrap().client_config();
    let now = SystemTime::now();
    let cases = [
        (issued(&root, "w", Role::Worker, "other", now), "it is for cluster"),
        (issued(&stranger, "m", Role::Manager, "c", now), "not issued by this cluster's authority"),
        (issued(&root, "w", Role::Worker, "c", now - 10 * HOUR), "certificate expired"),
        (issued(&root, "w", Role::Worker, "c", now + 10 * HOUR), "certificate not valid yet"),
    ];
    for (node, why) in cases {
        let cluster = node.identity().unwrap().cluster;
        // A client of another cluster still trusts this server's root: let it not be what refuses.
        let client = match cluster.as_str() {
            "c" => trusting(node),
            _ => {
                let config = super::client(
                    Arc::new(NoVerifier),
                    Some((chain(&node.chain_pem).unwrap(), private_key(&node).unwrap())),
                );
                Arc::new(config.unwrap())
            }
        };
        let error = shake(&client, &manager.server_config()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_manager_whose_certificate_does_not_hold_now_is_refused() {
    let root = root();
    let node = credentials(&root, "n", Role::Worker, "c");
    let now = SystemTime::now();
    for (then, why) in [(now - 10 * HOUR, "certificate expired"), (now + 10 * HOUR, "not valid yet")] {
        let peer = issued(&root, "m", Role::Manager, "c", then);
        let error = Credentials::new(peer.clone(), trust(&[&root]), now).unwrap_err().to_string();
        assert!(error.contains("certificate (m) not valid"), "{error}");
        let peer = Credentials::unverified(peer, trust(&[&root])).unwrap();
        let error = shake(&node.client_config(), &peer.server_config()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_change_holds_for_new_connections_and_only_of_the_same_node() {
    let now = SystemTime::now();
    let (root, new) = (root(), self::root());
    let node = credentials(&root, "n", Role::Worker, "c");
    let clone = node.clone();
    let promoted = issued(&root, "n", Role::Manager, "c", now);
    node.replace(promoted, trust(&[&root]), now).unwrap();
    assert_eq!(clone.identity().role, Role::Manager);
    assert!(shake(&clone.client_config(), &node.server_config()).is_ok());

    let refused = [
        (issued(&root, "x", Role::Manager, "c", now), trust(&[&root])),
        (issued(&root, "n", Role::Manager, "d", now), trust(&[&root])),
        (issued(&new, "n", Role::Manager, "c", now), trust(&[&root])),
        (issued(&root, "n", Role::Manager, "c", now), trust(&[&new])),
    ];
    for (certificate, trust) in refused {
        assert!(node.replace(certificate, trust, now).is_err());
    }
    let mixed = NodeCertificate::new(clone.node().chain_pem, &NodeKey::generate().unwrap());
    let error = node.replace(mixed, trust(&[&root]), now).unwrap_err();
    assert_eq!(error.to_string(), "certificate key mismatch");
    assert!(shake(&clone.client_config(), &node.server_config()).is_ok(), "the old one is kept");
    assert!(!format!("{node:?} {:?}", node.node()).contains("PRIVATE"), "keys stay out of logs");
}

#[test]
fn a_root_takes_the_place_of_another_without_a_moment_of_distrust() {
    let now = SystemTime::now();
    let (old, new) = (root(), self::root());
    let cross_signed = old.cross_sign(&new, now).unwrap();
    let new = new.with_cross_signed(&cross_signed).unwrap();
    let knows_old = credentials(&old, "o", Role::Manager, "c");
    let on_new = issued(&new, "b", Role::Manager, "c", now);
    let knows_both = Credentials::new(on_new.clone(), trust(&[&old, &new]), now).unwrap();
    let knows_new = Credentials::new(on_new, trust(&[&new]), now).unwrap();
    for (a, b) in [(&knows_old, &knows_both), (&knows_both, &knows_new)] {
        shake(&a.client_config(), &b.server_config()).unwrap();
        shake(&b.client_config(), &a.server_config()).unwrap();
    }
    shake(&knows_new.client_config(), &knows_old.server_config()).unwrap_err();
}
