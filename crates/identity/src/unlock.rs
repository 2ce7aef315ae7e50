//! The key that unlocks managers: `SWMKEY-1-<base64>`, as SwarmKit writes it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Bytes of the key.
pub const UNLOCK_KEY_BYTES: usize = 32;
const PREFIX: &str = "SWMKEY-1-";

/// The key that the secrets in a locked manager's files are encrypted by. No log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; UNLOCK_KEY_BYTES]);

/// A text that is no unlock key. SwarmKit's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid key string")]
pub struct ParseUnlockKeyError;

impl UnlockKey {
    /// The key of these bytes, drawn at random by the caller.
    pub fn new(bytes: [u8; UNLOCK_KEY_BYTES]) -> UnlockKey {
        UnlockKey(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; UNLOCK_KEY_BYTES] {
        &self.0
    }

    /// The key as users keep it. Secret; there is no `Display`, so that no message shows it by mistake.
    pub fn text(&self) -> String {
        PREFIX.to_owned() + &STANDARD_NO_PAD.encode(self.0)
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}***")
    }
}

impl FromStr for UnlockKey {
    type Err = ParseUnlockKeyError;

    fn from_str(text: &str) -> Result<UnlockKey, ParseUnlockKeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(ParseUnlockKeyError)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| ParseUnlockKeyError)?;
        bytes.try_into().map(UnlockKey).map_err(|_| ParseUnlockKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_nothing_else_is_one() {
        for bytes in [[0; 32], [7; 32], [0xff; 32]] {
            let key = UnlockKey::new(bytes);
            assert_eq!(key.text().len(), "SWMKEY-1-".len() + 43);
            assert_eq!(key.text().parse(), Ok(key.clone()));
            assert!(!format!("{key:?}").contains(&key.text()[9..]), "secrets stay out of logs");
        }
        let good = UnlockKey::new([9; 32]).text();
        let cut = &good[..good.len() - 1];
        for text in ["", "SWMKEY-1-", cut, &good.replace('1', "2"), &format!("{good}A"), "SWMKEY-1-ä"] {
            assert_eq!(text.parse::<UnlockKey>(), Err(ParseUnlockKeyError), "{text}");
        }
    }
}
