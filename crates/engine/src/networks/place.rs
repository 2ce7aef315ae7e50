//! A container's places on networks: made before its start or while it runs, undone after its end or while it runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_network::{Address6, Endpoint, MacAddress, Publication, PublicationKey};
use skep_types::container::{ClusterAttachment, ContainerConfig, EndpointRequest};
use skep_types::ip::Subnet6;
use skep_types::port::PortBinding;
use skep_types::{ContainerId, NetworkId};

use super::local::LocalNetwork;
use super::wishes::{Planned, Target};
use super::{Networks, bridge_name};
use crate::error::chain;
use crate::{Error, Result};

/// What a running container has of the network. Kept on disk, so that the next daemon knows what the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// Its network namespace; `None` is the host's.
    pub(crate) sandbox: Option<PathBuf>,
    /// Whether the namespace is another container's.
    #[serde(default)]
    pub(crate) borrowed: bool,
    pub(crate) places: Vec<Place>,
    /// Its published ports, numbers given.
    pub(crate) published: Vec<Publication>,
}

impl Connection {
    /// The networks of the cluster that it is on.
    pub(crate) fn cluster_networks(&self) -> impl Iterator<Item = NetworkId> {
        self.places
            .iter()
            .filter(|place| place.is_clustered())
            .filter_map(|place| place.network_id.parse().ok())
    }

    /// Whether names are answered at 127.0.0.11: not where there is only the default bridge, as in Docker.
    pub(crate) fn has_names(&self) -> bool {
        self.places.iter().any(Place::has_names)
    }

    /// The address that published ports lead to: of the first network that leads outside.
    fn front(&self) -> Option<&Place> {
        let leads_out = |place: &&Place| place.endpoint.as_ref().is_some_and(|it| it.gateway.is_some());
        self.places.iter().find(leads_out)
    }

    /// The same of IPv6: what has no such address is not published there.
    fn front6(&self) -> Option<Ipv6Addr> {
        let endpoints = self.places.iter().filter_map(|place| place.endpoint.as_ref());
        let leads_out = |it: &Endpoint| it.gateway6.and(it.address6).map(|address| address.address);
        endpoints.filter(|it| it.gateway.is_some()).find_map(leads_out)
    }
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
    /// What was asked of it.
    #[serde(default)]
    pub(crate) wish: EndpointRequest,
    /// Where its ports are published when their binding does not say.
    #[serde(default)]
    pub(crate) host_address: Option<IpAddr>,
}

impl Place {
    pub(crate) fn is_clustered(&self) -> bool {
        self.driver == "overlay"
    }

