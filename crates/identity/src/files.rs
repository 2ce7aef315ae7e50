//! Where certificates and keys are kept: Docker's names under `<data-root>/swarm/certificates`.
//!
//! The key of the cluster's root is not among them: it is in the managers' log, which is encrypted.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::key_file::{KeyFile, OpenError, Secrets};
use crate::{DataKeys, IdentityError, NodeCertificate, NodeKey, Trust, UnlockKey};

const ROOT_CERTIFICATE: &str = "swarm-root-ca.crt";
const NODE_CERTIFICATE: &str = "swarm-node.crt";
const NODE_KEY: &str = "swarm-node.key";
/// Where a new certificate waits until its key is written. SwarmKit's name.
const NEXT_CERTIFICATE: &str = ".swarm-node.crt";

/// Mode of what everybody may read.
const PUBLIC: u32 = 0o644;
/// Mode of keys.
const SECRET: u32 = 0o600;

/// The folder of a node's certificates and keys. Clones share what they know of the unlock key, and write one
/// after the other.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    unlock_key: Arc<Mutex<Option<UnlockKey>>>,
}

/// A certificate or key could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The disk refused.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what its name says.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// The key is encrypted, and [`Files::unlock`] was not called.
    #[error("{} is locked", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted by another key. SwarmKit's words are for users, and the caller's.
    #[error("this key does not unlock {}", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
}

/// What came of [`Files::relock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relock {
    /// The file is encrypted by that key already, or by a newer one.
    Unchanged,
    /// The file is encrypted by the new key, or no longer.
    Changed,
    /// The file is encrypted and was not before. The log's key lay open until now:
    /// [`DataKeys::needs_rotation`] is set.
    Began,
}

impl Files {
    /// The certificates in `dir`, which need not exist yet.
    pub fn new(dir: PathBuf) -> Files {
        Files { dir, unlock_key: Arc::default() }
    }

    /// Keeps the roots that this node trusts, PEM.
    ///
    /// # Errors
    /// See [`FilesError::Disk`].
    pub fn save_roots(&self, trust: &Trust) -> Result<(), FilesError> {
        self.write(ROOT_CERTIFICATE, PUBLIC, trust.pem().as_bytes())
    }

