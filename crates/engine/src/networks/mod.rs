//! Networks that this machine knows: bridge, host, none, those that users made on it, and cluster networks that tasks
//! and guests here use.
//!
//! The kernel's side is the network room's. Its handle is behind one mutex that is held for the netlink requests of
//! one container only; addresses have a mutex of their own.

mod addresses;
mod conflict;
mod connect;
mod create;
pub mod guests;
pub(crate) mod local;
pub(crate) mod names;
pub(crate) mod overlay;
pub(crate) mod place;
pub(crate) mod pool;
mod tunnel;
mod views;
pub(crate) mod wishes;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use skep_network::{Address6, Bridge, Network as Kernel, Peers, Publication, PublicationKey, PublishError};
use skep_types::assignment::{Endpoint, Overlay};
use skep_types::ip::Subnet;
use skep_types::network::Network;
use skep_types::records::Records;
use skep_types::{NetworkId, ServiceId, Time};

use crate::disk::{self, Durability};
use crate::{Engine, Error, Result, blocking};

use addresses::{Addresses, Refused};
use local::{LocalNetwork, Locals};

pub use create::{NetworkCreate, check_ipam};
pub use local::Ipam;
pub use views::cluster_view;

/// The networks that every machine has.
pub(crate) const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// The networks of a machine.
pub(crate) struct Networks {
    kernel: Mutex<Kernel>,
    pub(crate) bridge: Bridge,
    pub(crate) ids: LocalIds,
    /// What users made.
    pub(crate) locals: Locals,
    /// Subnets for networks whose users do not choose one.
    pools: Vec<Subnet>,
    /// Held while a network of this machine is made or removed.
    creating: Mutex<()>,
    /// The addresses that are given out here, by the id of the network: not those of cluster networks.
    addresses: Mutex<BTreeMap<String, Addresses>>,
    cluster: Mutex<Cluster>,
    /// Where `cluster` is kept for the next start: below exec-root, as it describes what the kernel has.
    cluster_file: PathBuf,
    /// The same of its records, which change more often.
    records_file: PathBuf,
    records_changed: tokio::sync::Notify,
    /// For encrypted networks, once there is need of it.
    tunnel: Mutex<Option<skep_tunnel::Tunnel>>,
    tunnel_config: skep_tunnel::Config,
}

/// Ids of the networks that every machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalIds {
    pub(crate) bridge: String,
    pub(crate) host: String,
    pub(crate) none: String,
    pub(crate) created: Time,
}

/// What the cluster told this machine to have. The swarm tells it again after a restart; until then, requests to
/// published ports go on being answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) networks: BTreeMap<NetworkId, Network>,
    /// This node's own places on those that span machines.
    #[serde(default)]
    pub(crate) overlays: BTreeMap<NetworkId, Overlay>,
    /// Their addresses on other nodes.
    #[serde(default)]
    pub(crate) peers: BTreeMap<NetworkId, Peers>,
    pub(crate) endpoints: BTreeMap<ServiceId, Endpoint>,
    /// What is called how on them.
    #[serde(skip)]
    pub(crate) records: BTreeMap<NetworkId, Records>,
}

impl Networks {
    pub(crate) fn new(
        kernel: Kernel,
        bridge: Bridge,
        ids: LocalIds,
        pools: Vec<Subnet>,
        locals: Locals,
        cluster_file: PathBuf,
        tunnel_config: skep_tunnel::Config,
    ) -> io::Result<Networks> {
        let subnet = bridge.subnet().ok_or(io::ErrorKind::InvalidInput)?;
        let mut addresses =
            BTreeMap::from([(ids.bridge.clone(), Addresses::new(subnet, None, [bridge.gateway]))]);
        let made = locals.all().into_iter();
        addresses.extend(made.filter_map(|local| Some((local.id.clone(), local.addresses()?))));
        let cluster = disk::read_json(&cluster_file).unwrap_or_else(|error| {
            tracing::warn!("{} is damaged; the swarm will tell again: {error}", cluster_file.display());
            None
        });
        let networks = Networks {
            records_file: cluster_file.with_file_name("records.json"),
            records_changed: tokio::sync::Notify::new(),
            kernel: Mutex::new(kernel),
            bridge,
            ids,
            locals,
            pools,
            creating: Mutex::new(()),
            addresses: Mutex::new(addresses),
            cluster: Mutex::new(cluster.unwrap_or_default()),
            cluster_file,
            tunnel: Mutex::default(),
            tunnel_config,
        };
        networks.restore_records();
        Ok(networks)
    }

