//! The cluster's root and the certificates that it issues. ECDSA over P-256, as SwarmKit's.

use std::time::{Duration, SystemTime};

use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use sha2::{Digest, Sha256};

/// SwarmKit's `rootCN`, and the name under which managers serve as certificate authority.
const ROOT_NAME: &str = "swarm-ca";
/// SwarmKit's `RootCAExpiration`: 20 years.
const ROOT_LIFE: Duration = Duration::from_secs(630_720_000);
/// SwarmKit's `CertBackdate`: certificates begin earlier, for nodes whose clocks lag.
const BACKDATE: Duration = Duration::from_secs(3600);

/// What a certificate allows its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `swarm-worker`
    Worker,
    /// `swarm-manager`
    Manager,
}

impl Role {
    /// The organisational unit in a certificate.
    pub fn unit(self) -> &'static str {
        match self {
            Role::Worker => "swarm-worker",
            Role::Manager => "swarm-manager",
        }
    }
}

/// A certificate or key could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct IdentityError {
    action: &'static str,
    #[source]
    source: rcgen::Error,
}

fn failed(action: &'static str) -> impl FnOnce(rcgen::Error) -> IdentityError {
    move |source| IdentityError { action, source }
}

/// A node's certificate and private key.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The node's certificate, then the root's. PEM.
    pub chain_pem: String,
    /// The private key. PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCertificate").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// The cluster's certificate authority, with its private key.
pub struct RootCa {
    certificate_pem: String,
    key: KeyPair,
}

impl std::fmt::Debug for RootCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCa").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let text = PrintableString::try_from(ROOT_NAME).expect("letters and a hyphen are printable");
    name.push(DnType::CommonName, DnValue::PrintableString(text));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl RootCa {
    /// Makes a new authority that is valid for 20 years from `now`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(now: SystemTime) -> Result<RootCa, IdentityError> {
        let key = KeyPair::generate().map_err(failed("make the cluster's root key"))?;
        let mut params = root_params();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + ROOT_LIFE).into();
        let certificate = params.self_signed(&key).map_err(failed("make the cluster's root certificate"))?;
        Ok(RootCa { certificate_pem: certificate.pem(), key })
    }

    /// Takes an authority from its files' content.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn from_pem(certificate_pem: String, key_pem: &str) -> Result<RootCa, IdentityError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("read the cluster's root key"))?;
        Ok(RootCa { certificate_pem, key })
    }

    /// The root certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What join tokens name the root by.
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.certificate_pem)
    }

    /// The root's name in DER, as the API's `CertIssuerSubject` shows it in base 64.
    pub fn subject_der() -> Vec<u8> {
        // SEQUENCE { SET { SEQUENCE { OBJECT commonName, PrintableString } } }
        let text = ROOT_NAME.as_bytes();
        let mut value = vec![0x06, 0x03, 0x55, 0x04, 0x03];
        for tag in [0x13, 0x30, 0x31, 0x30] {
            value = match tag {
                0x13 => [&value[..], &[0x13, text.len() as u8], text].concat(),
                tag => [&[tag, value.len() as u8], &value[..]].concat(),
            };
        }
        value
    }

    /// The root's public key in DER, as the API's `CertIssuerPublicKey` shows it in base 64.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// Issues a certificate: common name the node, unit the role, organisation the cluster.
    ///
    /// # Errors
    /// When the system has no randomness, or a name is no text that a certificate can hold.
    pub fn issue(
        &self,
        node: &str,
        role: Role,
        cluster: &str,
        now: SystemTime,
        life: Duration,
    ) -> Result<NodeCertificate, IdentityError> {
        let action = "issue a node certificate";
        let key = KeyPair::generate().map_err(failed("make a node's key"))?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, cluster);
        name.push(DnType::OrganizationalUnitName, role.unit());
        name.push(DnType::CommonName, node);
        params.distinguished_name = name;
        // As SwarmKit's PrepareCSR: peers are verified by role and by id, managers also as the authority.
        let manager_name = (role == Role::Manager).then_some(ROOT_NAME);
        for host in [role.unit(), node].into_iter().chain(manager_name) {
            params.subject_alt_names.push(SanType::DnsName(host.try_into().map_err(failed(action))?));
        }
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + life).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(root_params(), &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(failed(action))?;
        let chain_pem = certificate.pem() + &self.certificate_pem;
        Ok(NodeCertificate { chain_pem, key_pem: key.serialize_pem() })
    }
}

/// SwarmKit digests the certificate's PEM bytes, not its DER.
pub(crate) fn digest(certificate_pem: &str) -> [u8; 32] {
    Sha256::digest(certificate_pem.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use x509_parser::prelude::*;

    use super::*;

    fn parse(pem: &str) -> Vec<Pem> {
        Pem::iter_from_buffer(pem.as_bytes()).map(Result::unwrap).collect()
    }

    #[test]
    fn a_node_certificate_is_what_swarmkit_would_issue() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let root = RootCa::generate(now).unwrap();
        let life = Duration::from_secs(90 * 24 * 3600);
        let issued = root.issue("node1", Role::Manager, "cluster1", now, life).unwrap();

        let chain = parse(&issued.chain_pem);
        assert_eq!(chain.len(), 2);
        let (node, parent) = (chain[0].parse_x509().unwrap(), chain[1].parse_x509().unwrap());
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
        assert_eq!(parent.subject().as_raw(), RootCa::subject_der());
        assert_eq!(parent.public_key().raw, root.public_key_der());
    }

    #[test]
    fn an_authority_survives_its_text() {
        let root = RootCa::generate(SystemTime::now()).unwrap();
        let again = RootCa::from_pem(root.certificate_pem().to_owned(), &root.key_pem()).unwrap();
        assert_eq!(again.digest(), root.digest());
        let now = SystemTime::now();
        let issued = again.issue("n", Role::Worker, "c", now, Duration::from_secs(3600)).unwrap();
        let chain = parse(&issued.chain_pem);
        let parent = chain[1].parse_x509().unwrap();
        chain[0].parse_x509().unwrap().verify_signature(Some(parent.public_key())).unwrap();
        assert!(!format!("{again:?} {issued:?}").contains("PRIVATE"), "keys stay out of logs");
        assert!(RootCa::from_pem(String::new(), "no key").is_err());
    }
}
