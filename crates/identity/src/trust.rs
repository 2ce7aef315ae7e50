//! The roots that a node trusts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::{Certificate, chain, encode};
use crate::{Identity, IdentityError, JoinToken, Role};

/// One root, or several while one takes the place of another.
#[derive(Clone)]
pub struct Trust {
    pem: String,
    pub(crate) roots: Arc<RootCertStore>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Trust) -> bool {
        self.pem == other.pem
    }
}

impl Trust {
    /// Reads a bundle of root certificates.
    ///
    /// # Errors
    /// When there is none, or anything but roots in it.
    pub fn parse(pem: &str) -> Result<Trust, IdentityError> {
        let mut roots = RootCertStore::empty();
        let mut text = String::new();
        for der in chain(pem)? {
            if !Certificate::parse(&der)?.0.is_ca() {
                return Err(IdentityError::NoAuthority { reason: "certificate not a CA" });
            }
            let part = encode(&der);
            if !text.contains(&part) {
                text += &part;
                let added = roots.add(der);
                added.map_err(|_| IdentityError::Unreadable { what: "the root certificate" })?;
            }
        }
        Ok(Trust { pem: text, roots: Arc::new(roots) })
    }

    /// The roots, normalized, each once, in the order given.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Whether a node with these roots trusts this chain of certificates, PEM, at `now`, for a node in this role.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] says why not, in SwarmKit's words where the time is the reason.
    pub fn verify(&self, chain_pem: &str, role: Role, now: SystemTime) -> Result<(), IdentityError> {
        self.verify_chain(&chain(chain_pem)?, role, now)
    }

    pub(crate) fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: SystemTime,
    ) -> Result<(), IdentityError> {
        for der in chain {
            Certificate::parse(der)?.check_time(now)?;
        }
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let name = ServerName::try_from(role.unit()).expect("a role's name is a host name");
        let verified = self.verifier()?.verify_server_cert(
            &chain[0],
            &chain[1..],
            &name,
            &[],
            UnixTime::since_unix_epoch(since),
        );
        verified.map_err(|error| IdentityError::Invalid { reason: error.to_string() })?;
        Ok(())
    }

    pub(crate) fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, IdentityError> {
        WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|_| IdentityError::Unreadable { what: "the root certificate" })
    }

    /// Verifies a certificate that an authority gave, before it is used: its chain, its time, and that it is for
    /// the key and the node that it was asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify_own(&self, chain_pem: &str, now: SystemTime) -> Result<Identity, IdentityError> {
        let ders = chain(chain_pem)?;
        let identity = Certificate::parse(&ders[0])?.identity()?;
        self.verify_chain(&ders, identity.role, now)?;
        Ok(identity)
    }
}

/// Whether the root that a manager told is the one that the token names. To be asked before the token's secret
/// is sent to anybody. A bundle is named as a whole: else a liar could add a root of its own.
///
/// # Errors
/// [`IdentityError::WrongRoot`], or when the text is no root certificate.
pub fn verify_root(token: &JoinToken, root_pem: &str) -> Result<Trust, IdentityError> {
    if !token.names(root_pem) {
        return Err(IdentityError::WrongRoot { expected: token.digest_hex() });
    }
    Trust::parse(root_pem)
}

/// The cryptography that TLS uses here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
