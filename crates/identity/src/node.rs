//! What a node has: a key, a request for a certificate, and the certificate. What a certificate says of its node.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};

use crate::IdentityError;
use crate::certificate::{Certificate, chain};
use crate::error::failed;

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

    /// The inverse of [`Role::unit`].
    pub fn of_unit(unit: &str) -> Option<Role> {
        [Role::Worker, Role::Manager].into_iter().find(|role| role.unit() == unit)
    }
}

/// Who a certificate says a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's id.
    pub node: String,
    /// What it may do.
    pub role: Role,
    /// The cluster's id.
    pub cluster: String,
}

/// Who the certificate says its node is. The certificate has to be verified before: TLS does so.
///
/// # Errors
/// [`IdentityError::Unreadable`] and [`IdentityError::NoNode`].
pub fn peer_identity(end_entity_der: &[u8]) -> Result<Identity, IdentityError> {
    Certificate::parse(end_entity_der)?.identity()
}

/// A node's private key.
pub struct NodeKey {
    pair: KeyPair,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

impl NodeKey {
    /// A new key: ECDSA over P-256.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<NodeKey, IdentityError> {
        Ok(NodeKey { pair: KeyPair::generate().map_err(failed("make a node's key"))? })
    }

    /// A kept key.
    ///
    /// # Errors
    /// When the text holds no key, or an encrypted one.
    pub fn from_pem(pem: &str) -> Result<NodeKey, IdentityError> {
        Ok(NodeKey { pair: KeyPair::from_pem(pem).map_err(failed("read a node's key"))? })
    }

    /// The key as PKCS#8 in PEM. Secret.
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// Whether a chain of certificates is this key's.
    pub(crate) fn is_certified_by(&self, chain_pem: &str) -> Result<bool, IdentityError> {
        let ders = chain(chain_pem)?;
        Ok(Certificate::parse(&ders[0])?.has_key(&self.pair.subject_public_key_info()))
    }

    /// A request for a certificate, PEM. It names nobody, as SwarmKit's: the authority decides the names.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn csr(&self) -> Result<String, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.pair).and_then(|request| request.pem());
        request.map_err(failed("make a certificate request"))
    }
}

/// A node's certificate and private key.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The node's certificate, then what lies between it and a root. PEM.
    pub chain_pem: String,
    /// The private key, never encrypted here. PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCertificate").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

impl NodeCertificate {
    /// The certificate that an authority gave for a key.
    pub fn new(chain_pem: String, key: &NodeKey) -> NodeCertificate {
        NodeCertificate { chain_pem, key_pem: key.pem() }
    }

    /// Who it says the node is.
    ///
    /// # Errors
    /// As [`peer_identity`].
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        peer_identity(&chain(&self.chain_pem)?[0])
    }
}
