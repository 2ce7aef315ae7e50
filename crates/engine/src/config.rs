//! What the daemon tells the engine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

pub use skep_registry::{Insecure, Settings as RegistrySettings};
use skep_types::ip::Subnet;

/// Settings of an [`crate::Engine`]. They hold until it is opened again.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Folder that survives reboots: images, containers, volumes. Docker's `--data-root`.
    pub data_root: PathBuf,
    /// Folder that need not: sockets, network namespaces, exit codes. Docker's `--exec-root`.
    pub exec_root: PathBuf,
    /// The program that shims are run from with the argument `shim`: our own.
    pub executable: PathBuf,
    /// Names the packet filter's table, so that daemons on one machine stay apart.
    pub instance: String,
    /// Name of the default bridge.
    pub bridge: String,
    /// `--bip`: the default bridge's address and prefix length. `None` takes 172.17.0.1/16, or the next
    /// of [`EngineConfig::default_pools`] that no route of the host overlaps.
    pub bip: Option<(Ipv4Addr, u8)>,
    /// Subnets the default bridge may take, in order of preference. Docker's local scope pools.
    pub default_pools: Vec<Subnet>,
    /// The address that published ports answer on when a binding names none. Docker's `--ip`.
    pub default_host_ip: Option<IpAddr>,
    /// Maximum transmission unit of the default bridge, in bytes.
    pub mtu: u32,
    /// `--init`: run an init in containers that do not say otherwise.
    pub init: bool,
    /// Open files that a container's processes may have, soft and hard limit. `None` leaves them the daemon's own.
    pub open_files: Option<(u64, u64)>,
    /// Name servers for containers; empty takes the host's.
    pub dns: Vec<String>,
    /// Search domains for containers; empty takes the host's.
    pub dns_search: Vec<String>,
    /// Resolver options for containers; empty takes the host's.
    pub dns_options: Vec<String>,
    /// `--label`s of the daemon, `key=value`.
    pub labels: Vec<String>,
    /// How registries are reached.
    pub registries: RegistrySettings,
}

impl EngineConfig {
    /// Docker's defaults, with the given folders and program.
    pub fn new(data_root: PathBuf, exec_root: PathBuf, executable: PathBuf) -> EngineConfig {
        EngineConfig {
            data_root,
            exec_root,
            executable,
            instance: "skep".to_owned(),
            bridge: "docker0".to_owned(),
            bip: None,
            default_pools: default_pools(),
            default_host_ip: None,
            mtu: 1500,
            init: false,
            open_files: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            labels: Vec::new(),
            registries: RegistrySettings::default(),
        }
    }
}

/// Docker's own pools of local scope: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and up.
pub fn default_pools() -> Vec<Subnet> {
    let wide = (17..32).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let narrow = (0..16).map(|block| (Ipv4Addr::new(192, 168, block * 16, 0), 20));
    wide.chain(narrow)
        .map(|(address, prefix)| Subnet::containing(address, prefix).expect("the prefix is below 33"))
        .collect()
}
