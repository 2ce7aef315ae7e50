//! What the authority issues is what SwarmKit would issue, and never what a request asks for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use x509_parser::pem::Pem;

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

const HOUR: Duration = Duration::from_secs(3600);

fn root() -> RootCa {
    RootCa::generate(SystemTime::now()).unwrap()
}

/// A root as a user would bring it along.
fn brought(change: impl FnOnce(&mut CertificateParams)) -> RootCa {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Café");
    params.distinguished_name.push(DnType::CommonName, "own root");
    let address = rcgen::string::Ia5String::try_from("ca@example").unwrap();
    let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
    params.distinguished_name.push(email, DnValue::Ia5String(address));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    RootCa::from_pem(certificate.pem(), &key.serialize_pem()).unwrap()
}

#[test]
fn what_a_request_asks_for_is_not_looked_at() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["swarm-manager".to_owned(), "m".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    params.distinguished_name.push(DnType::CommonName, "m");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let chain = root().sign(&csr, "w", Role::Worker, "c", SystemTime::now(), HOUR).unwrap();
    let chain = parse(&chain);
    let issued = chain[0].parse_x509().unwrap();
    assert_eq!(issued.subject().to_string(), "O=c, OU=swarm-worker, CN=w");
    let names = issued.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["DNSName(swarm-worker)", "DNSName(w)"]
    );
    assert!(!issued.is_ca());
    assert!(!issued.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn a_request_has_to_be_signed_by_its_own_key() {
    let sign = |csr: &str| {
        let signed = root().sign(csr, "n", Role::Worker, "c", SystemTime::now(), HOUR);
        signed.unwrap_err().to_string()
    };
    let csr = NodeKey::generate().unwrap().csr().unwrap();
    let other = NodeKey::generate().unwrap().csr().unwrap();
    // Another key's signature under this key's request: the last 64 bytes or so.
    let (der, other) = (::pem::parse(&csr).unwrap(), ::pem::parse(&other).unwrap());
    let mut forged = der.contents().to_vec();
    let end = forged.len();
    forged[end - 20..].copy_from_slice(&other.contents()[other.contents().len() - 20..]);
    let forged = ::pem::encode(&::pem::Pem::new("CERTIFICATE REQUEST", forged));
    assert_eq!(sign(&forged), "the certificate request is not signed by its own key");

    let unreadable = "the certificate request cannot be read";
    let cut = ::pem::encode(&::pem::Pem::new("CERTIFICATE REQUEST", &der.contents()[..100]));
    let root = root();
    let long = csr.clone() + &" ".repeat(MAX_CSR);
    for text in ["", "garbage", &csr[..csr.len() / 2], &cut, root.certificate_pem(), &long] {
        assert_eq!(sign(text), unreadable, "{text}");
    }
}

#[test]
fn a_root_and_a_key_have_to_belong_together() {
    let (root, other) = (root(), root());
    let told =
        |certificate: &str, key: &str| RootCa::from_pem(certificate.to_owned(), key).unwrap_err().to_string();
    assert_eq!(told(root.certificate_pem(), &other.key_pem()), "certificate key mismatch");
    let node = root.issue("n", Role::Manager, "c", SystemTime::now(), HOUR).unwrap();
    assert_eq!(told(&node.chain_pem, &node.key_pem), "certificate not a CA");
    assert_eq!(told("garbage", &root.key_pem()), "the certificate cannot be read");
    assert_eq!(told(root.certificate_pem(), ""), "the cluster's root key cannot be read");
    assert!(root.with_cross_signed(other.certificate_pem()).is_err());
}

#[test]
fn roots_that_users_bring_along_keep_their_names() {
    let now = SystemTime::now();
    let (old, new) = (root(), brought(|_| {}));
    let issued = new.issue("n", Role::Worker, "c", now, HOUR).unwrap();
    Trust::parse(new.certificate_pem()).unwrap().verify_own(&issued.chain_pem, now).unwrap();
    let cross_signed = old.cross_sign(&new, now).unwrap();
    let name = RootName::of(new.certificate_pem()).unwrap();
    assert_eq!(RootName::of(&cross_signed).unwrap(), name);
    let new = new.with_cross_signed(&cross_signed).unwrap();
    let issued = new.issue("n", Role::Worker, "c", now, HOUR).unwrap();
    let roots = old.certificate_pem().to_owned() + new.certificate_pem();
    assert_eq!(RootName::of_issuer(&issued.chain_pem, old.certificate_pem()).unwrap(), name);
    assert_eq!(RootName::of_issuer(&issued.chain_pem, &roots).unwrap(), name);
    assert!(
        RootName::of_issuer(
            &old.issue("n", Role::Worker, "c", now, HOUR).unwrap().chain_pem,
            new.certificate_pem()
        )
        .is_err()
    );
}

#[test]
fn a_rotation_that_would_cut_nodes_off_is_refused() {
    let now = SystemTime::now();
    let expired = RootCa::generate(now - ROOT_LIFE - 2 * HOUR).unwrap();
    let error = root().cross_sign(&expired, now).unwrap_err().to_string();
    assert!(error.contains("not valid after"), "{error}");
    // A name in letters that cannot be written again as they were.
    let old_letters = brought(|params| {
        let text = rcgen::string::TeletexString::try_from("old letters").unwrap();
        params.distinguished_name.push(DnType::LocalityName, DnValue::TeletexString(text));
    });
    assert!(root().cross_sign(&old_letters, now).is_err());
}
