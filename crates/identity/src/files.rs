//! Where certificates and keys are kept: Docker's names under `<data-root>/swarm/certificates`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{IdentityError, NodeCertificate, RootCa};

const ROOT_CERTIFICATE: &str = "swarm-root-ca.crt";
const ROOT_KEY: &str = "swarm-root-ca.key";
const NODE_CERTIFICATE: &str = "swarm-node.crt";
const NODE_KEY: &str = "swarm-node.key";

/// Mode of what everybody may read.
const PUBLIC: u32 = 0o644;
/// Mode of keys.
const SECRET: u32 = 0o600;

/// The folder of a node's certificates and keys.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
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
}

impl Files {
    /// The certificates in `dir`, which need not exist yet.
    pub fn new(dir: PathBuf) -> Files {
        Files { dir }
    }

    /// Keeps the authority: certificate readable by all, key by root.
    ///
    /// # Errors
    /// See [`FilesError::Disk`].
    pub fn save_root(&self, root: &RootCa) -> Result<(), FilesError> {
        self.write(ROOT_KEY, SECRET, root.key_pem().as_bytes())?;
        self.write(ROOT_CERTIFICATE, PUBLIC, root.certificate_pem().as_bytes())
    }

    /// The kept authority.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn load_root(&self) -> Result<RootCa, FilesError> {
        let certificate = self.read(ROOT_CERTIFICATE)?;
        let key = self.read(ROOT_KEY)?;
        RootCa::from_pem(certificate, &key)
            .map_err(|source| FilesError::Damaged { path: self.dir.join(ROOT_KEY), source })
    }

    /// Keeps this node's certificate and key.
    ///
    /// # Errors
    /// See [`FilesError::Disk`].
    pub fn save_node(&self, node: &NodeCertificate) -> Result<(), FilesError> {
        self.write(NODE_KEY, SECRET, node.key_pem.as_bytes())?;
        self.write(NODE_CERTIFICATE, PUBLIC, node.chain_pem.as_bytes())
    }

    /// The kept certificate and key of this node.
    ///
    /// # Errors
    /// See [`FilesError::Disk`].
    pub fn load_node(&self) -> Result<NodeCertificate, FilesError> {
        Ok(NodeCertificate { chain_pem: self.read(NODE_CERTIFICATE)?, key_pem: self.read(NODE_KEY)? })
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
    use crate::Role;

    #[test]
    fn what_is_kept_is_found_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().join("certificates"));
        let now = SystemTime::now();
        let root = RootCa::generate(now).unwrap();
        let node = root.issue("n", Role::Manager, "c", now, Duration::from_secs(3600)).unwrap();
        for _ in 0..2 {
            files.save_root(&root).unwrap();
            files.save_node(&node).unwrap();
        }
        assert_eq!(files.load_root().unwrap().digest(), root.digest());
        assert_eq!(files.load_node().unwrap(), node);
        let mut kept: Vec<(String, u32)> = std::fs::read_dir(dir.path().join("certificates"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        kept.sort();
        let expected =
            [(NODE_CERTIFICATE, PUBLIC), (NODE_KEY, SECRET), (ROOT_CERTIFICATE, PUBLIC), (ROOT_KEY, SECRET)];
        assert_eq!(kept, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn a_missing_file_is_named() {
        let files = Files::new(PathBuf::from("/nonexistent"));
        assert_eq!(files.load_node().unwrap_err().to_string(), "cannot read /nonexistent/swarm-node.crt");
    }
}
