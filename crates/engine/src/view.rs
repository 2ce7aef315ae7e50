//! What the engine tells about its objects: plain data, which `api` turns into Docker's JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_types::container::{ContainerConfig, EndpointRequest};
use skep_types::health::Health;
use skep_types::port::ContainerPort;
use skep_types::{ContainerId, Time};

use crate::containers::health::Probe;
use crate::networks::Ipam;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its first process lives.
    Running,
    /// Its first process ended.
    Exited,
    /// On its way out.
    Removing,
    /// Its removal failed half-way; it can only be removed again.
    Dead,
}

impl Status {
    /// The name at the API.
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Exited => "exited",
            Status::Removing => "removing",
            Status::Dead => "dead",
        }
    }
}

/// A container's state, as `docker inspect` shows it under `State`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateView {
    /// Where it is in its life.
    pub status: Status,
    /// Its first process on the host; 0 when it does not run.
    pub pid: u32,
    /// Of its last run; 0 before.
    pub exit_code: i32,
    /// Why its last start failed; empty when it did not.
    pub error: String,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// When it last started; `None` is never.
    pub started_at: Option<Time>,
    /// When it last ended; `None` is never.
    pub finished_at: Option<Time>,
    /// What is known of its health, where that is probed.
    pub health: Option<Health>,
}

/// A mount that a container has, as `docker inspect` shows it under `Mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountView {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: &'static str,
    /// The volume's name; empty for other kinds.
    pub name: String,
    /// Path on the host; empty for tmpfs.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// `local` for volumes, else empty.
    pub driver: &'static str,
    /// What `-v` said after the second colon, as far as it is kept.
    pub mode: String,
    /// Whether it can be written.
    pub writable: bool,
    /// Propagation; empty for volumes and tmpfs.
    pub propagation: String,
    /// Whether it is a volume that nobody named.
    pub anonymous: bool,
}

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// The network's name.
    pub network: String,
    /// The network's id, as clients see it.
    pub network_id: String,
    /// The endpoint's id, 64 hexadecimal digits; empty when the container does not run.
    pub endpoint_id: String,
    /// Its address; `None` when the container does not run.
    pub address: Option<Ipv4Addr>,
    /// Prefix length of the address; 0 without one.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// `02:42:..`; empty when the container does not run.
    pub mac: String,
    /// Its IPv6 address with the length of its prefix.
    pub address6: Option<(std::net::Ipv6Addr, u8)>,
    /// The default gateway of IPv6.
    pub gateway6: Option<std::net::Ipv6Addr>,
    /// What was asked of it.
    pub wish: EndpointRequest,
    /// What the container is called there; empty where nothing answers for names.
    pub dns_names: Vec<String>,
}

/// A port that a container exposes, and where the host answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortView {
    /// The container's port.
    pub container: ContainerPort,
    /// The host's address and port, numbers resolved; `None` when it is not published now.
    pub host: Option<(IpAddr, u16)>,
}

/// Everything about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without Docker's leading slash.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// What was asked for, merged with the image's configuration.
    pub config: ContainerConfig,
    /// The image, `sha256:..`.
    pub image_id: String,
    /// The program; the first of entrypoint and command.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its state.
    pub state: StateView,
    /// Its mounts.
    pub mounts: Vec<MountView>,
    /// `bridge`, `host`, `none`, or the first cluster network's name.
    pub network_mode: String,
    /// Its networks, in order; the first carries the default route.
    pub networks: Vec<EndpointView>,
    /// Exposed and published ports.
    pub ports: Vec<PortView>,
    /// The network namespace on the host; empty when the container does not run.
    pub sandbox_key: PathBuf,
    /// The json-file log.
    pub log_path: PathBuf,
    /// The file behind /etc/resolv.conf; empty before the first start.
    pub resolv_conf_path: PathBuf,
    /// The file behind /etc/hostname; empty before the first start.
    pub hostname_path: PathBuf,
    /// The file behind /etc/hosts; empty before the first start.
    pub hosts_path: PathBuf,
    /// Folder of the file system's writable layer.
    pub upper_path: PathBuf,
    /// Read-only layers, topmost first.
    pub lower_paths: Vec<PathBuf>,
    /// Running execs.
    pub exec_ids: Vec<String>,
    /// The last probes of its health, the oldest first.
    pub probes: Vec<Probe>,
}

