//! Reading certificates.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::{Identity, IdentityError, Role};

/// PEM's label of a certificate.
const LABEL: &str = "CERTIFICATE";
/// SwarmKit's `CertLowerRotationRange` and `CertUpperRotationRange`, in hundredths of a certificate's life.
const RENEWAL: RangeInclusive<u32> = 50..=80;
/// The longest chain or bundle that is read: a rotation has two.
const MAX_CERTIFICATES: usize = 16;

/// One certificate, read.
pub(crate) struct Certificate<'a>(pub(crate) X509Certificate<'a>);

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Certificate<'a>, IdentityError> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Certificate(certificate)),
            Ok(_) | Err(_) => Err(IdentityError::Unreadable { what: "the certificate" }),
        }
    }

    /// Who it says its node is.
    pub(crate) fn identity(&self) -> Result<Identity, IdentityError> {
        let name = self.0.subject();
        let no_node = |reason: String| IdentityError::NoNode { reason };
        let only = |field: &str, values: Vec<String>| {
            let count = values.len();
            let value = values.into_iter().next().filter(|value| count == 1 && !value.is_empty());
            value.ok_or_else(|| no_node(format!("it has {count} {field}, not one")))
        };
        let node = only("common names", texts(name, X509Name::iter_common_name))?;
        let cluster = only("organizations", texts(name, X509Name::iter_organization))?;
        let unit = only("organizational units", texts(name, X509Name::iter_organizational_unit))?;
        let role = Role::of_unit(&unit).ok_or_else(|| no_node(format!("{unit} is no role")))?;
        Ok(Identity { node, role, cluster })
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        time(self.0.validity().not_before.timestamp())
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        time(self.0.validity().not_after.timestamp())
    }

    /// Whether it has this public key (`SubjectPublicKeyInfo`, DER).
    pub(crate) fn has_key(&self, public_key_der: &[u8]) -> bool {
        self.0.public_key().raw == public_key_der
    }

    /// In SwarmKit's words why it does not hold at `now`.
    pub(crate) fn check_time(&self, now: SystemTime) -> Result<(), IdentityError> {
        let validity = self.0.validity();
        let name = common_name(self);
        let (word, bound) = if now < self.not_before() {
            ("before", validity.not_before)
        } else if now > self.not_after() {
            ("after", validity.not_after)
        } else {
            return Ok(());
        };
        let reason = format!("certificate ({name}) not valid {word} {bound}");
        Err(IdentityError::Invalid { reason })
    }
}

/// The common name, empty where there is none.
pub(crate) fn common_name(certificate: &Certificate<'_>) -> String {
    texts(certificate.0.subject(), X509Name::iter_common_name).concat()
}

fn texts<'a, I>(name: &'a X509Name<'a>, field: impl Fn(&'a X509Name<'a>) -> I) -> Vec<String>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    // What is no text counts as an empty one, and is then refused.
    field(name).map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
}

fn time(timestamp: i64) -> SystemTime {
    let distance = Duration::from_secs(timestamp.unsigned_abs());
    if timestamp < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// The certificates of a PEM text, at least one. Other things in it are an error.
pub(crate) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let unreadable = || IdentityError::Unreadable { what: "the certificate" };
    let blocks = pem::parse_many(pem).map_err(|_| unreadable())?;
    let all = blocks.iter().all(|block| block.tag() == LABEL);
    // The reader takes a block that was cut off for no block at all.
    let whole = pem.matches("-----BEGIN").count() == blocks.len();
    if blocks.is_empty() || blocks.len() > MAX_CERTIFICATES || !all || !whole {
        return Err(unreadable());
    }
    let ders: Vec<CertificateDer<'static>> =
        blocks.into_iter().map(|block| CertificateDer::from(block.into_contents())).collect();
    ders.iter().try_for_each(|der| Certificate::parse(der).map(|_| ()))?;
    Ok(ders)
}

/// Certificates in PEM as every writer of it would write them: what digests and comparisons are made of.
/// SwarmKit's `NormalizePEMs`.
///
/// # Errors
/// [`IdentityError::Unreadable`]
pub fn normalize(certificates_pem: &str) -> Result<String, IdentityError> {
    Ok(chain(certificates_pem)?.iter().map(|der| encode(der)).collect())
}

/// When a root stops to hold.
///
/// # Errors
/// [`IdentityError::Unreadable`], and [`IdentityError::NoAuthority`] in SwarmKit's words.
pub fn root_expiry(root_pem: &str) -> Result<SystemTime, IdentityError> {
    let ders = chain(root_pem)?;
    let root = Certificate::parse(&ders[0])?;
    if !root.0.is_ca() {
        return Err(IdentityError::NoAuthority { reason: "certificate not a CA" });
    }
    Ok(root.not_after())
}

/// What nodes name a root by: SwarmKit's `IssuerInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootName {
    /// The subject, DER.
    pub subject_der: Vec<u8>,
    /// The public key with its algorithm, DER.
    pub public_key_der: Vec<u8>,
}