    pub(crate) fn has_names(&self) -> bool {
        self.endpoint.is_some() && !(self.driver == "bridge" && self.network == "bridge")
    }
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
    /// Gives a container a namespace of its own with an interface on each network, in this order. After an error nothing
    /// of it is left.
    pub(crate) fn connect(&self, who: &Who<'_>, planned: &[Planned]) -> Result<Connection> {
        let mut connection = Connection::default();
        match self.try_connect(who, planned, &mut connection) {
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

    fn try_connect(&self, who: &Who<'_>, planned: &[Planned], connection: &mut Connection) -> Result<()> {
        let sandbox = who.id.to_string();
        let made = self.kernel().create_sandbox(&sandbox);
        connection.sandbox = Some(made.map_err(|error| Error::internal(chain(&error)))?);
        for planned in planned {
            self.join(who, planned, connection)?;
        }
        self.redirect_names(who, connection)?;
        if planned.is_empty() {
            connection.places = vec![self.bare_place("none", who)];
        }
        self.publish(who, connection)
    }

    /// Gives a container that has a namespace an interface on one more network.
    pub(crate) fn join(&self, who: &Who<'_>, planned: &Planned, connection: &mut Connection) -> Result<()> {
        let place = self.place_of(who, planned, &connection.places)?;
        let endpoint = place.endpoint.clone().expect("a planned network gives an interface");
        // Before the kernel is asked: what is taken is given back with the place.
        connection.places.push(place);
        self.kernel().attach(&who.id.to_string(), &endpoint).map_err(|error| Error::internal(chain(&error)))
    }

    /// Has questions for names in a namespace brought to the server, where it is to answer.
    pub(crate) fn redirect_names(&self, who: &Who<'_>, connection: &Connection) -> Result<()> {
        if !connection.has_names() {
            return Ok(());
        }
        let redirected = self.kernel().redirect_names(&who.id.to_string(), skep_names::PORT);
        redirected.map_err(|error| Error::internal(chain(&error)))
    }

    /// Takes the interface on one network away from a running container. What fails is logged.
    pub(crate) fn part(&self, who: &Who<'_>, network_id: &str, connection: &mut Connection) -> Option<Place> {
        let index = connection.places.iter().position(|place| place.network_id == network_id)?;
        let place = connection.places.remove(index);
        if let Some(endpoint) = &place.endpoint {
            if let Err(error) = self.kernel().detach(&who.id.to_string(), &endpoint.interface) {
                tracing::error!(
                    "taking container {} off network {}: {}",
                    who.id,
                    place.network,
                    chain(&error)
                );
            }
            self.give_back_address(network_id, endpoint.address);
        }
        Some(place)
    }

    /// Makes the published ports lead to where they should, numbers that were given out kept.
    pub(crate) fn publish(&self, who: &Who<'_>, connection: &mut Connection) -> Result<()> {
        let wanted = wanted_publications(who, connection);
        if wanted == connection.published {
            return Ok(());
        }
        let published = self.kernel().publish(container_key(who.id), wanted);
        connection.published = published.map_err(|error| {
            let endpoint = connection.places.first().map_or("", |place| &place.endpoint_id);
            let driver = "driver failed programming external connectivity on endpoint";
            Error::internal(format!("{driver} {} ({endpoint}): {}", who.name, self.explain(&error)))
        })?;
        Ok(())
    }

    /// The connection of a container on the host's network.
    pub(crate) fn host_connection(&self, who: &Who<'_>) -> Connection {
        Connection { places: vec![self.bare_place("host", who)], ..Connection::default() }
    }

    /// Takes a container's network away. What fails is logged, and the rest is taken away nonetheless.
    pub(crate) fn disconnect(&self, id: ContainerId, connection: &Connection) {
        if connection.borrowed {
            return;
        }
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
        for place in &connection.places {
            if let Some(endpoint) = &place.endpoint {
                self.give_back_address(&place.network_id, endpoint.address);
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
            wish: EndpointRequest::default(),
            host_address: None,
        }
    }

    fn place_of(&self, who: &Who<'_>, planned: &Planned, others: &[Place]) -> Result<Place> {
        let interface = free_interface(others);
        match &planned.target {
            Target::Bridge => {
                let address = self.take_address(&self.ids.bridge, "bridge", planned.wish.address)?;
                let endpoint = on_bridge(&self.bridge, interface, address, &planned.wish);
                Ok(place("bridge", self.ids.bridge.clone(), "bridge", who, planned, endpoint))
            }
            Target::Local(network) => self.local_place(who, network, planned, interface),
            Target::Cluster(attachment) => {
                self.ensure(&attachment.network)?;
                let endpoint = on_cluster(attachment, interface, &planned.wish);
                let network = &attachment.network;
                Ok(place(&network.name, network.id.to_string(), "overlay", who, planned, endpoint))
            }
        }
    }

    fn local_place(
        &self,
        who: &Who<'_>,
        network: &LocalNetwork,
        planned: &Planned,
        interface: String,
    ) -> Result<Place> {
        let bridge = network
            .bridge
            .as_ref()
            .ok_or_else(|| Error::forbidden("cannot create endpoint on configuration-only network"))?;
        let address = self.take_address(&network.id, &network.name, planned.wish.address)?;
        let endpoint = on_bridge(bridge, interface, address, &planned.wish);
        let made = place(&network.name, network.id.clone(), "bridge", who, planned, endpoint);
        Ok(Place { host_address: network.host_address, ..made })
    }
}

fn place(
    network: &str,
    network_id: String,
    driver: &str,
    who: &Who<'_>,
    planned: &Planned,
    endpoint: Endpoint,
) -> Place {
    Place {
        network: network.to_owned(),
        network_id,
        driver: driver.to_owned(),
        endpoint_id: (who.draw_id)(),
        endpoint: Some(endpoint),
        wish: planned.wish.clone(),
        host_address: None,
    }
}

/// The first of `eth0`, `eth1`... that no place has.
fn free_interface(places: &[Place]) -> String {
    let used = |name: &String| {
        places.iter().filter_map(|place| place.endpoint.as_ref()).any(|it| it.interface == *name)
    };
    (0..=places.len())
        .map(|number| format!("eth{number}"))
        .find(|name| !used(name))
        .expect("fewer interfaces are used than there are names")
}

fn on_bridge(
    bridge: &skep_network::Bridge,
    interface: String,
    address: Ipv4Addr,
    wish: &EndpointRequest,
) -> Endpoint {
    let address6 = bridge.gateway6.and_then(|gateway| {
        let own = Subnet6::containing(gateway.address, gateway.prefix)?.with_low_bits(address)?;
        Some(Address6 { address: own, prefix: gateway.prefix })
    });
    Endpoint {
        bridge: bridge.name.clone(),
        interface,
        address,
        prefix: bridge.prefix,
        gateway: (!bridge.internal).then_some(bridge.gateway),
        mac: wish.mac.map_or_else(|| MacAddress::of(address), MacAddress),
        priority: wish.priority,
        address6,
        gateway6: bridge.gateway6.filter(|_| !bridge.internal).map(|gateway| gateway.address),
    }
}

fn on_cluster(attachment: &ClusterAttachment, interface: String, wish: &EndpointRequest) -> Endpoint {
    let network = &attachment.network;
    let address6 = |of: Ipv4Addr| network.address6(of).filter(|_| network.subnet6.is_some());
    let prefix6 = network.subnet6.map_or(0, |subnet| subnet.prefix());
    Endpoint {
        bridge: bridge_name(network.id),
        interface,
        address: attachment.address,
        prefix: network.subnet.prefix(),
        gateway: (!network.internal).then(|| network.gateway()),
        mac: MacAddress::of(attachment.address),
        // Clients of published ports come from anywhere, and servers of datagrams answer from the default route's address.
        priority: if network.ingress { i64::MAX } else { wish.priority },
        address6: address6(attachment.address).map(|address| Address6 { address, prefix: prefix6 }),
        gateway6: address6(network.gateway()).filter(|_| !network.internal),
    }
}

/// Who publishes the ports of a container.
pub(crate) fn container_key(id: ContainerId) -> PublicationKey {
    PublicationKey(id.to_string())
}

/// What `-p` and `-P` ask for, answered by the container's address on the first network that leads outside; a container
/// without one publishes nothing, as in Docker. Numbers that were given out before are asked for again.
fn wanted_publications(who: &Who<'_>, connection: &Connection) -> Vec<Publication> {
    let Some(place) = connection.front() else { return Vec::new() };
    let Some(endpoint) = &place.endpoint else { return Vec::new() };
    let host_address = place.host_address.or(who.default_host_ip);
    let wanted = bindings(who.config).into_iter();
    let addresses = [Some(IpAddr::from(endpoint.address)), connection.front6().map(IpAddr::from)];
    let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
    let wanted = wanted.map(|binding| publication(binding, &addresses, host_address));
    wanted
        .enumerate()
        .map(|(index, wanted)| match connection.published.get(index) {
            Some(given) => Publication { host_port: given.host_port, ..wanted },
            None => wanted,
        })
        .collect()
}

fn publication(binding: PortBinding, addresses: &[IpAddr], default_host_ip: Option<IpAddr>) -> Publication {
    Publication {
        protocol: binding.container.protocol,
        host_ip: binding.host_ip.or(default_host_ip),
        host_port: binding.host_port,
        backends: addresses.iter().map(|address| (*address, binding.container.port)).collect(),
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