/// One line of `docker ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSummary {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without Docker's leading slash.
    pub name: String,
    /// The image as typed; the id when the name has moved to another image.
    pub image: String,
    /// The image, `sha256:..`.
    pub image_id: String,
    /// Program and arguments in one line.
    pub command: String,
    /// When it was made.
    pub created: Time,
    /// Its ports; published ones resolved.
    pub ports: Vec<PortView>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its state: what ps's STATUS is made of.
    pub state: StateView,
    /// Its mounts.
    pub mounts: Vec<MountView>,
    /// `bridge`, `host`, `none`, or the first cluster network's name.
    pub network_mode: String,
    /// Its networks.
    pub networks: Vec<EndpointView>,
    /// Bytes, when they were asked for.
    pub size: Option<ContainerSize>,
}

/// What a container's file system takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerSize {
    /// Bytes that the container wrote.
    pub writable: u64,
    /// Bytes of it and its image together.
    pub root: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// Its folder on the host.
    pub mountpoint: PathBuf,
    /// When it was made.
    pub created_at: Time,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it was made without a name.
    pub anonymous: bool,
    /// How many containers name it.
    pub containers: usize,
}

/// A network that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkView {
    /// Its id, as clients see it: 64 hexadecimal digits, or a cluster network's 25.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// `bridge`, `host`, `null` or `overlay`.
    pub driver: &'static str,
    /// `local` or `swarm`.
    pub scope: &'static str,
    /// Whether it carries the routing mesh.
    pub ingress: bool,
    /// Whether containers that are no tasks may join it, where that is asked.
    pub attachable: bool,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether it is a configuration for other networks and nothing else.
    pub config_only: bool,
    /// The configuration that it was made from.
    pub config_from: Option<String>,
    /// Its addresses; nothing for host and none.
    pub ipam: Ipam,
    /// Whether its containers have addresses of IPv6, too.
    pub ipv6: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options, as Docker shows the default bridge's.
    pub options: BTreeMap<String, String>,
    /// The running containers on it here: id, name and place.
    pub containers: Vec<(ContainerId, String, EndpointView)>,
}

/// One `docker exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecView {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its container.
    pub container: ContainerId,
    /// What was asked for.
    pub config: skep_types::container::ExecConfig,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code once it has ended.
    pub exit_code: Option<i32>,
    /// Its process on the host; 0 before it runs.
    pub pid: u32,
}

/// What `docker info` tells about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The engine's own id, made once for a data folder.
    pub id: String,
    /// All containers.
    pub containers: usize,
    /// Those that run.
    pub running: usize,
    /// Those that do not.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// The machine's host name.
    pub hostname: String,
    /// `6.1.0`
    pub kernel_version: String,
    /// `Debian GNU/Linux 12 (bookworm)`
    pub operating_system: String,
    /// `12`
    pub os_version: String,
    /// As `uname -m`: `x86_64`.
    pub architecture: String,
    /// Processors that can be used.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_total: u64,
    /// `1` or `2`.
    pub cgroup_version: &'static str,
    /// File system under the data folder: `extfs`, `xfs`, ...
    pub backing_filesystem: String,
    /// The data folder.
    pub data_root: PathBuf,
    /// Labels of the daemon.
    pub labels: Vec<String>,
    /// Subnet of the default bridge.
    pub bridge_subnet: String,
    /// Whether packets are forwarded.
    pub ipv4_forwarding: bool,
    /// Open file descriptors of the daemon.
    pub file_descriptors: usize,
    /// Clients that follow events.
    pub event_listeners: usize,
    /// How registries are reached.
    pub registries: skep_registry::Settings,
}
