//! What is kept of a container: a record that never changes, and its state.
//!
//! `container.json` is the record. It is on the disk before creation is acknowledged. `state.json` is everything that
//! changes, and is not forced to the disk: after the daemon's death the kernel still has it, the shim's own files tell
//! what came later, and after a loss of power no container runs any more whatever it says. A torn `state.json` costs
//! the last exit code, never the container. So a start costs no fsync.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_images::ImageId;
use skep_types::container::{ContainerConfig, EndpointRequest};
use skep_types::health::Health;
use skep_types::mount::Propagation;
use skep_types::{ContainerId, Time};

use crate::disk::{self, Durability};
use crate::networks::place::Connection;
use crate::view::{StateView, Status};

/// Format of `container.json` that this version writes.
const FORMAT: u32 = 1;

/// What creation decided about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) created: Time,
    pub(crate) image_id: ImageId,
    /// Merged with the image's.
    pub(crate) config: ContainerConfig,
    pub(crate) mounts: Vec<MountRecord>,
}

/// A mount with everything decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) target: PathBuf,
    pub(crate) source: MountedFrom,
    pub(crate) read_only: bool,
}

/// Where a mount's content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountedFrom {
    Bind {
        path: PathBuf,
        create_missing: bool,
        propagation: Propagation,
    },
    Volume {
        name: String,
        anonymous: bool,
        no_copy: bool,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    Tmpfs {
        size_bytes: u64,
        mode: u32,
    },
}

impl Record {
    pub(crate) fn new(
        id: ContainerId,
        name: String,
        created: Time,
        image_id: ImageId,
        config: ContainerConfig,
        mounts: Vec<MountRecord>,
    ) -> Record {
        Record { format: FORMAT, id, name, created, image_id, config, mounts }
    }

    /// Program and arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let parts = [&self.config.entrypoint, &self.config.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }

    /// The names of its volumes.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountedFrom::Volume { name, .. } => Some(name.as_str()),
            MountedFrom::Bind { .. } | MountedFrom::Tmpfs { .. } => None,
        })
    }
}

/// What changes about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// 0 unless it runs.
    pub(crate) pid: u32,
    pub(crate) exit_code: i32,
    /// Why its last start failed.
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Option<Time>,
    pub(crate) finished_at: Option<Time>,
    /// What is known of its health, where that is probed.
    #[serde(default)]
    pub(crate) health: Option<Health>,
    /// Its network, from before its start to after its end.
    pub(crate) connection: Option<Connection>,
    /// How often it ended, or failed to start, under this daemon: what a wait for the next exit counts.
    #[serde(skip)]
    pub(crate) ends: u64,
    /// Whether it was removed: the end of all waits.
    #[serde(skip)]
    pub(crate) gone: bool,
}

impl State {
    pub(crate) fn created() -> State {
        State {
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            health: None,
            connection: None,
            ends: 0,
            gone: false,
        }
    }

    /// The status of a container that does not run.
    pub(crate) fn idle_status(&self) -> Status {
        if self.started_at.is_some() { Status::Exited } else { Status::Created }
    }

    pub(crate) fn view(&self) -> StateView {
        StateView {
            status: self.status,
            pid: self.pid,
            exit_code: self.exit_code,
            error: self.error.clone(),
            oom_killed: self.oom_killed,
            started_at: self.started_at,
            finished_at: self.finished_at,
            health: self.health,
        }
    }
}

/// A container's folder.
#[derive(Clone, Debug)]
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn new(containers: &Path, id: ContainerId) -> Home {
        Home(containers.join(id.to_string()))
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub(crate) fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    pub(crate) fn log(&self, id: ContainerId) -> PathBuf {
        self.0.join(format!("{id}-json.log"))
    }

    fn wishes(&self) -> PathBuf {
        self.0.join("networks.json")
    }

    fn record(&self) -> PathBuf {
        self.0.join("container.json")
    }

    fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Makes the folder with the record in it; when this returns, a loss of power does not lose the container.
    ///
    /// That takes one flush, the dearest thing in `docker run`: the record is flushed and then renamed, and
    /// [`Home::read_record`] finishes a renaming that a loss of power undid.
    pub(crate) fn found(&self, record: &Record) -> io::Result<()> {
        std::fs::create_dir(&self.0)?;
        // Docker's mode: users must be able to reach files that are bind-mounted from here, nothing else.
        std::fs::set_permissions(&self.0, std::os::unix::fs::PermissionsExt::from_mode(0o710))?;
        disk::make_dir(&self.upper(), 0o755)?;
        disk::make_dir(&self.work(), 0o755)?;
        // Written last: a folder without it is a creation that nobody was told of.
        disk::write_json(&self.record(), record, Durability::Content)
    }

    /// Reads the record; `None` when the creation was never finished.
    pub(crate) fn read_record(&self) -> io::Result<Option<Record>> {
        let record: Option<Record> = match disk::read_json(&self.record())? {
            Some(record) => Some(record),
            None => self.finish_founding()?,
        };
        match record {
            Some(record) if record.format > FORMAT => {
                Err(io::Error::other(format!("it has format {}, this version reads {FORMAT}", record.format)))
            }
            record => Ok(record),
        }
    }

    /// Renames a record that is whole. One that is not is a creation that nobody was told of.
    fn finish_founding(&self) -> io::Result<Option<Record>> {
        let temporary = disk::temporary(&self.record());
        let Ok(Some(record)) = disk::read_json::<Record>(&temporary) else { return Ok(None) };
        std::fs::rename(temporary, self.record())?;
        Ok(Some(record))
    }

    /// The networks that the container is to be on, where they are others than it was created for.
    pub(crate) fn read_wishes(&self) -> io::Result<Option<Vec<EndpointRequest>>> {
        disk::read_json(&self.wishes())
    }

    /// Writes them down for good: a user was told of them.
    pub(crate) fn write_wishes(&self, wishes: &[EndpointRequest]) -> io::Result<()> {
        disk::write_json(&self.wishes(), &wishes, Durability::Disk)
    }

    pub(crate) fn read_state(&self) -> io::Result<Option<State>> {
        disk::read_json(&self.state())
    }

    pub(crate) fn write_state(&self, state: &State) -> io::Result<()> {
        disk::write_json(&self.state(), state, Durability::Kernel)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let id = ContainerId([3; 32]);
        let home = Home::new(dir.path(), id);
        let config = ContainerConfig { cmd: Some(vec!["true".to_owned()]), ..ContainerConfig::default() };
        let image = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let record = Record::new(id, "web".to_owned(), Time(1), image, config, Vec::new());
        home.found(&record).unwrap();
        assert_eq!(home.read_record().unwrap(), Some(record.clone()));
        // A loss of power undid the renaming, then tore the file.
        std::fs::rename(home.record(), disk::temporary(&home.record())).unwrap();
        assert_eq!(home.read_record().unwrap(), Some(record));
        std::fs::remove_file(home.record()).unwrap();
        std::fs::write(disk::temporary(&home.record()), "{\"format").unwrap();
        assert_eq!(home.read_record().unwrap(), None);
        assert_eq!(home.read_state().unwrap(), None);
        let state = State { exit_code: 3, ..State::created() };
        home.write_state(&state).unwrap();
        assert_eq!(home.read_state().unwrap(), Some(state));
    }

    #[test]
    fn a_record_of_a_later_version_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), ContainerId([3; 32]));
        std::fs::create_dir(&home.0).unwrap();
        assert!(home.read_record().unwrap().is_none());
        std::fs::write(home.record(), "{}").unwrap();
        assert!(home.read_record().is_err());
    }
}