    /// The id of the network of this name.
    pub(crate) fn id_of(&self, name: &str) -> Option<String> {
        if name == "bridge" {
            return Some(self.ids.bridge.clone());
        }
        let clustered = || {
            self.cluster().networks.values().find(|network| network.name == name).map(|it| it.id.to_string())
        };
        self.locals.get(name).map(|network| network.id).or_else(clustered)
    }

    /// The kernel's side, for the requests of one change.
    pub(crate) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an address of a network of this machine: the one that is `asked` for, or any.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn take_address(
        &self,
        network: &str,
        name: &str,
        asked: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr> {
        let mut addresses = self.addresses();
        let gone = || Error::not_found(format!("network {name} not found"));
        let addresses = addresses.get_mut(network).ok_or_else(gone)?;
        let Some(asked) = asked else {
            let none =
                format!("no available IPv4 addresses on this network's address pools: {name} ({network})");
            return addresses.take().ok_or_else(|| Error::internal(none));
        };
        addresses.take_exact(asked).map(|()| asked).map_err(|refused| match refused {
            Refused::Taken => Error::forbidden("Address already in use"),
            Refused::Outside => Error::invalid(format!(
                "invalid endpoint settings:\nno configured subnet contains IP address {asked}"
            )),
        })
    }

    /// Notes an address that a running container has; false when another one has it.
    pub(crate) fn found_address(&self, network: &str, address: Ipv4Addr) -> bool {
        // The managers give out those of cluster networks.
        self.addresses().get_mut(network).is_none_or(|addresses| addresses.take_exact(address).is_ok())
    }

    pub(crate) fn give_back_address(&self, network: &str, address: Ipv4Addr) {
        if let Some(addresses) = self.addresses().get_mut(network) {
            addresses.give_back(address);
        }
    }

    fn prepare_addresses(&self, network: &LocalNetwork) {
        if let Some(addresses) = network.addresses() {
            self.addresses().insert(network.id.clone(), addresses);
        }
    }

    fn forget_addresses(&self, network: &str) {
        self.addresses().remove(network);
    }

    fn addresses(&self) -> MutexGuard<'_, BTreeMap<String, Addresses>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the cluster wants here and remembers it for the next start.
    fn change_cluster(&self, change: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.cluster();
        change(&mut cluster);
        if let Err(error) = disk::write_json(&self.cluster_file, &*cluster, Durability::Kernel) {
            tracing::warn!("cannot write {}: {error}", self.cluster_file.display());
        }
    }

    /// Makes the bridge of a cluster network unless it is there.
    pub(crate) fn ensure(&self, network: &Network) -> Result<()> {
        let overlay = {
            let cluster = self.cluster();
            if cluster.networks.get(&network.id) == Some(network) {
                return Ok(());
            }
            cluster.overlays.get(&network.id).copied()
        };
        self.place(network, overlay)
    }

    /// The same with this node's own place on it.
    fn place(&self, network: &Network, overlay: Option<Overlay>) -> Result<()> {
        {
            let cluster = self.cluster();
            let known = (cluster.networks.get(&network.id), cluster.overlays.get(&network.id).copied());
            if known == (Some(network), overlay) {
                return Ok(());
            }
        }
        if let Some(overlay) = overlay {
            overlay::carrier(overlay.host)?;
        }
        let bridge = cluster_bridge(network, overlay.as_ref(), self.bridge.mtu);
        self.kernel().ensure_bridge(&bridge).map_err(|error| {
            Error::failed(format!("making the bridge of network {}", network.name), &error)
        })?;
        self.change_cluster(|cluster| {
            cluster.networks.insert(network.id, network.clone());
            match overlay {
                Some(overlay) => drop(cluster.overlays.insert(network.id, overlay)),
                None => drop(cluster.overlays.remove(&network.id)),
            }
        });
        if network.ingress && network.subnet6.is_some() {
            // What is served already has answers over IPv6 from now on.
            let served: Vec<Endpoint> = self.cluster().endpoints.values().cloned().collect();
            served.iter().try_for_each(|endpoint| self.publish_endpoint(endpoint))?;
        }
        self.carry(network.id)
    }

    fn forget(&self, id: NetworkId) -> Result<()> {
        let Some(network) = self.cluster().networks.get(&id).cloned() else { return Ok(()) };
        if network.encrypted {
            self.carry_no_longer(network.vni);
        }
        self.kernel().remove_bridge(&bridge_name(id)).map_err(|error| {
            Error::failed(format!("removing the bridge of network {}", network.name), &error)
        })?;
        self.change_cluster(|cluster| {
            cluster.networks.remove(&id);
            cluster.overlays.remove(&id);
            cluster.peers.remove(&id);
        });
        Ok(())
    }

    fn serve(&self, endpoint: &Endpoint) -> Result<()> {
        if self.cluster().endpoints.get(&endpoint.service) == Some(endpoint) {
            return Ok(());
        }
        self.publish_endpoint(endpoint)?;
        self.change_cluster(|cluster| {
            cluster.endpoints.insert(endpoint.service, endpoint.clone());
        });
        Ok(())
    }

    fn publish_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let publications = publications(endpoint, self.cluster().networks.values());
        let published = self.kernel().publish(service_key(endpoint.service), publications);
        published.map(drop).map_err(|error| Error::conflict(self.explain(&error)))
    }

