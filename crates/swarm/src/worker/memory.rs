//! What a node is responsible for, kept on disk: a daemon that starts while no manager answers goes on with it.
//!
//! In clear, also under autolock: most nodes are workers, which have no key that the disk does not hold, and the
//! engine keeps the same settings with each container that it made of them. What must not be on a node's disk is left
//! out: the keys of encrypted networks, and the credentials that images are pulled with. The process that has the keys
//! outlives the daemon; after a reboot the node waits for a manager to say them again, as it does for the peers that they
//! are for. An image that is not there yet is pulled once a manager has said the task again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_types::assignment::{Assignment, Duty, DutyId};
use tracing::warn;

use crate::codec;

/// The duties of this node, as its leaders last said.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    duties: BTreeMap<DutyId, Duty>,
}

impl Memory {
    /// Takes what a former agent left at `path`. What cannot be read is forgotten: a leader says it again.
    pub(super) fn open(path: PathBuf) -> Memory {
        let duties = match std::fs::read(&path) {
            Ok(bytes) => codec::decode::<Vec<Duty>>(&bytes).unwrap_or_else(|error| {
                warn!(%error, path = %path.display(), "cannot read this node's duties: a manager will say them");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                warn!(%error, path = %path.display(), "cannot read this node's duties: a manager will say them");
                Vec::new()
            }
        };
        let duties = duties.into_iter().filter(may_be_kept).map(|duty| (duty.id(), duty)).collect();
        Memory { path, duties }
    }

    /// All duties.
    pub(super) fn duties(&self) -> Vec<Duty> {
        self.duties.values().cloned().collect()
    }

    /// Takes a leader's word.
    pub(super) fn take(&mut self, assignment: &Assignment) {
        let update = match assignment {
            Assignment::Complete(duties) => {
                self.duties.clear();
                duties
            }
            Assignment::Incremental { update, remove } => {
                for duty in remove {
                    self.duties.remove(duty);
                }
                update
            }
        };
        let kept = update.iter().filter(|duty| may_be_kept(duty));
        self.duties.extend(kept.map(|duty| (duty.id(), without_credentials(duty.clone()))));
    }

    /// What writes the duties as they are now, on a thread that may wait for the disk.
    pub(super) fn writing(&self) -> impl FnOnce() + Send + 'static {
        let bytes = codec::encode(&self.duties.values().collect::<Vec<_>>());
        let path = self.path.clone();
        move || {
            if let Err(error) = write(&path, &bytes) {
                warn!(%error, path = %path.display(), "cannot keep this node's duties");
            }
        }
    }
}

fn may_be_kept(duty: &Duty) -> bool {
    !matches!(duty, Duty::Tunnel(_) | Duty::TunnelPeer(_))
}

fn without_credentials(duty: Duty) -> Duty {
    match duty {
        Duty::Task(mut task) if task.spec.container.registry_auth.is_some() => {
            Arc::make_mut(&mut task.spec).container.registry_auth = None;
            Duty::Task(task)
        }
        other => other,
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // Tasks' settings may be confidential.
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    // Whether the name is durable too does not matter: the file before it is as whole, only older.
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use std::os::unix::fs::PermissionsExt;

    use skep_types::ServiceId;
    use skep_types::assignment::Endpoint;
    use skep_types::resources::Resources;
    use skep_types::service::ServiceContainer;
    use skep_types::swarm::Secret;
    use skep_types::tunnel::{NetworkKey, Tunnel};

    use super::*;
    use crate::container::tests::task;

    fn endpoint(service: u128, name: &str) -> Duty {
        let (ports, backends) = (Vec::new(), Vec::new());
        Duty::Endpoint(Endpoint { service: ServiceId(service), name: name.to_owned(), ports, backends })
    }

    #[test]
    fn duties_survive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("duties");
        let mut memory = Memory::open(path.clone());
        assert!(memory.duties().is_empty());
        memory.take(&Assignment::Complete(vec![endpoint(1, "one"), endpoint(2, "two")]));
        memory.take(&Assignment::Incremental {
            update: vec![endpoint(3, "three"), endpoint(2, "deux")],
            remove: vec![DutyId::Endpoint(ServiceId(1))],
        });
        let expected = vec![endpoint(2, "deux"), endpoint(3, "three")];
        assert_eq!(memory.duties(), expected);
        memory.writing()();
        assert_eq!(Memory::open(path.clone()).duties(), expected);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        memory.take(&Assignment::Complete(Vec::new()));
        memory.writing()();
        assert!(Memory::open(path).duties().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn keys_of_encrypted_networks_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("duties");
        let keys = vec![NetworkKey { number: 1, secret: [0x5e; 32] }];
        let host = [192, 0, 2, 1].into();
        let secret = Duty::Tunnel(Tunnel { host, port: 4790, keys });
        let mut memory = Memory::open(path.clone());
        memory.take(&Assignment::Complete(vec![secret.clone(), endpoint(1, "one")]));
        memory.writing()();
        assert_eq!(memory.duties(), [endpoint(1, "one")]);
        // What a former version wrote is forgotten, too.
        write(&path, &codec::encode(&vec![secret])).unwrap();
        assert!(Memory::open(path).duties().is_empty());
    }

    #[test]
    fn credentials_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("duties");
        let registry_auth = Some(Secret("e30-very-secret".to_owned()));
        let container = ServiceContainer { registry_auth, ..ServiceContainer::default() };
        let told = Duty::Task(Box::new(task(container, Resources::default())));
        let plain = Duty::Task(Box::new(task(ServiceContainer::default(), Resources::default())));
        let mut memory = Memory::open(path.clone());
        memory.take(&Assignment::Complete(vec![told]));
        memory.writing()();
        assert_eq!(Memory::open(path.clone()).duties(), [plain]);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn what_cannot_be_read_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("duties");
        for damage in [&b""[..], b"\x01garbage", b"\x09"] {
            std::fs::write(&path, damage).unwrap();
            assert!(Memory::open(path.clone()).duties().is_empty());
        }
    }
}
