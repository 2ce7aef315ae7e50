//! A container's places on networks: made before its start, undone after its end.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_network::{Endpoint, MacAddress, Publication, PublicationKey};
use skep_types::ContainerId;
use skep_types::container::{ClusterAttachment, ContainerConfig, NetworkMode};
use skep_types::port::PortBinding;

use super::{Networks, bridge_name};
use crate::error::chain;
use crate::{Error, Result};

/// What a running container has of the network. Kept on disk, so that the next daemon knows what the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// Its network namespace; `None` is the host's.
    pub(crate) sandbox: Option<PathBuf>,
    pub(crate) places: Vec<Place>,
    /// Its published ports, numbers given.
    pub(crate) published: Vec<Publication>,
}

/// A container's place on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) network: String,
    pub(crate) network_id: String,
    /// As events name the network's type.
    pub(crate) driver: String,
    pub(crate) endpoint_id: String,
    /// Its interface; `None` under `--network host` and `none`.
    pub(crate) endpoint: Option<Endpoint>,
}

/// Whose network it is.
pub(crate) struct Who<'a> {
    pub(crate) id: ContainerId,
    pub(crate) name: &'a str,
    pub(crate) config: &'a ContainerConfig,
    /// Draws ids of endpoints.
    pub(crate) draw_id: &'a dyn Fn() -> String,
    /// The address that ports are published on when their binding names none.
    pub(crate) default_host_ip: Option<IpAddr>,
}

impl Networks {
    /// Gives a container its network. After an error nothing of it is left.
    pub(crate) fn connect(&self, who: &Who<'_>) -> Result<Connection> {
        let mut connection = Connection::default();
        match self.try_connect(who, &mut connection) {
            Ok(()) => Ok(connection),
            Err(error) => {
                self.disconnect(who.id, &connection);
                Err(Error {
                    message: format!("failed to set up container networking: {}", error.message),
                    ..error
                })
            }
        }
    }

    fn try_connect(&self, who: &Who<'_>, connection: &mut Connection) -> Result<()> {
        match &who.config.host.network {
            NetworkMode::Host => {
                connection.places = vec![self.bare_place("host", who)];
                return Ok(());
            }
            NetworkMode::None => connection.places = vec![self.bare_place("none", who)],
            NetworkMode::Bridge => connection.places = vec![self.bridge_place(who)?],
            NetworkMode::Cluster(attachments) => {
                for attachment in attachments {
                    self.ensure(&attachment.network)?;
                }
                let places = attachments.iter().enumerate();
                connection.places = places.map(|(index, it)| cluster_place(index, it, who)).collect();
            }
        }
        let sandbox = who.id.to_string();
        let failed = |error: &dyn std::error::Error| Error::internal(chain(error));
        let mut kernel = self.kernel();
        connection.sandbox = Some(kernel.create_sandbox(&sandbox).map_err(|error| failed(&error))?);
        for endpoint in connection.places.iter().filter_map(|place| place.endpoint.as_ref()) {
            kernel.attach(&sandbox, endpoint).map_err(|error| failed(&error))?;
        }
        let wanted = wanted_publications(who, &connection.places);
        if !wanted.is_empty() {
            connection.published = kernel.publish(container_key(who.id), wanted).map_err(|error| {
                let endpoint = connection.places.first().map_or("", |place| &place.endpoint_id);
                let driver = "driver failed programming external connectivity on endpoint";
                Error::internal(format!("{driver} {} ({endpoint}): {}", who.name, chain(&error)))
            })?;
        }
        Ok(())
    }

    /// Takes a container's network away. What fails is logged, and the rest is taken away nonetheless.
    pub(crate) fn disconnect(&self, id: ContainerId, connection: &Connection) {
        let mut kernel = self.kernel();
        if !connection.published.is_empty()
            && let Err(error) = kernel.unpublish(&container_key(id))
        {
            tracing::error!("withdrawing the ports of container {id}: {}", chain(&error));
        }
        if connection.sandbox.is_some()
            && let Err(error) = kernel.remove_sandbox(&id.to_string())
        {
            tracing::error!("removing the network of container {id}: {}", chain(&error));
        }
        drop(kernel);
        for endpoint in connection.places.iter().filter_map(|place| place.endpoint.as_ref()) {
            // Only the default bridge's addresses are given out here; the managers give out the others.
            if endpoint.bridge == self.bridge.name {
                self.give_back_address(endpoint.address);
            }
        }
    }