    /// Why ports could not be published, and who has them.
    pub(crate) fn explain(&self, error: &PublishError) -> String {
        let cluster = self.cluster();
        conflict::explain(error, |key| {
            let mut endpoints = cluster.endpoints.values();
            Some(endpoints.find(|endpoint| service_key(endpoint.service) == *key)?.name.clone())
        })
    }

    /// Takes an address out of every endpoint, ahead of the managers' word. Says whether one had it.
    pub(crate) fn withdraw(&self, address: Ipv4Addr) -> Result<bool> {
        let cluster = self.cluster();
        let having = cluster.endpoints.values().filter(|endpoint| endpoint.backends.contains(&address));
        let mut having: Vec<Endpoint> = having.cloned().collect();
        drop(cluster);
        for endpoint in &mut having {
            endpoint.backends.retain(|backend| *backend != address);
            self.serve(endpoint)?;
        }
        Ok(!having.is_empty())
    }

    fn stop_serving(&self, service: ServiceId) -> Result<()> {
        self.kernel()
            .unpublish(&service_key(service))
            .map_err(|error| Error::failed(format!("withdrawing the ports of service {service}"), &error))?;
        self.change_cluster(|cluster| {
            cluster.endpoints.remove(&service);
        });
        Ok(())
    }
}

/// Name of a cluster network's bridge: an interface's name has at most 15 bytes.
pub(crate) fn bridge_name(id: NetworkId) -> String {
    let mut name = format!("sk-{id}");
    name.truncate(13);
    name
}

/// The bridge of a cluster network, with this node's own place on it. `mtu` is for one that does not span machines.
pub(crate) fn cluster_bridge(network: &Network, overlay: Option<&Overlay>, mtu: u32) -> Bridge {
    Bridge {
        name: bridge_name(network.id),
        gateway: network.gateway(),
        prefix: network.subnet.prefix(),
        mtu: network.mtu.unwrap_or(mtu),
        masquerade: true,
        internal: network.internal,
        ingress: network.ingress,
        gateway6: network.subnet6.and_then(|subnet| {
            Some(Address6 { address: network.address6(network.gateway())?, prefix: subnet.prefix() })
        }),
        overlay: overlay.and_then(|overlay| overlay::of_bridge(network, overlay)),
    }
}

