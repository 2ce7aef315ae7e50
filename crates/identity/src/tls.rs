//! TLS between nodes: version 1.3 alone, for HTTP/2, verified by role and cluster.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};

use crate::certificate::chain;
use crate::trust::provider;
use crate::{Identity, IdentityError, NodeCertificate, Role, Trust, peer_identity};

/// HTTP/2's name in ALPN.
const PROTOCOL: &[u8] = b"h2";

/// What a node shows others and whom it trusts. Clones share it: a change holds for all connections made after
/// it.
#[derive(Clone)]
pub struct Credentials {
    current: Arc<RwLock<Arc<Current>>>,
}

struct Current {
    identity: Identity,
    node: NodeCertificate,
    trust: Trust,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let current = self.current();
        f.debug_struct("Credentials").field("identity", &current.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials of a node.
    ///
    /// # Errors
    /// When certificate and key do not belong together, the roots do not trust the certificate, or it does not
    /// hold at `now`.
    pub fn new(node: NodeCertificate, trust: Trust, now: SystemTime) -> Result<Credentials, IdentityError> {
        trust.verify_own(&node.chain_pem, now)?;
        Credentials::unverified(node, trust)
    }

    /// As [`Credentials::new`], but of a certificate that may no longer hold: a cluster of one that is made anew
    /// from a node's disk may be older than its certificate.
    ///
    /// # Errors
    /// As [`Credentials::new`], but for trust and time.
    pub fn unverified(node: NodeCertificate, trust: Trust) -> Result<Credentials, IdentityError> {
        let current = Current::new(node, trust)?;
        Ok(Credentials { current: Arc::new(RwLock::new(Arc::new(current))) })
    }

    /// Takes another certificate, other roots, or both, from now on.
    ///
    /// # Errors
    /// As [`Credentials::new`]; the old ones are kept then. Also when the certificate names another node or
    /// cluster.
    pub fn replace(&self, node: NodeCertificate, trust: Trust, now: SystemTime) -> Result<(), IdentityError> {
        let identity = trust.verify_own(&node.chain_pem, now)?;
        let old = self.identity();
        if (&identity.node, &identity.cluster) != (&old.node, &old.cluster) {
            let reason = format!("it is for node {} of cluster {}", identity.node, identity.cluster);
            return Err(IdentityError::Invalid { reason });
        }
        let current = Current::new(node, trust)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        Ok(())
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.current().identity.clone()
    }

    /// The certificate and its key.
    pub fn node(&self) -> NodeCertificate {
        self.current().node.clone()
    }

    /// The roots.
    pub fn trust(&self) -> Trust {
        self.current().trust.clone()
    }

    /// For accepting a connection. A certificate is asked for and need not be shown (to join and to fetch the root
    /// nobody has one); one that is shown must be a node's of this cluster: [`peer_identity`] tells whose.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.current().server.clone()
    }

    /// For connecting to a manager of this cluster; whatever host name is given is not looked at.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.current().client.clone()
    }
}

impl Current {
    fn new(node: NodeCertificate, trust: Trust) -> Result<Current, IdentityError> {
        let identity = node.identity()?;
        let cluster = identity.cluster.clone();
        let certificates = chain(&node.chain_pem)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(trust.roots.clone(), provider())
            .clear_root_hint_subjects()
            .build()
            .map_err(|_| IdentityError::Unreadable { what: "the root certificate" })?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| IdentityError::Unreadable { what: "the version of TLS" })?
            .with_client_cert_verifier(Arc::new(NodeVerifier { verifier, cluster: cluster.clone() }))
            .with_single_cert(certificates.clone(), private_key(&node)?)
            .map_err(|_| IdentityError::KeyMismatch)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        // No resumption: it would outlive certificates and roots.
        server.send_tls13_tickets = 0;
        let verifier = ManagerVerifier { verifier: trust.verifier()?, cluster: Some(cluster) };
        let client = client(Arc::new(verifier), Some((certificates, private_key(&node)?)))?;
        Ok(Current { identity, node, trust, server: Arc::new(server), client: Arc::new(client) })
    }
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client(
    verifier: Arc<dyn ServerCertVerifier>,
    shown: Option<Shown>,
) -> Result<ClientConfig, IdentityError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| IdentityError::Unreadable { what: "the version of TLS" })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some((certificates, key)) => {
            builder.with_client_auth_cert(certificates, key).map_err(|_| IdentityError::KeyMismatch)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

pub(crate) fn private_key(node: &NodeCertificate) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let unreadable = || IdentityError::Unreadable { what: "the node's key" };
    let pem = pem::parse(&node.key_pem).map_err(|_| unreadable())?;
    PrivateKeyDer::try_from(pem.into_contents()).map_err(|_| unreadable())
}

/// For fetching the root certificate from a manager that is not trusted yet. Nothing secret may be sent over such
/// a connection, and what comes over it has to pass [`crate::verify_root`].
///
/// # Errors
/// None in practice.
pub fn unverified_client_config() -> Result<Arc<ClientConfig>, IdentityError> {
    Ok(Arc::new(client(Arc::new(NoVerifier), None)?))
}

/// For joining: connects to a manager that stands on a root that passed [`crate::verify_root`], and shows no
/// certificate.
///
/// # Errors
/// None in practice.
pub fn join_client_config(trust: &Trust) -> Result<Arc<ClientConfig>, IdentityError> {
    let verifier = ManagerVerifier { verifier: trust.verifier()?, cluster: None };
    Ok(Arc::new(client(Arc::new(verifier), None)?))
}

/// Why a peer's certificate was refused beyond what TLS checks. Its `Debug` is its text, since rustls shows that.
struct Refused(String);

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refused(reason: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(reason)))))
}

/// Whether a verified certificate is a node's of this cluster.
fn check(end_entity: &CertificateDer<'_>, cluster: Option<&str>, role: Option<Role>) -> Result<(), Error> {
    let peer = peer_identity(end_entity).map_err(|error| refused(error.to_string()))?;
    if let Some(cluster) = cluster.filter(|cluster| **cluster != peer.cluster) {
        return Err(refused(format!("it is for cluster {}, not {cluster}", peer.cluster)));
    }
    if let Some(role) = role.filter(|role| *role != peer.role) {
        return Err(refused(format!("it is for a {}, not a {}", peer.role.unit(), role.unit())));
    }
    Ok(())
}

/// Why a handshake failed, for people: what of the peer's certificate was not accepted, or else TLS's own words.
pub fn handshake_failure(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(why)) => match why {
            CertificateError::Other(OtherError(why)) => format!("the peer's certificate is refused: {why}"),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the peer's certificate is refused: it was not issued by this cluster's authority".to_owned()
            }
            why => format!("the peer's certificate is refused: {why}"),
        },
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// Verifies managers.
#[derive(Debug)]
struct ManagerVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// Not known before joining.
    cluster: Option<String>,
}

impl ServerCertVerifier for ManagerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Nodes have no host names that could be verified: any name that its own certificate holds will do here.
        let role = peer_identity(end_entity).map_or(Role::Manager, |peer| peer.role);
        let name = ServerName::try_from(role.unit()).expect("a role's name is a host name");
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, &name, ocsp, now)?;
        check(end_entity, self.cluster.as_deref(), Some(Role::Manager))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Verifies nodes that connect, where they show a certificate.
#[derive(Debug)]
struct NodeVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    cluster: String,
}

impl ClientCertVerifier for NodeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        check(end_entity, Some(&self.cluster), None)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Verifies nothing.
#[derive(Debug)]
struct NoVerifier;

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
