//! The file of a node's key: PEM, and in its headers, as SwarmKit has it, the keys of the managers' log. While
//! managers are locked all of them are encrypted by the unlock key.
//!
//! Encryption is ChaCha20-Poly1305 under a key that is derived for that one value (HKDF-SHA-256 of the unlock key
//! and 32 random bytes that stand before the value), so that no nonce can ever repeat. Each value is bound to its
//! place in the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pem::{EncodeConfig, LineEnding, Pem};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{IdentityError, UnlockKey};

/// PEM's labels of a key that anybody can read who can read the file, and of one that takes the unlock key.
/// SwarmKit's encrypted keys are of another format (PKCS#8 under PBES2), so the label is another one too.
const PLAIN: &str = "PRIVATE KEY";
const LOCKED: &str = "SKEP ENCRYPTED PRIVATE KEY";
/// SwarmKit's headers.
const VERSION: &str = "kek-version";
const CURRENT: &str = "raft-dek";
const PENDING: &str = "raft-dek-pending";
const NEEDS_ROTATION: &str = "raft-dek-needs-rotation";
/// Bytes of the random part before each encrypted value.
const SALT_BYTES: usize = 32;

/// A key of the managers' log. No log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(pub [u8; 32]);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(***)")
    }
}

impl DataKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<DataKey, IdentityError> {
        random().map(DataKey)
    }
}

/// The keys of the managers' log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeys {
    /// What the log is encrypted by.
    pub current: DataKey,
    /// What it is being encrypted by anew. Kept before the first byte is written by it.
    pub pending: Option<DataKey>,
    /// Whether the log still has to be encrypted anew: its key once lay on the disk for all to see.
    pub needs_rotation: bool,
}

impl DataKeys {
    /// The keys of a new log.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<DataKeys, IdentityError> {
        Ok(DataKeys { current: DataKey::generate()?, pending: None, needs_rotation: false })
    }

    /// The keys while the log is encrypted anew. A rotation that was cut off goes on with the key that it had.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn rotating(&self) -> Result<DataKeys, IdentityError> {
        let pending = self.pending.clone().map_or_else(DataKey::generate, Ok)?;
        Ok(DataKeys { current: self.current.clone(), pending: Some(pending), needs_rotation: false })
    }

    /// The keys once the log is encrypted anew.
    pub fn rotated(&self) -> DataKeys {
        let current = self.pending.clone().unwrap_or_else(|| self.current.clone());
        DataKeys { current, pending: None, needs_rotation: self.needs_rotation }
    }
}

/// The content of a key file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// PKCS#8, PEM.
    pub(crate) key_pem: String,
    pub(crate) data_keys: Option<DataKeys>,
}

/// A key file as it lies on the disk.
pub(crate) struct KeyFile(Pem);

/// The content of a key file could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// It takes an unlock key.
    Locked,
    /// It takes another unlock key, or was changed.
    WrongKey,
    /// It is damaged.
    Unreadable,
}

impl KeyFile {
    pub(crate) fn parse(text: &str) -> Result<KeyFile, OpenError> {
        let pem = pem::parse(text).map_err(|_| OpenError::Unreadable)?;
        match pem.tag() {
            PLAIN | LOCKED => Ok(KeyFile(pem)),
            _ => Err(OpenError::Unreadable),
        }
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.0.tag() == LOCKED
    }

    /// The version of the unlock key, or of there being none: the cluster's when it last changed.
    pub(crate) fn version(&self) -> u64 {
        self.0.headers().get(VERSION).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    pub(crate) fn open(&self, key: Option<&UnlockKey>) -> Result<Secrets, OpenError> {
        let key = match (self.is_locked(), key) {
            (false, _) => None,
            (true, None) => return Err(OpenError::Locked),
            (true, Some(key)) => Some(key),
        };
        let unseal = |place: &str, bytes: &[u8]| match key {
            Some(key) => unseal(key, place, bytes),
            None => Ok(bytes.to_vec()),
        };
        let header = |name: &str| -> Result<Option<DataKey>, OpenError> {
            let Some(text) = self.0.headers().get(name) else { return Ok(None) };
            let bytes = STANDARD.decode(text.trim()).map_err(|_| OpenError::Unreadable)?;
            let bytes = unseal(name, &bytes)?.try_into().map_err(|_| OpenError::Unreadable)?;
            Ok(Some(DataKey(bytes)))
        };
        let key_der = unseal(PLAIN, self.0.contents())?;
        let needs_rotation = self.0.headers().get(NEEDS_ROTATION).is_some();
        let data_keys = match (header(CURRENT)?, header(PENDING)?) {
            (None, None) => None,
            (None, Some(_)) => return Err(OpenError::Unreadable),
            (Some(current), pending) => Some(DataKeys { current, pending, needs_rotation }),
        };
        Ok(Secrets { key_pem: encode(&Pem::new(PLAIN, key_der)), data_keys })
    }
}

impl Secrets {
    /// The file, encrypted where there is an unlock key.
    pub(crate) fn seal(&self, key: Option<&UnlockKey>, version: u64) -> Result<String, IdentityError> {
        let unreadable = || IdentityError::Unreadable { what: "the node's key" };
        let block = pem::parse(&self.key_pem).map_err(|_| unreadable())?;
        if block.tag() != PLAIN {
            return Err(unreadable());
        }
        let sealed = |place: &str, bytes: &[u8]| match key {
            Some(key) => seal(key, place, bytes),
            None => Ok(bytes.to_vec()),
        };
        let label = if key.is_some() { LOCKED } else { PLAIN };
        let mut pem = Pem::new(label, sealed(PLAIN, block.contents())?);
        let mut headers = vec![(VERSION, version.to_string())];
        if let Some(keys) = &self.data_keys {
            headers.push((CURRENT, STANDARD.encode(sealed(CURRENT, &keys.current.0)?)));
            if let Some(pending) = &keys.pending {
                headers.push((PENDING, STANDARD.encode(sealed(PENDING, &pending.0)?)));
            }
            if keys.needs_rotation {
                headers.push((NEEDS_ROTATION, "true".to_owned()));
            }
        }
        for (name, value) in headers {
            pem.headers_mut().add(name, &value).map_err(|_| unreadable())?;
        }
        Ok(encode(&pem))
    }
}

fn encode(pem: &Pem) -> String {
    pem::encode_config(pem, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| IdentityError::Unreadable { what: "the system's randomness" })?;
    Ok(bytes)
}

fn derive(key: &UnlockKey, salt: &[u8]) -> LessSafeKey {
    let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(key.bytes());
    let material = pseudorandom.expand(&[b"skep node key"], &CHACHA20_POLY1305);
    LessSafeKey::new(UnboundKey::from(material.expect("one key is shorter than HKDF's longest output")))
}

/// The key is used once: any nonce will do.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn seal(key: &UnlockKey, place: &str, bytes: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let salt = random::<SALT_BYTES>()?;
    let mut text = bytes.to_vec();
    let sealed = derive(key, &salt).seal_in_place_append_tag(nonce(), Aad::from(place), &mut text);
    sealed.map_err(|_| IdentityError::Unreadable { what: "a key that is too long" })?;
    Ok([&salt[..], &text].concat())
}