impl RootName {
    /// The name of a root, the first of a bundle.
    ///
    /// # Errors
    /// [`IdentityError::Unreadable`]
    pub fn of(root_pem: &str) -> Result<RootName, IdentityError> {
        let ders = chain(root_pem)?;
        Ok(RootName::of_certificate(&Certificate::parse(&ders[0])?))
    }

    fn of_certificate(certificate: &Certificate<'_>) -> RootName {
        RootName {
            subject_der: certificate.0.subject().as_raw().to_vec(),
            public_key_der: certificate.0.public_key().raw.to_vec(),
        }
    }

    /// The name of the root that a node's certificate stands on: of the certificate after it in its chain, or of
    /// that one among the node's roots that issued it.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] when none of them issued it.
    pub fn of_issuer(chain_pem: &str, roots_pem: &str) -> Result<RootName, IdentityError> {
        let (node, roots) = (chain(chain_pem)?, chain(roots_pem)?);
        let certificate = Certificate::parse(&node[0])?;
        for der in node[1..].iter().chain(&roots) {
            let candidate = Certificate::parse(der)?;
            if certificate.0.verify_signature(Some(candidate.0.public_key())).is_ok() {
                return Ok(RootName::of_certificate(&candidate));
            }
        }
        Err(IdentityError::Invalid { reason: "none of the known roots issued it".to_owned() })
    }
}

/// One certificate in PEM, with Unix line ends.
pub(crate) fn encode(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(LABEL, der), config)
}

/// When to ask for the next certificate: at a random point in 50 to 80 % of the first one's life, so that the
/// nodes of a cluster that began together do not all come at once. `random` is drawn evenly from all its values.
///
/// # Errors
/// [`IdentityError::Unreadable`]
pub fn renewal_time(chain_pem: &str, random: u32) -> Result<SystemTime, IdentityError> {
    let chain = chain(chain_pem)?;
    let certificate = Certificate::parse(&chain[0])?;
    let (start, end) = (certificate.not_before(), certificate.not_after());
    let life = end.duration_since(start).unwrap_or_default();
    let (low, high) = (life * *RENEWAL.start() / 100, life * *RENEWAL.end() / 100);
    Ok(start + low + (high - low).mul_f64(f64::from(random) / f64::from(u32::MAX)))
}

/// An object identifier's arcs.
pub(crate) fn arcs(oid: &Oid<'_>) -> Option<Vec<u64>> {
    Some(oid.iter()?.collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;
    use crate::RootCa;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    proptest! {
        #[test]
        fn a_certificate_is_renewed_in_the_second_half_of_its_life(random: u32) {
            let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
            let root = RootCa::generate(now).unwrap();
            let issued = root.issue("n", Role::Worker, "c", now, 90 * DAY).unwrap();
            let at = renewal_time(&issued.chain_pem, random).unwrap().duration_since(now).unwrap();
            prop_assert!(44 * DAY < at && at <= 72 * DAY, "{at:?}");
        }

        #[test]
        fn no_text_is_read_as_certificates_by_mistake(text: String, cut in 0usize..1000) {
            prop_assert!(chain(&text).is_err());
            let root = RootCa::generate(SystemTime::now()).unwrap();
            let pem = root.certificate_pem();
            let cut = &pem[..cut % (pem.len() - 2)];
            prop_assert!(chain(cut).is_err());
            prop_assert!(chain(&(pem.to_owned() + "-----BEGIN CERTIFICATE-----\nAAAA")).is_err());
            prop_assert!(chain(&(pem.to_owned() + &root.key_pem())).is_err());
        }

        #[test]
        fn bytes_are_read_or_refused(bytes: Vec<u8>, at in 0usize..600, byte: u8) {
            let _ = Certificate::parse(&bytes).map(|certificate| certificate.identity());
            let root = RootCa::generate(SystemTime::now()).unwrap();
            let issued = root.issue("n", Role::Worker, "c", SystemTime::now(), DAY).unwrap();
            let mut der = chain(&issued.chain_pem).unwrap()[0].to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = Certificate::parse(&der).map(|certificate| certificate.identity());
        }
    }

    #[test]
    fn normal_certificates_do_not_depend_on_their_writer() {
        let root = RootCa::generate(SystemTime::now()).unwrap();
        let pem = root.certificate_pem();
        let foreign = format!("\n\n{}\n", pem.replace('\n', "\r\n"));
        assert_eq!(normalize(&foreign).unwrap(), pem);
        assert_eq!(normalize(pem).unwrap(), pem);
    }

    #[test]
    fn whoever_is_no_node_is_no_peer() {
        let root = RootCa::generate(SystemTime::now()).unwrap();
        let der = chain(root.certificate_pem()).unwrap();
        let told = Certificate::parse(&der[0]).unwrap().identity().unwrap_err().to_string();
        assert_eq!(told, "the certificate names no node of a swarm: it has 0 organizations, not one");
    }
}
