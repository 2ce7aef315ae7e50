//! TLS to registries: whom to trust.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Where systems keep the authorities that they trust; the first that is there counts. As Go.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The configuration for a registry. `verify` says whether its certificate must be trusted, by the system or by an
/// authority in the folder `own`.
pub(crate) fn config(verify: bool, own: &Path) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3");
    if verify {
        return builder.with_root_certificates(roots(own)).with_no_client_auth();
    }
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
}

fn roots(own: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let said = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let system =
        said.or_else(|| SYSTEM.iter().map(Into::into).find(|path: &std::path::PathBuf| path.exists()));
    let entries = std::fs::read_dir(own).into_iter().flatten().flatten().map(|entry| entry.path());
    let authorities = entries.filter(|path| path.extension().is_some_and(|extension| extension == "crt"));
    for path in system.into_iter().chain(authorities) {
        let Ok(text) = std::fs::read(&path) else { continue };
        let Ok(blocks) = pem::parse_many(text) else {
            tracing::warn!("{} holds no certificates", path.display());
            continue;
        };
        // Authorities that cannot be read are of no use to anybody; the others are.
        roots.add_parsable_certificates(
            blocks.into_iter().map(|block| CertificateDer::from(block.into_contents())),
        );
    }
    roots
}

/// Trusts whoever answers: for registries that the user listed as insecure.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
