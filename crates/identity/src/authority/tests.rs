//! What the authority issues is what SwarmKit would issue, and never what a request asks for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use x509_parser::prelude::*;

use super::*;
use crate::RootName;

fn parse(pem: &str) -> Vec<Pem> {
    Pem::iter_from_buffer(pem.as_bytes()).map(Result::unwrap).collect()
}

#[test]
fn a_node_certificate_is_what_swarmkit_would_issue() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let root = RootCa::generate(now).unwrap();
    let life = Duration::from_secs(90 * 24 * 3600);
    let issued = root.issue("node1", Role::Manager, "cluster1", now, life).unwrap();

    let (chain, roots) = (parse(&issued.chain_pem), parse(root.certificate_pem()));
    assert_eq!((chain.len(), roots.len()), (1, 1), "what peers have anyway is not sent");
    let (node, parent) = (chain[0].parse_x509().unwrap(), roots[0].parse_x509().unwrap());
    node.verify_signature(Some(parent.public_key())).unwrap();
    parent.verify_signature(None).unwrap();
    assert_eq!(node.subject().to_string(), "O=cluster1, OU=swarm-manager, CN=node1");
    assert_eq!(node.issuer().to_string(), "CN=swarm-ca");
    assert_eq!(node.validity().not_before.timestamp(), 1_700_000_000 - 3600);
    assert_eq!(node.validity().not_after.timestamp(), 1_700_000_000 + 90 * 24 * 3600);
    let names: Vec<String> = node
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["DNSName(swarm-manager)", "DNSName(node1)", "DNSName(swarm-ca)"]);
    assert!(parent.is_ca() && !node.is_ca());
    assert_eq!(parent.validity().not_after.timestamp(), 1_700_000_000 + 630_720_000);
    assert_eq!(parent.subject().as_raw(), RootName::of(root.certificate_pem()).unwrap().subject_der);
    assert_eq!(parent.public_key().raw, root.public_key_der());
}

#[test]
fn an_authority_survives_its_text() {
    let root = RootCa::generate(SystemTime::now()).unwrap();
    let again = RootCa::from_pem(root.certificate_pem().to_owned(), &root.key_pem()).unwrap();
    assert_eq!(again.digest(), root.digest());
    let now = SystemTime::now();
    let issued = again.issue("n", Role::Worker, "c", now, Duration::from_secs(3600)).unwrap();
    let (chain, roots) = (parse(&issued.chain_pem), parse(root.certificate_pem()));
    let parent = roots[0].parse_x509().unwrap();
    chain[0].parse_x509().unwrap().verify_signature(Some(parent.public_key())).unwrap();
    assert!(!format!("{again:?} {issued:?}").contains("PRIVATE"), "keys stay out of logs");
    assert!(RootCa::from_pem(String::new(), "no key").is_err());
}
