//! What a node remembers of its membership, beside the log: `node.json`. Its presence is the membership: it is
//! the last thing that is written when a node enters a swarm, and the first that goes when it leaves.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_types::{ClusterId, NodeId};

const FILE: &str = "node.json";
const MANAGERS: &str = "managers.json";

/// A node's membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// `address:port`
    pub(crate) listen_addr: String,
    /// `address:port`
    pub(crate) advertise_addr: String,
    /// The advertised address without its port.
    pub(crate) address: IpAddr,
    /// Where the overlay networks' traffic goes; `None` follows `address`.
    pub(crate) data_path_addr: Option<IpAddr>,
    /// The node's seat in the consensus, while it is a manager.
    #[serde(default)]
    pub(crate) seat: Option<u64>,
    /// The managers that let the node in, `host:port`: whom it asks while it knows no others.
    #[serde(default)]
    pub(crate) joined_at: Vec<String>,
}

/// The node's membership could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub(crate) struct RecordError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The folder of a node's swarm state.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
}

impl Folder {
    pub(crate) fn new(dir: PathBuf) -> Folder {
        Folder { dir }
    }

    /// Where the log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where the agent remembers its duties.
    pub(crate) fn duties(&self) -> PathBuf {
        self.dir.join("duties")
    }

    /// Where certificates and keys are.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> RecordError {
        RecordError { action, path: path.to_owned(), source }
    }

    /// The membership; `None` for a node that is in no swarm.
    pub(crate) fn read(&self) -> Result<Option<Record>, RecordError> {
        let path = self.dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| self.failed("read", &path, io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", &path, error)),
        }
    }

    /// Makes the folder, for root alone.
    pub(crate) fn create(&self) -> Result<(), RecordError> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        created.map_err(|error| self.failed("create", &self.dir, error))
    }

    /// Enters the swarm, durably.
    pub(crate) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.dir.join(FILE);
        self.replace(FILE, record).map_err(|error| self.failed("write", &path, error))
    }

    /// The managers that the node knew last, by `address:port`; none where it was never told.
    pub(crate) fn managers(&self) -> Result<BTreeMap<NodeId, String>, RecordError> {
        let path = self.dir.join(MANAGERS);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| self.failed("read", &path, io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(self.failed("read", &path, error)),
        }
    }

    /// Keeps the managers for the next start.
    pub(crate) fn remember_managers(&self, managers: &BTreeMap<NodeId, String>) -> Result<(), RecordError> {
        let path = self.dir.join(MANAGERS);
        self.replace(MANAGERS, managers).map_err(|error| self.failed("write", &path, error))
    }

    /// Forgets the log, whether or not there is one.
    pub(crate) fn wipe_log(&self) -> Result<(), RecordError> {
        let path = self.log();
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", &path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a file whole or not at all, also if the power fails.
    fn replace(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let temporary = self.dir.join(format!(".{name}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Forgets everything, the membership first: a crash in between leaves a node in no swarm.
    pub(crate) fn wipe(&self) -> Result<(), RecordError> {
        let path = self.dir.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("remove", &path, error));
            }
            Ok(()) | Err(_) => {}
        }
        let emptied = || -> io::Result<()> {
            File::open(&self.dir)?.sync_all()?;
            for entry in std::fs::read_dir(&self.dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        match emptied() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("empty", &self.dir, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn a_membership_is_kept_until_it_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("swarm"));
        assert_eq!(folder.read().unwrap(), None);
        folder.wipe().unwrap();
        folder.create().unwrap();
        let record = Record {
            cluster: ClusterId(1),
            node: NodeId(2),
            listen_addr: "0.0.0.0:2377".to_owned(),
            advertise_addr: "192.0.2.1:2377".to_owned(),
            address: "192.0.2.1".parse().unwrap(),
            data_path_addr: None,
            seat: Some(3),
            joined_at: vec!["192.0.2.9:2377".to_owned()],
        };
        folder.write(&record).unwrap();
        std::fs::create_dir_all(folder.log().join("deep")).unwrap();
        assert_eq!(folder.read().unwrap(), Some(record));
        folder.wipe().unwrap();
        assert_eq!(folder.read().unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path().join("swarm")).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_membership_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        let error = Folder::new(dir.path().to_owned()).read().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", dir.path().join(FILE).display()));
    }
}