    fn bare_place(&self, name: &str, who: &Who<'_>) -> Place {
        let (network_id, driver) = match name {
            "host" => (&self.ids.host, "host"),
            _ => (&self.ids.none, "null"),
        };
        Place {
            network: name.to_owned(),
            network_id: network_id.clone(),
            driver: driver.to_owned(),
            endpoint_id: (who.draw_id)(),
            endpoint: None,
        }
    }

    fn bridge_place(&self, who: &Who<'_>) -> Result<Place> {
        let address = self.take_address().ok_or_else(|| {
            Error::internal("no available IPv4 addresses on this network's address pools: bridge")
        })?;
        Ok(Place {
            network: "bridge".to_owned(),
            network_id: self.ids.bridge.clone(),
            driver: "bridge".to_owned(),
            endpoint_id: (who.draw_id)(),
            endpoint: Some(Endpoint {
                bridge: self.bridge.name.clone(),
                interface: "eth0".to_owned(),
                address,
                prefix: self.bridge.prefix,
                gateway: Some(self.bridge.gateway),
                mac: MacAddress::of(address),
                priority: 0,
                address6: None,
                gateway6: None,
            }),
        })
    }
}

fn cluster_place(index: usize, attachment: &ClusterAttachment, who: &Who<'_>) -> Place {
    let network = &attachment.network;
    Place {
        network: network.name.clone(),
        network_id: network.id.to_string(),
        driver: "overlay".to_owned(),
        endpoint_id: (who.draw_id)(),
        endpoint: Some(Endpoint {
            bridge: bridge_name(network.id),
            interface: format!("eth{index}"),
            address: attachment.address,
            prefix: network.subnet.prefix(),
            // The first network carries the default route.
            gateway: (index == 0).then(|| super::cluster_bridge(network, None, 0).gateway),
            mac: MacAddress::of(attachment.address),
            priority: 0,
            address6: None,
            gateway6: None,
        }),
    }
}

/// Who publishes the ports of a container.
pub(crate) fn container_key(id: ContainerId) -> PublicationKey {
    PublicationKey(id.to_string())
}

/// What `-p` and `-P` ask for, answered by the container's first address. A container without an address of its own
/// publishes nothing, as in Docker.
fn wanted_publications(who: &Who<'_>, places: &[Place]) -> Vec<Publication> {
    let Some(address) =
        places.iter().find_map(|place| place.endpoint.as_ref()).map(|endpoint| endpoint.address)
    else {
        return Vec::new();
    };
    bindings(who.config)
        .into_iter()
        .map(|binding| publication(binding, address, who.default_host_ip))
        .collect()
}

fn publication(binding: PortBinding, address: Ipv4Addr, default_host_ip: Option<IpAddr>) -> Publication {
    Publication {
        protocol: binding.container.protocol,
        host_ip: binding.host_ip.or(default_host_ip),
        host_port: binding.host_port,
        backends: vec![(address, binding.container.port)],
    }
}

/// The ports to publish: those asked for, and with `-P` every other exposed one on a free port.
fn bindings(config: &ContainerConfig) -> Vec<PortBinding> {
    let mut bindings = config.host.ports.clone();
    if config.host.publish_all {
        let named: Vec<_> = bindings.iter().map(|binding| binding.container).collect();
        let others = config.exposed_ports.iter().filter(|port| !named.contains(port));
        bindings.extend(others.map(|port| PortBinding { container: *port, host_ip: None, host_port: 0 }));
    }
    bindings
}

#[cfg(test)]
mod tests {
    use skep_types::port::{ContainerPort, Protocol};

    use super::*;

    #[test]
    fn publish_all_adds_the_exposed_ports_that_no_binding_names() {
        let port = |port| ContainerPort { port, protocol: Protocol::Tcp };
        let mut config =
            ContainerConfig { exposed_ports: [port(80), port(443)].into(), ..Default::default() };
        let given = PortBinding { container: port(80), host_ip: None, host_port: 8080 };
        config.host.ports = vec![given];
        assert_eq!(bindings(&config), [given]);
        config.host.publish_all = true;
        assert_eq!(
            bindings(&config),
            [given, PortBinding { container: port(443), host_ip: None, host_port: 0 }]
        );
    }
}
