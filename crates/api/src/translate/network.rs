//! Networks, of this machine and of the cluster.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use bollard_stubs::models;
use serde::Serialize;
use skep_engine::networks::{Ipam, NetworkCreate};
use skep_engine::view::NetworkView;
use skep_types::ip::Subnet;
use skep_types::network::{Network, NetworkSpec};

use super::refuse::refuse_if;
use super::{ordered, unordered};
use crate::error::ApiError;

/// Under which an overlay network carries its VXLAN identifier.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Under which a network's largest packet is asked for.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// A network as clients see it. `Containers` is for inspection only; lists leave it empty.
pub fn listed(view: &NetworkView) -> models::Network {
    let mut config = Vec::new();
    if let Some(subnet) = view.ipam.subnet {
        let reserved = &view.ipam.reserved;
        config.push(models::IpamConfig {
            subnet: Some(subnet.to_string()),
            ip_range: view.ipam.range.map(|range| range.to_string()),
            gateway: view.ipam.gateway.map(|gateway| gateway.to_string()),
            auxiliary_addresses: (!reserved.is_empty()).then(|| {
                reserved.iter().map(|(name, address)| (name.clone(), address.to_string())).collect()
            }),
        });
    }
    config.extend(view.ipam.subnet6.map(|subnet| models::IpamConfig {
        subnet: Some(subnet.to_string()),
        gateway: view.ipam.gateway6.map(|gateway| gateway.to_string()),
        ..Default::default()
    }));
    let options = &view.ipam.options;
    models::Network {
        name: Some(view.name.clone()),
        id: Some(view.id.clone()),
        created: Some(view.created.to_string()),
        scope: Some(view.scope.to_owned()),
        driver: Some(view.driver.to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(view.ipv6),
        ipam: Some(models::Ipam {
            driver: Some("default".to_owned()),
            config: Some(config),
            options: (!options.is_empty()).then(|| unordered(options)),
        }),
        internal: Some(view.internal),
        attachable: Some(view.attachable),
        ingress: Some(view.ingress),
        config_from: Some(models::ConfigReference {
            network: Some(view.config_from.clone().unwrap_or_default()),
        }),
        config_only: Some(view.config_only),
        containers: Some(HashMap::new()),
        options: Some(unordered(&view.options)),
        labels: Some(unordered(&view.labels)),
        peers: None,
    }
}

/// A network as inspection shows it.
#[derive(Debug, Serialize)]
pub struct Inspection {
    #[serde(flatten)]
    network: models::Network,
    /// With `verbose` only; the models lack it.
    #[serde(rename = "Services", skip_serializing_if = "Option::is_none")]
    services: Option<BTreeMap<String, ServiceInfo>>,
}

/// A service on a network, as moby's `ServiceInfo`.
#[derive(Debug, Serialize)]
pub struct ServiceInfo {
    /// Its virtual address; empty where its name leads to its tasks.
    #[serde(rename = "VIP")]
    pub vip: String,
    /// Its published ports, as moby writes them there.
    #[serde(rename = "Ports")]
    pub ports: Vec<String>,
    /// Docker's number of a load balancer, of which there is none here.
    #[serde(rename = "LocalLBIndex")]
    pub local_lb_index: u32,
    /// Its tasks.
    #[serde(rename = "Tasks")]
    pub tasks: Vec<ServiceTask>,
}

/// A task on a network, as moby's `Task` there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceTask {
    /// `web.1.<task id>`
    pub name: String,
    /// Not told.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its address.
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    /// What else is known of it: the address of its node.
    pub info: BTreeMap<String, String>,
}

/// A network with the containers that run on it here.
pub fn inspected(
    view: &NetworkView,
    peers: Option<Vec<models::PeerInfo>>,
    services: Option<BTreeMap<String, ServiceInfo>>,
) -> Inspection {
    let containers = view.containers.iter().map(|(id, name, endpoint)| {
        let text = |address: Option<String>| address.unwrap_or_default();
        let container = models::NetworkContainer {
            name: Some(name.clone()),
            endpoint_id: Some(endpoint.endpoint_id.clone()),
            mac_address: Some(endpoint.mac.clone()),
            ipv4_address: Some(text(
                endpoint.address.map(|address| format!("{address}/{}", endpoint.prefix)),
            )),
            ipv6_address: Some(text(
                endpoint.address6.map(|(address, prefix)| format!("{address}/{prefix}")),
            )),
        };
        (id.to_string(), container)
    });
    let network = models::Network { containers: Some(containers.collect()), peers, ..listed(view) };
    Inspection { network, services }
}

/// A cluster-wide network as its managers know it.
pub fn cluster(network: &Network) -> NetworkView {
    skep_engine::networks::cluster_view(network)
}

/// What a request to make a network asks for.
pub enum Wanted {
    /// One of this machine.
    Local(Box<NetworkCreate>),
    /// One of the cluster, and the configuration that it is to be made from.
    Cluster(Box<NetworkSpec>, Option<String>),
}

