//! The cluster's root and the certificates that it issues. ECDSA over P-256, as SwarmKit's.

use std::time::{Duration, SystemTime};

use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::certificate::{Certificate, arcs, chain, encode, normalize};
use crate::error::failed;
use crate::{IdentityError, NodeCertificate, NodeKey, Role, Trust, root_key};

/// SwarmKit's `rootCN`, and the name under which managers serve as certificate authority.
pub(crate) const ROOT_NAME: &str = "swarm-ca";
/// SwarmKit's `RootCAExpiration`: 20 years.
const ROOT_LIFE: Duration = Duration::from_secs(630_720_000);
/// SwarmKit's `CertBackdate`: certificates begin earlier, for nodes whose clocks lag.
const BACKDATE: Duration = Duration::from_secs(3600);
/// The longest certificate request that is looked at, in bytes. One with a P-256 key has about 400.
const MAX_CSR: usize = 64 << 10;

/// The cluster's certificate authority, with its private key.
pub struct RootCa {
    certificate_pem: String,
    /// This root, certified by the root that it takes the place of: nodes that know only that one need it.
    cross_signed: Option<String>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for RootCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCa").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl RootCa {
    /// Makes a new authority that is valid for 20 years from `now`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(now: SystemTime) -> Result<RootCa, IdentityError> {
        let key = KeyPair::generate().map_err(failed("make the cluster's root key"))?;
        let mut params = CertificateParams::default();
        let text = PrintableString::try_from(ROOT_NAME).expect("letters and a hyphen are printable");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(text));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + ROOT_LIFE).into();
        let certificate = params.self_signed(&key).map_err(failed("make the cluster's root certificate"))?;
        RootCa::new(encode(certificate.der()), key)
    }

    /// Takes an authority from its files' content.
    ///
    /// # Errors
    /// When one of the two cannot be read, or they do not belong together.
    pub fn from_pem(certificate_pem: String, key_pem: &str) -> Result<RootCa, IdentityError> {
        RootCa::new(certificate_pem, root_key::read(key_pem)?)
    }

    fn new(certificate_pem: String, key: KeyPair) -> Result<RootCa, IdentityError> {
        let certificates = chain(&certificate_pem)?;
        // The first one is the active one. As SwarmKit's newLocalSigner.
        let certificate = Certificate::parse(&certificates[0])?;
        if !certificate.0.is_ca() {
            return Err(IdentityError::NoAuthority { reason: "certificate not a CA" });
        }
        if !certificate.has_key(&key.subject_public_key_info()) {
            return Err(IdentityError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificates[0], key)
            .map_err(failed("read the cluster's root certificate"))?;
        Ok(RootCa { certificate_pem, cross_signed: None, issuer })
    }

    /// The same authority, whose certificates are to be trusted also by nodes that know only the root that made
    /// `cross_signed_pem`.
    ///
    /// # Errors
    /// When that is no certificate of this authority's key.
    pub fn with_cross_signed(mut self, cross_signed_pem: &str) -> Result<RootCa, IdentityError> {
        let between = normalize(cross_signed_pem)?;
        let ders = chain(&between)?;
        if !Certificate::parse(&ders[0])?.has_key(&self.public_key_der()) {
            return Err(IdentityError::KeyMismatch);
        }
        self.cross_signed = Some(between);
        Ok(self)
    }

    /// The root certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key. Secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What join tokens name the root by.
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.certificate_pem)
    }

    /// The root's public key in DER.
    pub(crate) fn public_key_der(&self) -> Vec<u8> {
        self.issuer.key().subject_public_key_info()
    }

    /// Makes a key and a certificate for it: see [`RootCa::sign`].
    ///
    /// # Errors
    /// As [`RootCa::sign`].
    pub fn issue(
        &self,
        node: &str,
        role: Role,
        cluster: &str,
        now: SystemTime,
        life: Duration,
    ) -> Result<NodeCertificate, IdentityError> {
        let key = NodeKey::generate()?;
        Ok(NodeCertificate::new(self.sign(&key.csr()?, node, role, cluster, now, life)?, &key))
    }

    /// Certifies a request's key: common name the node, unit the role, organisation the cluster. Whatever names
    /// and extensions the request asks for are not looked at. Gives the certificate and what lies between it and
    /// the root that all nodes know, PEM.
    ///
    /// # Errors
    /// When the request cannot be read or is not signed by its own key; when a name is no text that a
    /// certificate can hold.
    pub fn sign(
        &self,
        csr_pem: &str,
        node: &str,
        role: Role,
        cluster: &str,
        now: SystemTime,
        life: Duration,
    ) -> Result<String, IdentityError> {
        let key = requested_key(csr_pem)?;
        let action = "issue a node certificate";
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, cluster);
        name.push(DnType::OrganizationalUnitName, role.unit());
        name.push(DnType::CommonName, node);
        params.distinguished_name = name;
        for host in host_names(node, role) {
            params.subject_alt_names.push(SanType::DnsName(host.try_into().map_err(failed(action))?));
        }
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + life).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(action))?;
        Ok(encode(certificate.der()) + self.cross_signed.as_deref().unwrap_or_default())
    }

    /// Certifies the key of the root that is to take this one's place, and tries out whether nodes that know only
    /// this root would trust what stands on that one. Gives one certificate, PEM.
    ///
    /// # Errors
    /// As [`RootCa::cross_sign_certificate`], and when those nodes would not.
    pub fn cross_sign(&self, other: &RootCa, now: SystemTime) -> Result<String, IdentityError> {
        let cross_signed = self.cross_sign_certificate(&other.certificate_pem)?;
        other.check_succession(&self.certificate_pem, &cross_signed, now)?;
        Ok(cross_signed)
    }

    /// Certifies a root's key with that root's names and life. As SwarmKit's `CrossSignCACertificate`.
    ///
    /// # Errors
    /// When it is no authority's certificate.
    pub fn cross_sign_certificate(&self, root_pem: &str) -> Result<String, IdentityError> {
        let ders = chain(root_pem)?;
        let root = Certificate::parse(&ders[0])?;
        if !root.0.is_ca() {
            return Err(IdentityError::NoAuthority { reason: "certificate not a CA" });
        }
        let action = "certify the new root by the old one";
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&root)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.not_before = root.not_before().into();
        params.not_after = root.not_after().into();
        let key = SubjectPublicKeyInfo::from_der(root.0.public_key().raw).map_err(failed(action))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(action))?;
        Ok(encode(certificate.der()))
    }

    /// Whether a node that knows only the `old` root would trust one that stands on this root by way of
    /// `cross_signed`, and one that knows only this root too: a rotation that nodes cannot follow must not begin.
    ///
    /// # Errors
    /// Why not.
    pub fn check_succession(
        &self,
        old_pem: &str,
        cross_signed_pem: &str,
        now: SystemTime,
    ) -> Result<(), IdentityError> {
        let leaf = self.issue("trial", Role::Manager, "trial", now, Duration::from_secs(3600))?;
        let chain = leaf.chain_pem.clone() + cross_signed_pem;
        Trust::parse(old_pem)?.verify(&chain, Role::Manager, now)?;
        Trust::parse(&self.certificate_pem)?.verify(&leaf.chain_pem, Role::Manager, now)
    }

    /// A request for a certificate of this authority's own key, for an authority outside to cross-sign, PEM.
    ///
    /// # Errors
    /// When the root's names cannot be put into a request.
    pub fn csr(&self) -> Result<String, IdentityError> {
        let ders = chain(&self.certificate_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&Certificate::parse(&ders[0])?)?;
        let request = params.serialize_request(self.issuer.key()).and_then(|request| request.pem());
        request.map_err(failed("make a certificate request"))
    }
}

