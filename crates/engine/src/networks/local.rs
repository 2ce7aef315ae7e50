//! Networks that users make on this machine: bridges, and configurations for other networks.
//!
//! All of them are in one file below data-root, on the disk before a creation is acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use skep_network::Bridge;
use skep_types::Time;
use skep_types::ip::{Subnet, Subnet6};

use super::addresses::Addresses;
use crate::disk::{self, Durability};

/// A network that a user made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalNetwork {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Time,
    pub(crate) labels: BTreeMap<String, String>,
    /// As given, for inspection.
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) attachable: bool,
    pub(crate) internal: bool,
    /// Whether its containers have addresses of IPv6, too.
    #[serde(default)]
    pub(crate) ipv6: bool,
    /// Its addresses; those that a configuration names, and for a bridge those that it has.
    pub(crate) ipam: Ipam,
    /// The configuration that it was made from.
    pub(crate) config_from: Option<String>,
    /// `None` is a configuration only.
    pub(crate) bridge: Option<Bridge>,
    /// Where ports of its containers are published when their binding does not say.
    pub(crate) host_address: Option<IpAddr>,
}

/// What is said of a network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// Options of the driver, which has none.
    pub options: BTreeMap<String, String>,
    /// The subnet.
    pub subnet: Option<Subnet>,
    /// Where addresses that nobody chooses come from.
    pub range: Option<Subnet>,
    /// The gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that are given to nobody, by name.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// The subnet of IPv6, where there is to be one.
    #[serde(default)]
    pub subnet6: Option<Subnet6>,
    /// The gateway of IPv6.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
}

impl LocalNetwork {
    /// The addresses that its containers can have; `None` for a configuration.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        let bridge = self.bridge.as_ref()?;
        // Nobody may have the address that the gateway's of IPv6 would go with.
        let gateway6 = bridge.gateway6.and_then(|gateway| gateway.address.octets().last_chunk().copied());
        let gateways = [bridge.gateway].into_iter().chain(gateway6.map(<[u8; 4]>::into));
        let reserved = self.ipam.reserved.values().copied().chain(gateways);
        Some(Addresses::new(bridge.subnet()?, self.ipam.range, reserved))
    }
}

/// The networks that users made, by id.
#[derive(Debug)]
pub(crate) struct Locals {
    networks: Mutex<BTreeMap<String, LocalNetwork>>,
    file: PathBuf,
}

impl Locals {
    /// # Errors
    /// When the file cannot be read: containers would lose their networks if it were passed over.
    pub(crate) fn open(file: PathBuf) -> io::Result<Locals> {
        let networks: Option<BTreeMap<String, LocalNetwork>> = disk::read_json(&file)?;
        Ok(Locals { networks: Mutex::new(networks.unwrap_or_default()), file })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LocalNetwork>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<LocalNetwork> {
        self.lock().values().cloned().collect()
    }

    /// The network of this name or id.
    pub(crate) fn get(&self, name: &str) -> Option<LocalNetwork> {
        let networks = self.lock();
        let named = || networks.values().find(|network| network.name == name);
        networks.get(name).or_else(named).cloned()
    }

    /// Adds a network for good.
    pub(crate) fn insert(&self, network: LocalNetwork) -> io::Result<()> {
        self.change(|networks| drop(networks.insert(network.id.clone(), network)))
    }

    /// Removes a network for good.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        self.change(|networks| drop(networks.remove(id)))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, LocalNetwork>)) -> io::Result<()> {
        let mut networks = self.lock();
        let mut changed = networks.clone();
        change(&mut changed);
        disk::write_json(&self.file, &changed, Durability::Disk)?;
        *networks = changed;
        Ok(())
    }
}
