//! Who issued the cluster's certificates, as clients are told: two parts of the root certificate, raw.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The subject and the key of a certificate authority, as moby's `TLSInfo` carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The subject, DER in base64.
    pub subject: String,
    /// The public key with its algorithm (`SubjectPublicKeyInfo`), DER in base64.
    pub public_key: String,
}

/// DER's tags of what a certificate begins with.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

impl Issuer {
    /// Reads the first certificate of a PEM text; `None` when there is none.
    pub fn of(certificate_pem: &str) -> Option<Issuer> {
        let pem = pem::parse(certificate_pem).ok()?;
        let (_, certificate, _) = element(pem.contents())?;
        let (_, signed, _) = element(certificate)?;
        // RFC 5280: version (left out in version 1), serial number, algorithm, issuer, validity, subject, key.
        let (first, _, rest) = element(signed)?;
        let mut rest = if first.tag == VERSION { rest } else { signed };
        for _ in ["serial number", "algorithm", "issuer", "validity"] {
            rest = element(rest)?.2;
        }
        let (subject, _, rest) = element(rest)?;
        let (public_key, _, _) = element(rest)?;
        let is_sequence = |element: &Element<'_>| element.tag == SEQUENCE;
        (is_sequence(&subject) && is_sequence(&public_key)).then(|| Issuer {
            subject: STANDARD.encode(subject.whole),
            public_key: STANDARD.encode(public_key.whole),
        })
    }
}

/// One value of DER: its tag, and all its bytes.
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    whole: &'a [u8],
}

/// The first value of `bytes`, its content, and what comes after it.
pub(crate) fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8], &[u8])> {
    let (&tag, after_tag) = bytes.split_first()?;
    let (&short, after_length) = after_tag.split_first()?;
    let (length, header) = if short < 0x80 {
        (usize::from(short), 2)
    } else {
        // More than four bytes of length are no certificate.
        let digits = after_length.get(..usize::from(short & 0x7f)).filter(|digits| digits.len() <= 4)?;
        let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        (length, 2 + digits.len())
    };
    let (whole, rest) = bytes.split_at_checked(header.checked_add(length)?)?;
    Some((Element { tag, whole }, &whole[header..], rest))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::SystemTime;

    use x509_parser::prelude::parse_x509_pem;

    use super::*;
    use crate::RootCa;

    #[test]
    fn an_issuer_is_what_its_certificate_says() {
        let root = RootCa::generate(SystemTime::now()).unwrap();
        let (_, pem) = parse_x509_pem(root.certificate_pem().as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let expected = Issuer {
            subject: STANDARD.encode(certificate.subject().as_raw()),
            public_key: STANDARD.encode(certificate.public_key().raw),
        };
        assert_eq!(Issuer::of(root.certificate_pem()), Some(expected));
    }

    #[test]
    fn what_is_no_certificate_has_no_issuer() {
        let block = |content: &[u8]| ::pem::encode(&::pem::Pem::new("CERTIFICATE", content));
        for text in [
            "",
            "rubbish",
            &block(b""),
            &block(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            &block(&[0x30, 2, 0x30, 0]),
        ] {
            assert_eq!(Issuer::of(text), None, "{text:?}");
        }
    }
}
