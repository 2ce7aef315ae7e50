//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`. The digest lets the joiner verify the
//! cluster before it tells the secret.

use std::fmt;
use std::str::FromStr;

use crate::authority::digest;

/// Bytes of a token's secret. SwarmKit's `generatedSecretEntropyBytes`.
pub const SECRET_BYTES: usize = 16;
/// Characters of a digest: ceil(log(2^256, 36)).
const DIGEST_LEN: usize = 50;
/// Characters of a secret: ceil(log(2^128, 36)).
const SECRET_LEN: usize = 25;
const PREFIX: &str = "SWMTKN-1-";

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: [u8; 32],
    secret: [u8; SECRET_BYTES],
}

/// A text that is no join token. SwarmKit's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid join token")]
pub struct ParseTokenError;

impl JoinToken {
    /// The token with this `secret`, drawn at random by the caller, for the cluster with this root.
    pub fn new(root_certificate_pem: &str, secret: [u8; SECRET_BYTES]) -> JoinToken {
        JoinToken { digest: digest(root_certificate_pem), secret }
    }

    /// Whether this is the root certificate that the token names.
    pub fn names(&self, root_certificate_pem: &str) -> bool {
        self.digest == digest(root_certificate_pem)
    }

    /// The digest of the root, as SwarmKit shows it.
    pub(crate) fn digest_hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether both name the same root and the secrets are the same, in a time that does not tell where they differ.
    pub fn is_same(&self, other: &JoinToken) -> bool {
        // Not `&&`: what the first says must not decide whether the second is done.
        (self.digest == other.digest) & self.has_secret_of(other)
    }

    /// Whether the secrets are the same, in a time that does not tell where they differ.
    pub fn has_secret_of(&self, other: &JoinToken) -> bool {
        let differences = self.secret.iter().zip(other.secret).fold(0, |sum, (a, b)| sum | (a ^ b));
        differences == 0
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digest, secret) = (to_base36(&self.digest, DIGEST_LEN), to_base36(&self.secret, SECRET_LEN));
        write!(f, "{PREFIX}{digest}-{secret}")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-***", to_base36(&self.digest, DIGEST_LEN))
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<JoinToken, ParseTokenError> {
        let (digest, secret) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(ParseTokenError)?;
        if digest.len() != DIGEST_LEN || secret.len() != SECRET_LEN {
            return Err(ParseTokenError);
        }
        let digest = from_base36(digest).ok_or(ParseTokenError)?;
        Ok(JoinToken { digest, secret: from_base36(secret).ok_or(ParseTokenError)? })
    }
}

/// `bytes` as one big-endian number in base 36, with leading zeros up to `len` characters.
fn to_base36(bytes: &[u8], len: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; len];
    for slot in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        *slot = b"0123456789abcdefghijklmnopqrstuvwxyz"[remainder as usize];
    }
    String::from_utf8(digits).expect("base 36 digits are ASCII")
}

/// The inverse of [`to_base36`]; `None` for other characters and for numbers above `N` bytes.
fn from_base36<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for character in text.bytes() {
        let mut carry = match character {
            b'0'..=b'9' => u32::from(character - b'0'),
            b'a'..=b'z' => u32::from(character - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_tokens_in_one_way_only(root: String, secret: [u8; SECRET_BYTES], text: String) {
            let token = JoinToken::new(&root, secret);
            let again: JoinToken = token.to_string().parse().expect("a token");
            prop_assert!(again.is_same(&token));
            for text in [text.clone(), format!("{PREFIX}{text}"), format!("{token}{text}")] {
                if let Ok(read) = text.parse::<JoinToken>() {
                    prop_assert_eq!(read.to_string(), text);
                }
            }
        }
    }

    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nroot\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_token_survives_its_text() {
        for secret in [[0; SECRET_BYTES], [7; SECRET_BYTES], [0xff; SECRET_BYTES]] {
            let token = JoinToken::new(ROOT, secret);
            let text = token.to_string();
            assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
            assert_eq!(text.parse(), Ok(token));
        }
    }

    #[test]
    fn the_numbers_are_big_endian_base_36() {
        assert_eq!(to_base36(&[0, 0, 36], 5), "00010");
        assert_eq!(to_base36(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(from_base36::<2>("1ekf"), Some([0xff, 0xff]));
        assert_eq!(from_base36::<2>("1ekg"), None, "65536 does not fit");
    }

    #[test]
    fn a_token_names_its_root_and_no_other() {
        let token = JoinToken::new(ROOT, [1; SECRET_BYTES]);
        assert!(token.names(ROOT));
        assert!(!token.names("another root"));
        assert!(token.has_secret_of(&JoinToken::new("another root", [1; SECRET_BYTES])));
        assert!(!token.has_secret_of(&JoinToken::new(ROOT, [2; SECRET_BYTES])));
        assert!(format!("{token:?}").ends_with("-***"), "secrets stay out of logs");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = JoinToken::new(ROOT, [9; SECRET_BYTES]).to_string();
        let worse = [
            String::new(),
            "SWMTKN-1-abc-def".to_owned(),
            good.replacen("SWMTKN-1", "SWMTKN-2", 1),
            good.to_uppercase(),
            format!("{good}0"),
            good.replace(&good[9..59], &"z".repeat(50)),
        ];
        for text in worse {
            assert_eq!(text.parse::<JoinToken>(), Err(ParseTokenError), "{text}");
        }
    }
}
