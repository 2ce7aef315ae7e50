//! What the shim is told: everything about one container, or one more process in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_types::ContainerId;
use skep_types::container::ContainerResources;
pub use skep_types::container::LogDriver;
pub use skep_types::device::DeviceAccess;
use skep_types::mount::Propagation;
pub use skep_types::security::Seccomp;
pub use skep_types::ulimit::{Rlimit, RlimitResource};

use crate::capability::CapabilitySet;

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its id.
    pub id: ContainerId,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Its first process.
    pub process: Process,
    /// Host name.
    pub hostname: String,
    /// NIS domain name; empty leaves the kernel's.
    pub domainname: String,
    /// Mounts besides Docker's default ones, made in this order. One whose target is that of a default mount
    /// (`/dev/shm`, `/sys`...) replaces it.
    pub mounts: Vec<Mount>,
    /// Network namespace. All other namespaces but the user's are new (the cgroup one on cgroup v2 only, as
    /// Docker's default).
    pub network: NetworkNamespace,
    /// Path below each hierarchy's root, such as `docker/<id>`.
    pub cgroup: String,
    /// Upper bounds.
    pub resources: ContainerResources,
    /// System call filter. A custom one has been read once: it makes sense.
    pub seccomp: Seccomp,
    /// Whether Docker's masked and read-only paths below /proc and /sys are so.
    pub protected_paths: ProtectedPaths,
    /// Devices besides Docker's default ones.
    #[serde(default)]
    pub devices: Vec<DeviceNode>,
    /// Whether every device of the machine may be used, and /sys and the control groups be written.
    #[serde(default)]
    pub privileged: bool,
    /// Whether PID 1 is our own: it forwards signals, reaps, and runs `process` as its child.
    pub init: bool,
    /// Bytes of /dev/shm; 0 is Docker's 64 MiB.
    pub shm_size: u64,
    /// Kernel parameters by dotted name, besides Docker's defaults for a container with its own network.
    pub sysctls: BTreeMap<String, String>,
    /// -1000 to 1000; Docker's default is 0.
    pub oom_score_adj: i32,
    /// Where its output is kept.
    pub log: LogSpec,
}

/// A device in a container's /dev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Its place below /dev: plain names with slashes between them.
    pub path: PathBuf,
    /// A block device, or else a character device.
    pub block: bool,
    /// Its numbers.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// A root file system, mounted by the container's init in its own mount namespace only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Layers, topmost first. None at all makes `upper` the root file system itself.
    pub lower: Vec<PathBuf>,
    /// The container's own layer.
    pub upper: PathBuf,
    /// overlayfs' work folder, on the same file system as `upper`.
    pub work: PathBuf,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// A process in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`, complete; only `HOME` is added when missing.
    pub env: Vec<String>,
    /// Working directory; empty is `/`. A missing one is made for the first process.
    pub cwd: String,
    /// `""`, `name`, `uid`, each with an optional `:group` or `:gid`; resolved in the container's files.
    pub user: String,
    /// Supplementary groups, names or numbers, added to those that /etc/group gives the user.
    pub groups: Vec<String>,
    /// Whether its standard streams are a terminal.
    pub tty: bool,
    /// Rows and columns the terminal starts with; `None` leaves it unset.
    pub tty_size: Option<(u16, u16)>,
    /// Whether its standard input is open; else it is /dev/null.
    pub stdin: bool,
    /// Whether standard input closes when the first client that attached it sends its end.
    pub stdin_once: bool,
    /// Bounding, permitted and effective set; inheritable and ambient stay empty, as Docker's since 20.10.14.
    pub capabilities: CapabilitySet,
    /// Sets no_new_privs(2).
    pub no_new_privileges: bool,
    /// Limits (getrlimit(2)); those not named are inherited from the daemon.
    pub rlimits: Vec<Rlimit>,
}

/// A mount besides the default ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container; resolved inside its root, made when missing.
    pub target: PathBuf,
    /// What appears there.
    pub kind: MountKind,
    /// Whether it, and every mount below a bind, refuses writes.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or folder of the host.
    Bind {
        /// Absolute path on the host; it must exist.
        source: PathBuf,
        /// How mounts made later travel.
        propagation: Propagation,
        /// Whether an empty source folder first receives what the image has at the target, with its owner and
        /// mode: Docker's rule for volumes.
        populate: bool,
    },
    /// A memory file system, mounted nosuid, nodev and noexec.
    Tmpfs {
        /// Bytes; 0 is half of the machine's memory.
        size_bytes: u64,
        /// Mode of its root; 0 is 1777.
        mode: u32,
    },
}

/// Where a container's network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkNamespace {
    /// In the namespace bound to this file.
    Path(PathBuf),
    /// In the machine's own.
    Host,
}

/// Protection of the kernel's own files in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtectedPaths {
    /// Docker's masked and read-only paths.
    #[default]
    Default,
    /// None: all visible and writable.
    None,
}

/// Where a container's output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The file; made when missing, appended to when present.
    pub path: PathBuf,
    /// How.
    pub driver: LogDriver,
}