/// Who publishes the ports of a service.
pub(crate) fn service_key(service: ServiceId) -> PublicationKey {
    PublicationKey(service.to_string())
}

/// The ports of a service, each answered by every backend in turn. One with an address is answered where that is this
/// machine's, and otherwise left alone. Backends answer over IPv6 where the ingress network has it.
pub(crate) fn publications<'n>(
    endpoint: &Endpoint,
    mut networks: impl Iterator<Item = &'n Network>,
) -> Vec<Publication> {
    let ingress = networks.find(|network| network.ingress && network.subnet6.is_some());
    let six = endpoint.backends.iter().filter_map(|address| ingress?.address6(*address)).map(IpAddr::from);
    let backends: Vec<IpAddr> = endpoint.backends.iter().copied().map(IpAddr::from).chain(six).collect();
    let publication = |port: &skep_types::assignment::EndpointPort| Publication {
        protocol: port.protocol,
        host_ip: port.address,
        host_port: port.published_port,
        backends: backends.iter().map(|address| (*address, port.target_port)).collect(),
    };
    endpoint.ports.iter().filter(|port| port.address.is_none_or(is_ours)).map(publication).collect()
}

/// Whether an address is this machine's now: only then can a socket be bound to it.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

impl Engine {
    /// Makes sure that tasks here can be attached to a cluster network, at this node's own place on it where it spans
    /// machines. Repeating it changes nothing.
    ///
    /// # Errors
    /// Internal, when the kernel refuses.
    pub async fn ensure_network(&self, network: &Network, overlay: Option<Overlay>) -> Result<()> {
        let (networks, network) = (self.shared.networks.clone(), network.clone());
        blocking(move || networks.place(&network, overlay)).await?
    }

    /// Forgets a cluster network. One that is not there is fine.
    ///
    /// # Errors
    /// Conflict while containers run on it; internal, when the kernel refuses.
    pub async fn remove_network(&self, id: NetworkId) -> Result<()> {
        let engine = self.clone();
        let forget = move || {
            let networks = &engine.shared.networks;
            // Not ready from here on, so that a container that arrives now either is seen below, or waits until the
            // network is there anew.
            let told = networks.cluster().records.remove(&id);
            let forgotten = engine.check_empty(id).and_then(|()| networks.forget(id));
            match forgotten {
                Ok(()) => engine.names().remove_zone(&id.to_string()),
                Err(_) => networks.cluster().records.extend(told.map(|records| (id, records))),
            }
            forgotten
        };
        blocking(forget).await?
    }

    /// Refuses while containers are on a cluster network, or on their way there.
    fn check_empty(&self, id: NetworkId) -> Result<()> {
        let running = self.members().get(&id.to_string()).map_or(0, Vec::len);
        match running.max(self.guests_on(id)) {
            0 => Ok(()),
            count => Err(Error::conflict(format!(
                "network {id} has active endpoints: {count} containers are on it"
            ))),
        }
    }

    /// The cluster networks that are known here, also from before a restart.
    pub fn cluster_networks(&self) -> Vec<NetworkId> {
        self.shared.networks.cluster().networks.keys().copied().collect()
    }

    /// Serves the published ports of a service with exactly these backends, in turn.
    ///
    /// # Errors
    /// Conflict for a port that another process or container holds.
    pub async fn serve_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let (networks, endpoint) = (self.shared.networks.clone(), endpoint.clone());
        blocking(move || networks.serve(&endpoint)).await?
    }

    /// Serves a service no longer. One that is not served is fine.
    ///
    /// # Errors
    /// Internal, when the kernel refuses.
    pub async fn remove_endpoint(&self, service: ServiceId) -> Result<()> {
        let networks = self.shared.networks.clone();
        blocking(move || networks.stop_serving(service)).await?
    }

    /// The services that are served here, also from before a restart.
    pub fn endpoints(&self) -> Vec<ServiceId> {
        self.shared.networks.cluster().endpoints.keys().copied().collect()
    }
}