fn unseal(key: &UnlockKey, place: &str, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
    let (salt, sealed) = bytes.split_at_checked(SALT_BYTES).ok_or(OpenError::Unreadable)?;
    let mut text = sealed.to_vec();
    let opened = derive(key, salt).open_in_place(nonce(), Aad::from(place), &mut text);
    opened.map(|plain| plain.to_vec()).map_err(|_| OpenError::WrongKey)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;
    use crate::NodeKey;

    fn secrets() -> Secrets {
        let data_keys =
            DataKeys { current: DataKey([1; 32]), pending: Some(DataKey([2; 32])), needs_rotation: true };
        Secrets { key_pem: NodeKey::generate().unwrap().pem(), data_keys: Some(data_keys) }
    }

    fn reopen(text: &str, key: Option<&UnlockKey>) -> Result<Secrets, OpenError> {
        KeyFile::parse(text)?.open(key)
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_key_alone() {
        let secrets = secrets();
        let (key, other) = (UnlockKey::new([7; 32]), UnlockKey::new([8; 32]));
        let text = secrets.seal(Some(&key), 12).unwrap();
        let file = KeyFile::parse(&text).unwrap();
        assert!(file.is_locked());
        assert_eq!(file.version(), 12);
        assert!(file.open(Some(&key)) == Ok(secrets.clone()));
        assert_eq!(file.open(None).err(), Some(OpenError::Locked));
        assert_eq!(file.open(Some(&other)).err(), Some(OpenError::WrongKey));
        assert_ne!(text, secrets.seal(Some(&key), 12).unwrap(), "no two encryptions are alike");
    }

    #[test]
    fn an_open_file_is_what_swarmkit_would_write() {
        let text = secrets().seal(None, 3).unwrap();
        let encoded = STANDARD.encode([1; 32]);
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{text}");
        assert!(text.contains("kek-version: 3\n"), "{text}");
        assert!(text.contains(&format!("raft-dek: {encoded}\n")), "{text}");
        assert!(reopen(&text, None) == Ok(secrets_of(&text)));
    }

    fn secrets_of(text: &str) -> Secrets {
        reopen(text, Some(&UnlockKey::new([0; 32]))).unwrap()
    }

    #[test]
    fn sealed_values_cannot_change_places() {
        let key = UnlockKey::new([7; 32]);
        let text = secrets().seal(Some(&key), 0).unwrap();
        let swapped = text
            .replace("raft-dek-pending:", "x:")
            .replace("raft-dek:", "raft-dek-pending:")
            .replace("x:", "raft-dek:");
        assert_eq!(reopen(&swapped, Some(&key)).err(), Some(OpenError::WrongKey));
    }

    #[test]
    fn a_file_of_a_key_without_headers_is_read() {
        let pem = NodeKey::generate().unwrap().pem();
        assert!(reopen(&pem, None).is_ok_and(|secrets| secrets.data_keys.is_none()));
    }

    #[test]
    fn keys_of_the_log_are_rotated_and_a_rotation_goes_on() {
        let keys = DataKeys { needs_rotation: true, ..DataKeys::generate().unwrap() };
        let rotating = keys.rotating().unwrap();
        assert!(rotating.pending.is_some() && !rotating.needs_rotation && rotating.current == keys.current);
        assert_eq!(rotating.rotating().unwrap(), rotating);
        let rotated = rotating.rotated();
        assert_eq!((Some(rotated.current.clone()), rotated.pending.clone()), (rotating.pending, None));
        assert_eq!(format!("{:?}", rotated.current), "DataKey(***)");
    }

    proptest! {
        #[test]
        fn damage_is_never_taken_for_content(at in 0usize..2000, byte in 0x20u8..0x7f) {
            let key = UnlockKey::new([7; 32]);
            let secrets = secrets();
            let text = secrets.seal(Some(&key), 1).unwrap();
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let damaged = String::from_utf8(bytes).unwrap();
            // What is not encrypted may change: the version, and whether a rotation is due.
            if let Ok(opened) = reopen(&damaged, Some(&key)) {
                prop_assert_eq!(opened.key_pem, secrets.key_pem);
            }
            let _ = reopen(&text[..at], Some(&key));
        }
    }
}
