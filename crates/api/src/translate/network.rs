//! Networks, of this machine and of the cluster.

use std::collections::HashMap;

use bollard_stubs::models;
use skep_engine::view::NetworkView;
use skep_types::network::Network;

use super::unordered;

/// Under which an overlay network carries its VXLAN identifier.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// A network that the engine knows. `Containers` is for inspection only; lists leave it empty.
pub fn local(view: &NetworkView) -> models::Network {
    let config = view.subnet.as_ref().map(|(subnet, gateway)| models::IpamConfig {
        subnet: Some(subnet.clone()),
        gateway: Some(gateway.to_string()),
        ..Default::default()
    });
    models::Network {
        name: Some(view.name.clone()),
        id: Some(view.id.clone()),
        created: Some(view.created.to_string()),
        scope: Some(view.scope.to_owned()),
        driver: Some(view.driver.to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(ipam(config.into_iter().collect())),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(view.ingress),
        config_from: Some(models::ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        containers: Some(HashMap::new()),
        options: Some(unordered(&view.options)),
        labels: Some(unordered(&view.labels)),
        peers: None,
    }
}

/// A network that the engine knows, with the containers on it.
pub fn local_with_containers(view: &NetworkView) -> models::Network {
    let containers = view.containers.iter().map(|(id, name, endpoint)| {
        let address =
            endpoint.address.map_or_else(String::new, |address| format!("{address}/{}", endpoint.prefix));
        let container = models::NetworkContainer {
            name: Some(name.clone()),
            endpoint_id: Some(endpoint.endpoint_id.clone()),
            mac_address: Some(endpoint.mac.clone()),
            ipv4_address: Some(address),
            ipv6_address: Some(String::new()),
        };
        (id.to_string(), container)
    });
    models::Network { containers: Some(containers.collect()), ..local(view) }
}

/// A cluster-wide network as its managers know it.
pub fn cluster(network: &Network) -> models::Network {
    let config = models::IpamConfig {
        subnet: Some(network.subnet.to_string()),
        gateway: network.subnet.nth(1).map(|address| address.to_string()),
        ..Default::default()
    };
    let vni = (VNI_OPTION.to_owned(), network.vni.to_string());
    models::Network {
        name: Some(network.name.clone()),
        id: Some(network.id.to_string()),
        created: Some(network.meta.created_at.to_string()),
        scope: Some("swarm".to_owned()),
        driver: Some("overlay".to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(ipam(vec![config])),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(network.ingress),
        config_from: Some(models::ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        containers: Some(HashMap::new()),
        options: Some([vni].into()),
        labels: Some(unordered(&network.labels)),
        peers: None,
    }
}

fn ipam(config: Vec<models::IpamConfig>) -> models::Ipam {
    models::Ipam { driver: Some("default".to_owned()), config: Some(config), options: None }
}