    /// The roots that this node trusts.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn load_roots(&self) -> Result<Trust, FilesError> {
        Trust::parse(&self.read(ROOT_CERTIFICATE)?).map_err(|source| self.damaged(ROOT_CERTIFICATE, source))
    }

    /// Keeps the certificate and key of a node that is new in a swarm, in place of whatever was here, with the keys
    /// of its log and, where managers are locked, encrypted from the start: `version` is the cluster's.
    ///
    /// # Errors
    /// See [`FilesError::Disk`].
    pub fn create(
        &self,
        node: &NodeCertificate,
        data_keys: Option<DataKeys>,
        key: Option<UnlockKey>,
        version: u64,
    ) -> Result<(), FilesError> {
        let mut held = self.hold();
        self.write(NEXT_CERTIFICATE, PUBLIC, node.chain_pem.as_bytes())?;
        let secrets = Secrets { key_pem: node.key_pem.clone(), data_keys };
        self.seal(&secrets, key.as_ref(), version)?;
        *held = key;
        self.take_next()
    }

    /// Keeps this node's certificate and key. What the key's file says of the log stays. Whenever the power fails,
    /// there is a certificate for the key.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn save_node(&self, node: &NodeCertificate) -> Result<(), FilesError> {
        let held = self.hold();
        let (data_keys, version) = match self.open(held.as_ref()) {
            Ok((secrets, version)) => (secrets.data_keys, version),
            Err(FilesError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => (None, 0),
            Err(error) => return Err(error),
        };
        // As SwarmKit's KeyReadWriter.Write: there is one key, and two certificates for a moment.
        self.write(NEXT_CERTIFICATE, PUBLIC, node.chain_pem.as_bytes())?;
        let secrets = Secrets { key_pem: node.key_pem.clone(), data_keys };
        self.seal(&secrets, held.as_ref(), version)?;
        self.take_next()
    }

    /// The kept certificate and key of this node.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn load_node(&self) -> Result<NodeCertificate, FilesError> {
        let held = self.hold();
        let key_pem = self.open(held.as_ref())?.0.key_pem;
        let key = NodeKey::from_pem(&key_pem).map_err(|source| self.damaged(NODE_KEY, source))?;
        let kept = self.read(NODE_CERTIFICATE).map(|chain_pem| (key.is_certified_by(&chain_pem), chain_pem));
        match kept {
            Ok((Ok(true), chain_pem)) => Ok(NodeCertificate { chain_pem, key_pem }),
            kept => match self.read(NEXT_CERTIFICATE) {
                Ok(chain_pem) if matches!(key.is_certified_by(&chain_pem), Ok(true)) => {
                    self.take_next()?;
                    Ok(NodeCertificate { chain_pem, key_pem })
                }
                Ok(_) | Err(_) => {
                    let fits = kept?.0.map_err(|source| self.damaged(NODE_CERTIFICATE, source))?;
                    assert!(!fits, "one that fits was returned");
                    Err(self.damaged(NODE_CERTIFICATE, IdentityError::KeyMismatch))
                }
            },
        }
    }

    /// Whether the key is encrypted and no unlock key is known for it.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn is_locked(&self) -> Result<bool, FilesError> {
        let held = self.hold();
        Ok(self.parse()?.is_locked() && held.is_none())
    }

    /// Gives the key that unlocks the node's. It is remembered until this folder is forgotten.
    ///
    /// # Errors
    /// [`FilesError::WrongKey`] when it is another one; see [`FilesError`].
    pub fn unlock(&self, key: UnlockKey) -> Result<(), FilesError> {
        let mut held = self.hold();
        let file = self.parse()?;
        if file.is_locked() {
            file.open(Some(&key)).map_err(|error| self.not_opened(error))?;
            *held = Some(key);
        }
        Ok(())
    }

    /// Encrypts the key and those of the log by another unlock key; `None` encrypts no longer. `version` is the
    /// cluster's: what is older than what was done already is not done. As SwarmKit's `MaybeUpdateKEK`.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn relock(&self, key: Option<UnlockKey>, version: u64) -> Result<Relock, FilesError> {
        let mut held = self.hold();
        let (mut secrets, done) = self.open(held.as_ref())?;
        if version <= done || *held == key {
            return Ok(Relock::Unchanged);
        }
        let begins = held.is_none() && key.is_some();
        if let Some(keys) = secrets.data_keys.as_mut().filter(|_| begins) {
            keys.needs_rotation = true;
        }
        self.seal(&secrets, key.as_ref(), version)?;
        *held = key;
        Ok(if begins { Relock::Began } else { Relock::Changed })
    }

    /// The keys of the managers' log; `None` where this node has none.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn data_keys(&self) -> Result<Option<DataKeys>, FilesError> {
        let held = self.hold();
        Ok(self.open(held.as_ref())?.0.data_keys)
    }

    /// Keeps the keys of the managers' log; `None` forgets them.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn set_data_keys(&self, data_keys: Option<DataKeys>) -> Result<(), FilesError> {
        let held = self.hold();
        let (secrets, version) = self.open(held.as_ref())?;
        self.seal(&Secrets { data_keys, ..secrets }, held.as_ref(), version)
    }

    fn hold(&self) -> MutexGuard<'_, Option<UnlockKey>> {
        self.unlock_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, name: &str, source: IdentityError) -> FilesError {
        FilesError::Damaged { path: self.dir.join(name), source }
    }

    fn not_opened(&self, error: OpenError) -> FilesError {
        let path = self.dir.join(NODE_KEY);
        match error {
            OpenError::Locked => FilesError::Locked { path },
            OpenError::WrongKey => FilesError::WrongKey { path },
            OpenError::Unreadable => {
                self.damaged(NODE_KEY, IdentityError::Unreadable { what: "the node's key" })
            }
        }
    }

    fn parse(&self) -> Result<KeyFile, FilesError> {
        KeyFile::parse(&self.read(NODE_KEY)?).map_err(|error| self.not_opened(error))
    }

    fn open(&self, key: Option<&UnlockKey>) -> Result<(Secrets, u64), FilesError> {
        let file = self.parse()?;
        let secrets = file.open(key).map_err(|error| self.not_opened(error))?;
        Ok((secrets, file.version()))
    }

    fn seal(&self, secrets: &Secrets, key: Option<&UnlockKey>, version: u64) -> Result<(), FilesError> {
        let text = secrets.seal(key, version).map_err(|source| self.damaged(NODE_KEY, source))?;
        self.write(NODE_KEY, SECRET, text.as_bytes())
    }

    /// The certificate that waited for its key takes its place.
    fn take_next(&self) -> Result<(), FilesError> {
        let path = self.dir.join(NODE_CERTIFICATE);
        let renamed = std::fs::rename(self.dir.join(NEXT_CERTIFICATE), &path)
            .and_then(|()| File::open(&self.dir)?.sync_all());
        renamed.map_err(|source| FilesError::Disk { action: "write", path, source })
    }

    fn read(&self, name: &str) -> Result<String, FilesError> {
        let path = self.dir.join(name);
        std::fs::read_to_string(&path).map_err(|source| FilesError::Disk { action: "read", path, source })
    }

    /// Writes a file whole or not at all, also if the power fails.
    fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), FilesError> {
        let path = self.dir.join(name);
        let attempt = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o755).create(&self.dir)?;
            let temporary = self.dir.join(format!(".{name}.new"));
            remove_if_there(&temporary)?;
            // A new file, so that a key is never readable through an older file's mode.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        attempt().map_err(|source| FilesError::Disk { action: "write", path: path.clone(), source })
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Role, RootCa};

    const HOUR: Duration = Duration::from_secs(3600);

    fn root() -> RootCa {
        RootCa::generate(SystemTime::now()).unwrap()
    }

    fn issued(root: &RootCa) -> NodeCertificate {
        root.issue("n", Role::Manager, "c", SystemTime::now(), HOUR).unwrap()
    }

    #[test]
    fn what_is_kept_is_found_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().join("certificates"));
        let root = root();
        let (node, trust) = (issued(&root), Trust::parse(root.certificate_pem()).unwrap());
        for _ in 0..2 {
            files.save_roots(&trust).unwrap();
            files.save_node(&node).unwrap();
        }
        assert_eq!(files.load_roots().unwrap(), trust);
        assert_eq!(files.load_node().unwrap().identity().unwrap(), node.identity().unwrap());
        assert_eq!(files.data_keys().unwrap(), None);
        let mut kept: Vec<(String, u32)> = std::fs::read_dir(dir.path().join("certificates"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        kept.sort();
        let expected = [(NODE_CERTIFICATE, PUBLIC), (NODE_KEY, SECRET), (ROOT_CERTIFICATE, PUBLIC)];
        assert_eq!(kept, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn a_locked_node_opens_by_its_key_alone_and_keeps_its_log_s_key() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned());
        let (first, second) = (UnlockKey::new([1; 32]), UnlockKey::new([2; 32]));
        let root = root();
        files.save_node(&issued(&root)).unwrap();
        let keys = DataKeys::generate().unwrap();
        files.create(&issued(&root), Some(keys.clone()), Some(second.clone()), 3).unwrap();
        assert!(Files::new(dir.path().to_owned()).is_locked().unwrap(), "from the start");
        assert_eq!(files.relock(None, 4).unwrap(), Relock::Changed);
        files.set_data_keys(Some(keys.clone())).unwrap();
        assert_eq!(files.relock(Some(first.clone()), 5).unwrap(), Relock::Began);
        let locked = DataKeys { needs_rotation: true, ..keys };
        assert_eq!(files.data_keys().unwrap(), Some(locked.clone()));

        let restarted = || Files::new(dir.path().to_owned());
        let files = restarted();
        assert!(files.is_locked().unwrap());
        assert!(matches!(files.load_node(), Err(FilesError::Locked { .. })));
        assert!(matches!(files.save_node(&issued(&root)), Err(FilesError::Locked { .. })));
        assert!(matches!(files.unlock(second.clone()), Err(FilesError::WrongKey { .. })));
        files.unlock(first.clone()).unwrap();
        assert!(!files.is_locked().unwrap() && !files.clone().is_locked().unwrap());
        let node = issued(&root);
        files.save_node(&node).unwrap();
        assert_eq!(files.load_node().unwrap().chain_pem, node.chain_pem);

        assert_eq!(files.relock(Some(second.clone()), 4).unwrap(), Relock::Unchanged, "older");
        assert_eq!(files.relock(Some(second.clone()), 6).unwrap(), Relock::Changed);
        let files = restarted();
        assert!(matches!(files.unlock(first), Err(FilesError::WrongKey { .. })));
        files.unlock(second).unwrap();
        assert_eq!(files.data_keys().unwrap(), Some(locked));
        assert_eq!(files.relock(None, 7).unwrap(), Relock::Changed);
        assert!(!restarted().is_locked().unwrap());
        assert_eq!(restarted().load_node().unwrap().chain_pem, node.chain_pem);
    }

    #[test]
    fn a_renewal_that_the_power_cut_leaves_a_certificate_for_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned());
        let root = root();
        let (old, new) = (issued(&root), issued(&root));
        files.save_node(&old).unwrap();
        // Cut after the certificate was written beside the old one.
        files.write(NEXT_CERTIFICATE, PUBLIC, new.chain_pem.as_bytes()).unwrap();
        assert_eq!(files.load_node().unwrap().chain_pem, old.chain_pem);
        // Cut after the key.
        let secrets = Secrets { key_pem: new.key_pem.clone(), data_keys: None };
        files.seal(&secrets, None, 0).unwrap();
        for _ in 0..2 {
            assert_eq!(files.load_node().unwrap().chain_pem, new.chain_pem);
        }
    }

    #[test]
    fn damage_and_absence_are_named() {
        let files = Files::new(PathBuf::from("/nonexistent"));
        assert_eq!(files.load_node().unwrap_err().to_string(), "cannot read /nonexistent/swarm-node.key");
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned());
        let root = root();
        files.save_node(&issued(&root)).unwrap();
        for name in [NODE_KEY, NODE_CERTIFICATE] {
            let whole = files.read(name).unwrap();
            for damaged in ["", "garbage", &whole[..whole.len() / 2]] {
                files.write(name, SECRET, damaged.as_bytes()).unwrap();
                let told = files.load_node().unwrap_err().to_string();
                assert_eq!(told, format!("{} is damaged", dir.path().join(name).display()));
            }
            files.write(name, SECRET, whole.as_bytes()).unwrap();
        }
        files.write(NODE_CERTIFICATE, PUBLIC, issued(&root).chain_pem.as_bytes()).unwrap();
        assert!(files.load_node().is_err(), "another key's");
    }
}
