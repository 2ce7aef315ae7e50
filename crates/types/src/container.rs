//! What a user asks of one container.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
use crate::mount::Mount;
use crate::port::{ContainerPort, PortBinding};
use crate::security::Security;
use crate::ulimit::Rlimit;

/// Everything that `docker create` can ask for and Skep can honour. What it cannot is refused where JSON
/// becomes this type, so every field here works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Image reference or id, as typed.
    pub image: String,
    /// Replaces the image's command; `None` keeps it.
    pub cmd: Option<Vec<String>>,
    /// Replaces the image's entrypoint and drops its command; `Some([""])` or `Some([])` drops both.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` sets, `NAME` alone removes.
    pub env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Working directory; empty keeps the image's.
    pub working_dir: String,
    /// User and group; empty keeps the image's.
    pub user: String,
    /// Host name; empty is the short id.
    pub hostname: String,
    /// Domain name.
    pub domainname: String,
    /// Whether standard streams are a terminal.
    pub tty: bool,
    /// Whether standard input stays open.
    pub open_stdin: bool,
    /// Whether standard input closes when the first attached client leaves.
    pub stdin_once: bool,
    /// What the creating client said it would attach; shown by inspect.
    pub attach_stdin: bool,
    /// See `attach_stdin`.
    pub attach_stdout: bool,
    /// See `attach_stdin`.
    pub attach_stderr: bool,
    /// Ports that `-P` would publish; shown by ps.
    pub exposed_ports: BTreeSet<ContainerPort>,
    /// Signal that asks the process to end; empty keeps the image's, or SIGTERM.
    pub stop_signal: String,
    /// Time between that signal and SIGKILL; `None` is 10 s.
    pub stop_timeout: Option<Duration>,
    /// How its health is probed; `None` follows the image.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// How the host serves it.
    pub host: HostConfig,
}

/// How the host serves a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostConfig {
    /// `-v`, `--mount` and `--tmpfs`, in order; anonymous volumes of the image are added at creation.
    pub mounts: Vec<Mount>,
    /// The texts of `-v`, for inspect.
    pub binds: Vec<String>,
    /// Its network.
    pub network: NetworkMode,
    /// What is asked of its networks, and of which others it is to be on.
    #[serde(default)]
    pub endpoints: Vec<EndpointRequest>,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// `-P`: publish every exposed port on a free one.
    pub publish_all: bool,
    /// `--rm`
    pub auto_remove: bool,
    /// Upper bounds.
    pub resources: ContainerResources,
    /// Added to Docker's default capabilities; `ALL` adds all.
    pub cap_add: BTreeSet<String>,
    /// Taken from them; `ALL` takes all.
    pub cap_drop: BTreeSet<String>,
    /// Supplementary groups, names or numbers.
    pub group_add: Vec<String>,
    /// Lines for /etc/hosts: `name:address`.
    pub extra_hosts: Vec<String>,
    /// `--init`; `None` follows the daemon's setting.
    pub init: Option<bool>,
    /// Whether the root file system refuses writes.
    pub read_only: bool,
    /// Bytes of /dev/shm; 0 is 64 MiB.
    pub shm_size: u64,
    /// What its names are resolved by; what is empty follows the daemon's settings, then the host's.
    #[serde(default)]
    pub dns: DnsConfig,
    /// Kernel parameters by dotted name; only such as a namespace has of its own.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Limits of its processes, each resource once.
    #[serde(default)]
    pub ulimits: Vec<Rlimit>,
    /// How readily the kernel kills it for want of memory, -1000 to 1000.
    #[serde(default)]
    pub oom_score_adj: i32,
    /// What its processes may do to the kernel.
    #[serde(default)]
    pub security: Security,
    /// The texts of `--security-opt`, for inspect.
    #[serde(default)]
    pub security_opt: Vec<String>,
    /// Whether it may do to the machine what root may: all capabilities and devices, nothing masked or read-only.
    #[serde(default)]
    pub privileged: bool,
    /// Devices of the machine that it is given.
    #[serde(default)]
    pub devices: Vec<crate::device::Device>,
    /// How its output is kept.
    #[serde(default)]
    pub log: LogDriver,
}

/// Settings of a resolver: `--dns`, `--dns-search`, `--dns-option`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains; a single `.` stands for none at all.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

/// How a container's output is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDriver {
    /// Docker's json-file.
    #[default]
    JsonFile,
    /// Nowhere.
    None,
}

impl LogDriver {
    /// The driver's name at the API.
    pub fn name(self) -> &'static str {
        match self {
            LogDriver::JsonFile => "json-file",
            LogDriver::None => "none",
        }
    }
}

/// A container's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// The machine's own.
    Host,
    /// Loopback only.
    None,
    /// A task's networks with the addresses that the managers gave it; the first carries the default route.
    Cluster(Vec<ClusterAttachment>),
    /// The one of this name or id, of this machine or an attachable one of the cluster.
    Named(String),
    /// That of another container, by its name or id.
    Container(String),
}

/// What a user asks of a container's place on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// The network, by name or id.
    pub network: String,
    /// What the container is called there besides its own names: `--network-alias`.
    pub aliases: Vec<String>,
    /// `--ip`
    pub address: Option<std::net::Ipv4Addr>,
    /// `--mac-address`
    pub mac: Option<[u8; 6]>,
    /// Among networks that lead outside, the highest has the default route.
    pub priority: i64,
}

/// A container's place on a cluster-wide network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAttachment {
    /// The network.
    pub network: crate::network::Network,
    /// The container's address there.
    pub address: std::net::Ipv4Addr,
    /// What it is called there besides its own names.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// Upper bounds on what a container uses. Zero is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerResources {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together; -1 is unlimited swap, 0 is twice `memory`.
    pub memory_swap: i64,
    /// Thousand-millionths of a CPU.
    pub nano_cpus: i64,
    /// Relative weight, Docker's 1024 by default; 0 leaves it.
    pub cpu_shares: i64,
    /// Processes and threads.
    pub pids: i64,
}

/// One `docker exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecConfig {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// Working directory; empty is the container's.
    pub working_dir: String,
    /// User and group; empty is the container's.
    pub user: String,
    /// Whether standard streams are a terminal.
    pub tty: bool,
    /// Which streams the client attaches.
    pub attach_stdin: bool,
    /// See `attach_stdin`.
    pub attach_stdout: bool,
    /// See `attach_stdin`.
    pub attach_stderr: bool,
    /// All capabilities.
    pub privileged: bool,
}
