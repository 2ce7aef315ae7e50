//! Networks as they are told about.

use std::collections::BTreeMap;

use skep_network::Bridge;
use skep_types::network::Network;
use skep_types::{ContainerId, NetworkId};

use super::local::{Ipam, LocalNetwork};
use super::overlay::VNI_OPTION;
use crate::view::{EndpointView, NetworkView};
use crate::{Engine, Error, Result};

/// The running containers by the id of their networks, each with its name and place.
pub(super) type Members = BTreeMap<String, Vec<(ContainerId, String, EndpointView)>>;

impl Engine {
    /// All networks of this machine, by name.
    pub fn networks(&self) -> Vec<NetworkView> {
        let networks = &self.shared.networks;
        let ids = &networks.ids;
        let predefined = |id: &String, name: &str, driver| NetworkView {
            driver,
            ..bare_view(id.clone(), name, ids.created)
        };
        let bridge = NetworkView {
            ipam: Ipam {
                subnet: networks.bridge.subnet(),
                gateway: Some(networks.bridge.gateway),
                ..Ipam::default()
            },
            options: bridge_options(&networks.bridge),
            ..predefined(&ids.bridge, "bridge", "bridge")
        };
        let mut views =
            vec![bridge, predefined(&ids.host, "host", "host"), predefined(&ids.none, "none", "null")];
        views.extend(networks.locals.all().into_iter().map(local_view));
        views.extend(networks.cluster().networks.values().map(cluster_view));
        views.sort_by(|left, right| left.name.cmp(&right.name));
        let mut members = self.members();
        for view in &mut views {
            view.containers = members.remove(&view.id).unwrap_or_default();
        }
        views
    }

    pub(super) fn members(&self) -> Members {
        let mut members = Members::new();
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

    /// One network, by id, name or unique prefix of an id.
    ///
    /// # Errors
    /// 404 `network x not found`; 400 for a prefix that several ids have.
    pub fn inspect_network(&self, name: &str) -> Result<NetworkView> {
        let mut networks = self.networks();
        let exact = networks.iter().position(|network| network.id == name);
        let exact = exact.or_else(|| networks.iter().position(|network| network.name == name));
        let index = match exact {
            Some(index) => index,
            None => {
                let mut fitting = (0..networks.len())
                    .filter(|index| !name.is_empty() && networks[*index].id.starts_with(name));
                let first = fitting.next();
                let more = fitting.count();
                if more > 0 {
                    let count = more + 1;
                    return Err(Error::invalid(format!(
                        "network {name} is ambiguous ({count} matches found based on ID prefix)"
                    )));
                }
                first.ok_or_else(|| Error::not_found(format!("network {name} not found")))?
            }
        };
        Ok(networks.swap_remove(index))
    }

    /// A cluster network that is known here as it is told about, with the containers that run on it here.
    pub fn cluster_network(&self, id: NetworkId) -> Option<NetworkView> {
        let id = id.to_string();
        self.networks().into_iter().find(|network| network.id == id)
    }
}

/// A network of this machine that nothing is known of yet.
fn bare_view(id: String, name: &str, created: skep_types::Time) -> NetworkView {
    NetworkView {
        id,
        name: name.to_owned(),
        created,
        driver: "null",
        scope: "local",
        ingress: false,
        attachable: false,
        internal: false,
        config_only: false,
        config_from: None,
        ipv6: false,
        ipam: Ipam::default(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        containers: Vec::new(),
    }
}

fn local_view(network: LocalNetwork) -> NetworkView {
    NetworkView {
        driver: if network.bridge.is_some() { "bridge" } else { "null" },
        config_only: network.bridge.is_none(),
        config_from: network.config_from,
        attachable: network.attachable,
        internal: network.internal,
        ipv6: network.ipv6,
        ipam: network.ipam,
        labels: network.labels,
        options: network.options,
        ..bare_view(network.id, &network.name, network.created)
    }
}

/// A network of the cluster as it is told about.
pub fn cluster_view(network: &Network) -> NetworkView {
    let vni = (VNI_OPTION.to_owned(), network.vni.to_string());
    let mut options = network.options.clone();
    options.extend([vni]);
    NetworkView {
        driver: "overlay",
        scope: "swarm",
        ingress: network.ingress,
        attachable: network.attachable,
        internal: network.internal,
        config_from: network.config_from.clone(),
        ipam: Ipam {
            subnet: Some(network.subnet),
            range: network.range,
            gateway: Some(network.gateway()),
            subnet6: network.subnet6,
            gateway6: network.address6(network.gateway()),
            ..Ipam::default()
        },
        ipv6: network.subnet6.is_some(),
        labels: network.labels.clone(),
        options,
        ..bare_view(network.id.to_string(), &network.name, network.meta.created_at)
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
