//! Encryption of the log: AES-256-GCM under a key of its own for each opening.
//!
//! A nonce must never serve twice under one key, and a log that is restored from a copy of its disk would count
//! from the same number again. So every opening draws a random salt, derives a key from it (HKDF-SHA256), and
//! counts from 0 under that key. The salt stands with each payload, since entries of many openings lie side by side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// Bytes that sealing adds: salt, counter, tag.
pub(super) const OVERHEAD_BYTES: usize = SALT_BYTES + 8 + 16;
const PURPOSE: &[u8] = b"skep consensus log v2";

/// The key of a log: 32 bytes from a random source.
#[derive(Clone)]
pub struct LogKey([u8; 32]);

impl LogKey {
    /// The key with these bytes.
    pub const fn new(bytes: [u8; 32]) -> LogKey {
        LogKey(bytes)
    }
}

impl std::fmt::Debug for LogKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LogKey(..)")
    }
}

/// Seals and opens payloads.
pub(super) struct Cipher {
    key: LogKey,
    salt: [u8; SALT_BYTES],
    sealing: LessSafeKey,
    sealed: AtomicU64,
    /// The key of the salt last opened: neighbours mostly share theirs.
    opening: Mutex<Option<([u8; SALT_BYTES], LessSafeKey)>>,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cipher(..)")
    }
}

impl Cipher {
    pub(super) fn new(key: &LogKey) -> Cipher {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).expect("the kernel gives random bytes");
        Cipher {
            key: key.clone(),
            salt,
            sealing: derive(key, &salt),
            sealed: AtomicU64::new(0),
            opening: Mutex::new(None),
        }
    }

    /// Salt, counter, ciphertext and tag of `payload`, bound to `context`.
    pub(super) fn seal(&self, context: &[u8], payload: &[u8]) -> Vec<u8> {
        let counter = self.sealed.fetch_add(1, Ordering::Relaxed);
        let mut sealed = Vec::with_capacity(payload.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&self.salt);
        sealed.extend_from_slice(&counter.to_le_bytes());
        sealed.extend_from_slice(payload);
        let body = &mut sealed[SALT_BYTES + 8..];
        let tag = self
            .sealing
            .seal_in_place_separate_tag(nonce(counter), Aad::from(context), body)
            .expect("a payload is far below AES-GCM's limit of 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// What was sealed, or nothing when it is not what [`Cipher::seal`] made under this key for `context`.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = sealed.split_first_chunk::<SALT_BYTES>()?;
        let (counter, body) = rest.split_first_chunk::<8>()?;
        let mut body = body.to_vec();
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match &mut *opening {
            Some((known, key)) if known == salt => key,
            other => &mut other.insert((*salt, derive(&self.key, salt))).1,
        };
        let nonce = nonce(u64::from_le_bytes(*counter));
        let length = key.open_in_place(nonce, Aad::from(context), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn derive(key: &LogKey, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
    let secret = Salt::new(HKDF_SHA256, salt).extract(&key.0);
    let output = secret.expand(&[PURPOSE], &AES_256_GCM).expect("one key's length is below HKDF's limit");
    LessSafeKey::new(UnboundKey::from(output))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn only_the_key_and_the_context_open_what_was_sealed() {
        let key = LogKey::new([7; 32]);
        let cipher = Cipher::new(&key);
        let sealed = cipher.seal(b"5", b"secret");
        assert_eq!(sealed.len(), 6 + OVERHEAD_BYTES);
        assert_eq!(Cipher::new(&key).open(b"5", &sealed).unwrap(), b"secret");
        assert_eq!(cipher.open(b"6", &sealed), None);
        assert_eq!(Cipher::new(&LogKey::new([8; 32])).open(b"5", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(cipher.open(b"5", &changed), None, "byte {at}");
            assert_eq!(cipher.open(b"5", &sealed[..at]), None, "cut at {at}");
        }
        assert_ne!(cipher.seal(b"5", b"secret"), sealed, "no nonce serves twice");
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", LogKey::new([7; 32])), "LogKey(..)");
    }
}