/// Reads the body of `POST /networks/create`.
pub fn create(request: models::NetworkCreateRequest) -> Result<Wanted, ApiError> {
    let models::NetworkCreateRequest {
        name,
        driver,
        scope,
        internal,
        attachable,
        ingress,
        config_only,
        config_from,
        ipam,
        enable_ipv4,
        enable_ipv6,
        options,
        labels,
    } = request;
    let (driver, scope) = (driver.unwrap_or_default(), scope.unwrap_or_default());
    let config_only = config_only.unwrap_or_default();
    let wants_ipv6 = enable_ipv6.unwrap_or_default();
    let ipam = read_ipam(ipam.unwrap_or_default(), wants_ipv6)?;
    refuse_if("EnableIPv4=false (--ipv4=false)", enable_ipv4 == Some(false))?;
    let config_from = config_from.and_then(|reference| reference.network).filter(|name| !name.is_empty());
    let (options, labels) = (ordered(options), ordered(labels));
    let (internal, ingress) = (internal.unwrap_or_default(), ingress.unwrap_or_default());
    let attachable = attachable.unwrap_or_default();
    let spans = !config_only && (driver == "overlay" || scope == "swarm");
    if !spans {
        // libnetwork's words.
        if ingress {
            return Err(ApiError::forbidden("Ingress network can only be global scope network"));
        }
        if !["", "local"].contains(&scope.as_str()) && !config_only {
            return Err(ApiError::invalid(format!("invalid scope: {scope:?}")));
        }
        let create = NetworkCreate {
            name,
            driver,
            labels,
            options,
            attachable,
            internal,
            ipv6: wants_ipv6,
            config_only,
            config_from,
            ipam,
        };
        return Ok(Wanted::Local(Box::new(create)));
    }
    if scope == "local" {
        return Err(ApiError::forbidden("cannot downgrade network scope for overlay networks"));
    }
    refuse_if(&format!("Driver={driver} with Scope=swarm"), driver != "overlay")?;
    let lacks_subnet6 = wants_ipv6 && ipam.subnet6.is_none() && config_from.is_none();
    refuse_if("EnableIPv6 (--ipv6) of an overlay network without a --subnet of IPv6", lacks_subnet6)?;
    let mut spec = NetworkSpec {
        name,
        labels,
        ingress,
        attachable,
        internal,
        config_from: config_from.clone(),
        ..NetworkSpec::default()
    };
    skep_engine::networks::check_ipam(&ipam)?;
    with_addresses(&mut spec, &ipam)?;
    with_options(&mut spec, options)?;
    Ok(Wanted::Cluster(Box::new(spec), config_from))
}

/// Fills in what a configuration network says.
pub fn configured(spec: &mut NetworkSpec, source: NetworkCreate) -> Result<(), ApiError> {
    if spec.subnet.is_some() || !spec.labels.is_empty() {
        return Err(ApiError::forbidden(
            "user-specified configurations are not supported if the network depends on a configuration network",
        ));
    }
    if !spec.options.is_empty() {
        return Err(ApiError::forbidden(
            "network driver options are not supported if the network depends on a configuration network",
        ));
    }
    spec.labels = source.labels;
    with_addresses(spec, &source.ipam)?;
    with_options(spec, source.options)
}

fn with_addresses(spec: &mut NetworkSpec, ipam: &Ipam) -> Result<(), ApiError> {
    refuse_if("IPAM.Config.AuxAddress (--aux-address) of an overlay network", !ipam.reserved.is_empty())?;
    refuse_if("IPAM.Config.Gateway (--gateway) of IPv6 of an overlay network", ipam.gateway6.is_some())?;
    (spec.subnet, spec.range, spec.gateway) = (ipam.subnet, ipam.range, ipam.gateway);
    spec.subnet6 = ipam.subnet6;
    Ok(())
}

fn with_options(spec: &mut NetworkSpec, options: BTreeMap<String, String>) -> Result<(), ApiError> {
    for (name, value) in &options {
        let invalid = || ApiError::invalid(format!("invalid value for driver option {name}: {value:?}"));
        match name.as_str() {
            MTU_OPTION | "mtu" => {
                let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                spec.mtu = Some(mtu.ok_or_else(invalid)?);
            }
            VNI_OPTION if value.contains(',') => {
                return Err(ApiError::not_built(format!("option {name} with several identifiers")));
            }
            VNI_OPTION => spec.vni = Some(value.parse().map_err(|_| invalid())?),
            // Docker takes its presence for yes, unless it says no.
            "encrypted" => {
                let off = matches!(value.as_str(), "false" | "0" | "f" | "F" | "False" | "FALSE");
                spec.encrypted = !off;
            }
            _ => return Err(ApiError::not_built(format!("option {name} (--opt) of an overlay network"))),
        }
    }
    spec.options = options;
    Ok(())
}