/// The names that a node's certificate holds for, as SwarmKit's `PrepareCSR`: peers are verified by role and by
/// id, managers also as the authority.
pub(crate) fn host_names(node: &str, role: Role) -> Vec<&str> {
    let manager_name = (role == Role::Manager).then_some(ROOT_NAME);
    [role.unit(), node].into_iter().chain(manager_name).collect()
}

/// The key that a certificate is asked for, by whoever has it.
fn requested_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, IdentityError> {
    let unreadable = || IdentityError::Unreadable { what: "the certificate request" };
    if csr_pem.len() > MAX_CSR {
        return Err(unreadable());
    }
    let pem = pem::parse(csr_pem).map_err(|_| unreadable())?;
    let Ok(([], request)) = X509CertificationRequest::from_der(pem.contents()) else {
        return Err(unreadable());
    };
    request.verify_signature().map_err(|_| IdentityError::NoProofOfPossession)?;
    let key = request.certification_request_info.subject_pki.raw;
    SubjectPublicKeyInfo::from_der(key).map_err(|_| unreadable())
}

/// A certificate's subject, to be written again.
fn subject(certificate: &Certificate<'_>) -> Result<DistinguishedName, IdentityError> {
    let unreadable = || IdentityError::Unreadable { what: "the certificate's subject" };
    let mut name = DistinguishedName::new();
    for attribute in certificate.0.subject().iter_attributes() {
        let kind = DnType::from_oid(&arcs(attribute.attr_type()).ok_or_else(unreadable)?);
        let text = attribute.as_str().map_err(|_| unreadable())?;
        // ASN.1's numbers of the kinds of text. Verifiers compare names byte for byte, so each stays what it is; the
        // trial finds out about those kinds that nobody uses any more.
        let value = match attribute.attr_value().tag().0 {
            19 => PrintableString::try_from(text).map(DnValue::PrintableString),
            22 => Ia5String::try_from(text).map(DnValue::Ia5String),
            _ => Ok(DnValue::Utf8String(text.to_owned())),
        };
        let value = value.map_err(|_| unreadable())?;
        name.push(kind, value);
    }
    Ok(name)
}

/// SwarmKit digests the certificate's PEM bytes, not its DER.
pub(crate) fn digest(certificate_pem: &str) -> [u8; 32] {
    Sha256::digest(certificate_pem.as_bytes()).into()
}

#[cfg(test)]
mod tests;
