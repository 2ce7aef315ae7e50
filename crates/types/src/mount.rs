//! Mounts, as containers and services ask for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One mount in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// What appears there.
    pub source: MountSource,
    /// True refuses writes.
    pub read_only: bool,
}

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// `-v` makes the folder when it is missing; `--mount` refuses.
        create_missing: bool,
        /// How mounts made later travel; `None` is `rprivate`.
        propagation: Option<Propagation>,
    },
    /// A volume by name; an empty name asks for an anonymous one.
    Volume {
        /// The volume's name, or empty.
        name: String,
        /// True leaves the volume empty instead of copying the image's content into it.
        no_copy: bool,
        /// Labels that the volume gets if it has to be made.
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// A memory file system.
    Tmpfs {
        /// Bytes; 0 is unlimited.
        size_bytes: u64,
        /// File mode of its root; 0 is 1777.
        mode: u32,
    },
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// private
    Private,
    /// rprivate, the default
    Rprivate,
    /// shared
    Shared,
    /// rshared
    Rshared,
    /// slave
    Slave,
    /// rslave
    Rslave,
}