fn read_ipam(ipam: models::Ipam, wants_ipv6: bool) -> Result<Ipam, ApiError> {
    let models::Ipam { driver, config, options } = ipam;
    super::refuse::refuse_unless("IPAM.Driver (--ipam-driver)", driver.as_deref(), &["default"])?;
    let mut read = Ipam { options: ordered(options), ..Ipam::default() };
    for config in config.unwrap_or_default() {
        let models::IpamConfig { subnet, ip_range, gateway, auxiliary_addresses } = config;
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (subnet, ip_range, gateway) = (text(subnet), text(ip_range), text(gateway));
        if subnet.as_ref().is_some_and(|text| text.contains(':')) {
            // As Docker: without --ipv6 it is passed over.
            if let Some(text) = subnet.filter(|_| wants_ipv6) {
                refuse_if("a second IPv6 subnet", read.subnet6.is_some())?;
                refuse_if("IPAM.Config.IPRange (--ip-range) of IPv6", ip_range.is_some())?;
                let named = auxiliary_addresses.is_some_and(|named| !named.is_empty());
                refuse_if("IPAM.Config.AuxAddress (--aux-address) of IPv6", named)?;
                let invalid = |what: &str, text: &str| ApiError::invalid(format!("invalid {what} {text}"));
                read.subnet6 = Some(text.parse().map_err(|_| invalid("subnet", &text))?);
                let gateway = gateway.map(|text| text.parse().map_err(|_| invalid("gateway", &text)));
                read.gateway6 = gateway.transpose()?;
            }
            continue;
        }
        refuse_if("a second IPv4 subnet (--subnet)", read.subnet.is_some())?;
        read.subnet = subnet.map(|text| prefix("subnet", &text)).transpose()?;
        read.range = ip_range.map(|text| prefix("ip-range", &text)).transpose()?;
        read.gateway = gateway.map(|text| address("gateway", &text)).transpose()?;
        for (name, text) in auxiliary_addresses.unwrap_or_default() {
            read.reserved.insert(name, address("auxiliary address", &text)?);
        }
    }
    Ok(read)
}

fn address(what: &str, text: &str) -> Result<Ipv4Addr, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(format!("invalid {what} {text}")))
}

/// A prefix, which must have no host bits: in moby's words (`validateIpamConfig`).
fn prefix(what: &str, text: &str) -> Result<Subnet, ApiError> {
    let parts = text.split_once('/').and_then(|(address, length)| {
        let address: Ipv4Addr = address.parse().ok()?;
        Some((address, Subnet::containing(address, length.parse().ok()?)?))
    });
    let (address, subnet) =
        parts.ok_or_else(|| ApiError::invalid(format!("invalid {what} {text}: invalid CIDR address")))?;
    if subnet.network() == address {
        return Ok(subnet);
    }
    Err(ApiError::invalid(format!("invalid network config:\ninvalid {what} {text}: it should be {subnet}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(driver: &str, options: &[(&str, &str)]) -> models::NetworkCreateRequest {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        models::NetworkCreateRequest {
            name: "n".to_owned(),
            driver: Some(driver.to_owned()),
            options: Some(options.collect()),
            ipam: Some(models::Ipam {
                config: Some(vec![models::IpamConfig {
                    subnet: Some("10.7.0.0/24".to_owned()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn overlays_are_the_cluster_s_with_their_options() {
        let asked = request("overlay", &[("encrypted", "false"), (VNI_OPTION, "5000"), (MTU_OPTION, "1400")]);
        let Ok(Wanted::Cluster(spec, None)) = create(asked) else { panic!("it is the cluster's") };
        assert_eq!((spec.encrypted, spec.vni, spec.mtu), (false, Some(5000), Some(1400)));
        assert_eq!(spec.subnet.map(|subnet| subnet.to_string()), Some("10.7.0.0/24".to_owned()));
        let asked = create(request("overlay", &[("encrypted", "")]));
        assert!(matches!(asked, Ok(Wanted::Cluster(spec, None)) if spec.encrypted), "its presence is enough");
        let refused = create(request("overlay", &[("colour", "red")])).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("option colour (--opt) of an overlay network is not built yet"));
    }

    #[test]
    fn subnets_have_no_host_bits() {
        assert!(prefix("subnet", "10.7.0.0/24").is_ok());
        assert_eq!(
            prefix("subnet", "10.7.0.1/24").map_err(|error| error.to_string()),
            Err("invalid network config:\ninvalid subnet 10.7.0.1/24: it should be 10.7.0.0/24".to_owned())
        );
        assert!(prefix("subnet", "10.7.0.1").is_err());
    }

    #[test]
    fn other_networks_are_this_machine_s() {
        let Ok(Wanted::Local(create)) = create(request("bridge", &[("x", "y")])) else {
            panic!("it is this machine's")
        };
        assert_eq!((create.name.as_str(), create.options.len()), ("n", 1));
    }
}
