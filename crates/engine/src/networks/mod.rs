//! Networks that this machine knows: bridge, host, none, and cluster networks that tasks here use.
//!
//! The kernel's side is the network room's. Its handle is behind one mutex that is held for the netlink requests of
//! one container only; addresses have a mutex of their own.

pub(crate) mod overlay;
pub(crate) mod place;
pub(crate) mod pool;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use skep_network::{Bridge, Network as Kernel, Peers, Publication, PublicationKey};
use skep_types::assignment::{Endpoint, Overlay};
use skep_types::ip::AddressPool;
use skep_types::network::Network;
use skep_types::{ContainerId, NetworkId, ServiceId, Time};

use crate::disk::{self, Durability};
use crate::view::{EndpointView, NetworkView};
use crate::{Engine, Error, Result, blocking};

/// The networks of a machine.
pub(crate) struct Networks {
    kernel: Mutex<Kernel>,
    pub(crate) bridge: Bridge,
    pub(crate) ids: LocalIds,
    addresses: Mutex<AddressPool>,
    cluster: Mutex<Cluster>,
    /// Where `cluster` is kept for the next start: below exec-root, as it describes what the kernel has.
    cluster_file: PathBuf,
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
}

impl Networks {
    pub(crate) fn new(
        kernel: Kernel,
        bridge: Bridge,
        ids: LocalIds,
        cluster_file: PathBuf,
    ) -> io::Result<Networks> {
        let subnet = bridge.subnet().ok_or(io::ErrorKind::InvalidInput)?;
        let mut addresses = AddressPool::new(subnet);
        // The bridge's address need not be the first of its subnet.
        addresses.take_exact(bridge.gateway);
        let cluster = disk::read_json(&cluster_file).unwrap_or_else(|error| {
            tracing::warn!("{} is damaged; the swarm will tell again: {error}", cluster_file.display());
            None
        });
        Ok(Networks {
            kernel: Mutex::new(kernel),
            bridge,
            ids,
            addresses: Mutex::new(addresses),
            cluster: Mutex::new(cluster.unwrap_or_default()),
            cluster_file,
        })
    }

    /// The kernel's side, for the requests of one change.
    pub(crate) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free address of the default bridge.
    pub(crate) fn take_address(&self) -> Option<Ipv4Addr> {
        self.addresses().take()
    }

    /// Notes an address that a running container has; false when another one has it.
    pub(crate) fn found_address(&self, address: Ipv4Addr) -> bool {
        self.addresses().take_exact(address)
    }

    pub(crate) fn give_back_address(&self, address: Ipv4Addr) {
        self.addresses().give_back(address);
    }

    fn addresses(&self) -> MutexGuard<'_, AddressPool> {
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
        Ok(())
    }

    fn forget(&self, id: NetworkId) -> Result<()> {
        let Some(network) = self.cluster().networks.get(&id).cloned() else { return Ok(()) };
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
        self.kernel()
            .publish(service_key(endpoint.service), publications(endpoint))
            .map_err(|error| Error::conflict(crate::error::chain(&error)))?;
        self.change_cluster(|cluster| {
            cluster.endpoints.insert(endpoint.service, endpoint.clone());
        });
        Ok(())
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
        gateway: AddressPool::new(network.subnet).gateway(),
        prefix: network.subnet.prefix(),
        mtu,
        masquerade: true,
        internal: false,
        ingress: network.ingress,
        gateway6: None,
        overlay: overlay.and_then(|overlay| overlay::of_bridge(network, overlay)),
    }
}

/// Who publishes the ports of a service.
pub(crate) fn service_key(service: ServiceId) -> PublicationKey {
    PublicationKey(service.to_string())
}

/// The ports of a service, each answered by every backend in turn.
pub(crate) fn publications(endpoint: &Endpoint) -> Vec<Publication> {
    let publication = |port: &skep_types::assignment::EndpointPort| Publication {
        protocol: port.protocol,
        host_ip: None,
        host_port: port.published_port,
        backends: endpoint.backends.iter().map(|address| (*address, port.target_port)).collect(),
    };
    endpoint.ports.iter().map(publication).collect()
}

impl Engine {
    /// All networks of this machine, by name.
    pub fn networks(&self) -> Vec<NetworkView> {
        let networks = &self.shared.networks;
        let ids = &networks.ids;
        let local = |id: &String, name: &str, driver| NetworkView {
            id: id.clone(),
            name: name.to_owned(),
            created: ids.created,
            driver,
            scope: "local",
            ingress: false,
            subnet: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            containers: Vec::new(),
        };
        let bridge = NetworkView {
            subnet: networks.bridge.subnet().map(|subnet| (subnet.to_string(), networks.bridge.gateway)),
            options: bridge_options(&networks.bridge),
            ..local(&ids.bridge, "bridge", "bridge")
        };
        let mut views = vec![bridge, local(&ids.host, "host", "host"), local(&ids.none, "none", "null")];
        views.extend(networks.cluster().networks.values().map(cluster_view));
        views.sort_by(|left, right| left.name.cmp(&right.name));
        let mut members = self.members();
        for view in &mut views {
            view.containers = members.remove(&view.id).unwrap_or_default();
        }
        views
    }

    /// The running containers by the id of their networks.
    fn members(&self) -> BTreeMap<String, Vec<(ContainerId, String, EndpointView)>> {
        let mut members: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for container in self.shared.containers.all() {
            if container.is_running() {
                for place in self.places(&container) {
                    let member = (container.id(), container.record.name.clone(), place.clone());
                    members.entry(place.network_id).or_default().push(member);
                }
            }
        }
        members
    }

    /// One network, by name, id or unique prefix of an id.
    ///
    /// # Errors
    /// 404 `network x not found`.
    pub fn inspect_network(&self, name: &str) -> Result<NetworkView> {
        let mut networks = self.networks();
        let exact = networks.iter().position(|network| network.name == name || network.id == name);
        let by_prefix = || {
            let mut fitting =
                (0..networks.len()).filter(|index| !name.is_empty() && networks[*index].id.starts_with(name));
            fitting.next().filter(|_| fitting.next().is_none())
        };
        let index = exact.or_else(by_prefix);
        let index = index.ok_or_else(|| Error::not_found(format!("network {name} not found")))?;
        Ok(networks.swap_remove(index))
    }

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
        if let Some(members) = self.members().get(&id.to_string()) {
            let count = members.len();
            return Err(Error::conflict(format!(
                "network {id} has active endpoints: {count} containers run on it"
            )));
        }
        let networks = self.shared.networks.clone();
        blocking(move || networks.forget(id)).await?
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

fn cluster_view(network: &Network) -> NetworkView {
    NetworkView {
        id: network.id.to_string(),
        name: network.name.clone(),
        created: network.meta.created_at,
        driver: "overlay",
        scope: "swarm",
        ingress: network.ingress,
        subnet: Some((network.subnet.to_string(), AddressPool::new(network.subnet).gateway())),
        labels: network.labels.clone(),
        options: BTreeMap::from([(
            "com.docker.network.driver.overlay.vxlanid_list".to_owned(),
            network.vni.to_string(),
        )]),
        containers: Vec::new(),
    }
}

/// What `docker network inspect bridge` shows under Options.
fn bridge_options(bridge: &Bridge) -> BTreeMap<String, String> {
    [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", bridge.masquerade.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
        ("com.docker.network.bridge.name", bridge.name.clone()),
        ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
