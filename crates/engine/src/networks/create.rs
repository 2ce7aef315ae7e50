//! `docker network create`, `rm` and `prune` of networks of this machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use skep_network::{Address6, Bridge};
use skep_types::events::EventKind;
use skep_types::ip::{Subnet, Subnet6};

use super::local::{Ipam, LocalNetwork};
use super::names::local_zone;
use super::{Networks, PREDEFINED, pool};
use crate::clock::now;
use crate::error::chain;
use crate::events::attributes;
use crate::view::NetworkView;
use crate::{Engine, Error, ErrorKind, Result, blocking};

/// A network to make on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkCreate {
    /// Its name.
    pub name: String,
    /// The driver; empty is `bridge`.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Accepted and shown: every network of this machine can be joined.
    pub attachable: bool,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether its containers have addresses of IPv6, too.
    pub ipv6: bool,
    /// Whether it is a configuration for other networks and nothing else.
    pub config_only: bool,
    /// The configuration that it is made from.
    pub config_from: Option<String>,
    /// Its addresses.
    pub ipam: Ipam,
}

/// Options of bridges that mean something here.
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_ADDRESS: &str = "com.docker.network.bridge.host_binding_ipv4";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";

/// The smallest largest packet of IPv4 (RFC 791).
const MTU_MIN: u32 = 68;

/// What the options of a bridge come to.
#[derive(Debug)]
struct BridgeOptions {
    name: Option<String>,
    mtu: u32,
    masquerade: bool,
    host_address: Option<IpAddr>,
}

fn bridge_options(options: &BTreeMap<String, String>, mtu: u32) -> Result<BridgeOptions> {
    let mut read = BridgeOptions { name: None, mtu, masquerade: true, host_address: None };
    for (name, value) in options {
        let invalid = || Error::invalid(format!("invalid value for driver option {name}: {value:?}"));
        match name.as_str() {
            BRIDGE_NAME => read.name = Some(value.clone()),
            MTU | "mtu" => {
                read.mtu =
                    value.parse().ok().filter(|mtu| (MTU_MIN..=65535).contains(mtu)).ok_or_else(invalid)?;
            }
            MASQUERADE => read.masquerade = truth(value).ok_or_else(invalid)?,
            ICC if truth(value).ok_or_else(invalid)? => {}
            HOST_ADDRESS => read.host_address = Some(value.parse().map_err(|_| invalid())?),
            _ => return Err(Error::unsupported(format!("option {name}={value} (--opt) is not built yet"))),
        }
    }
    Ok(read)
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Checks what a user says of addresses, in moby's words (daemon/network.go, `validateIpamConfig`).
///
/// # Errors
/// 400, with everything that is wrong.
pub fn check_ipam(ipam: &Ipam) -> Result<()> {
    check_ipam6(ipam)?;
    let mut wrong = Vec::new();
    let Some(subnet) = ipam.subnet else {
        let alone = ipam.range.is_some() || ipam.gateway.is_some() || !ipam.reserved.is_empty();
        return if alone {
            Err(Error::invalid("no matching subnet for the ip-range or gateway"))
        } else {
            Ok(())
        };
    };
    if let Some(range) = ipam.range {
        if range.prefix() < subnet.prefix() {
            wrong.push(format!(
                "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
            ));
        }
        if !range.overlaps(subnet) {
            wrong.push(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
        }
    }
    let outside = format!("parent subnet {subnet} doesn't contain this address");
    if let Some(gateway) = ipam.gateway.filter(|gateway| !subnet.contains(*gateway)) {
        wrong.push(format!("invalid gateway {gateway}: {outside}"));
    }
    for (name, _) in ipam.reserved.iter().filter(|(_, address)| !subnet.contains(**address)) {
        wrong.push(format!("invalid auxiliary address {name}: {outside}"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid network config:\n{}", wrong.join("\n"))))
}

/// The same of IPv6. An address there ends in the 32 bits of one of IPv4, so that what is unique there is unique here.
fn check_ipam6(ipam: &Ipam) -> Result<()> {
    const LONGEST_PREFIX: u8 = 96;
    let Some(subnet) = ipam.subnet6 else {
        let alone = ipam.gateway6.is_some();
        let wrong = || Error::invalid("no matching subnet for the ip-range or gateway");
        return if alone { Err(wrong()) } else { Ok(()) };
    };
    if subnet.prefix() > LONGEST_PREFIX {
        return Err(Error::invalid(format!(
            "invalid network config:\ninvalid subnet {subnet}: an IPv6 prefix may have at most {LONGEST_PREFIX} bits"
        )));
    }
    match ipam.gateway6.filter(|gateway| !subnet.contains(*gateway)) {
        Some(gateway) => Err(Error::invalid(format!(
            "invalid network config:\ninvalid gateway {gateway}: parent subnet {subnet} doesn't contain this address"
        ))),
        None => Ok(()),
    }
}

impl Networks {
    fn create(&self, asked: NetworkCreate, id: String) -> Result<LocalNetwork> {
        // One creation at a time: names and subnets are chosen among those that are there.
        let _creating = self.creating.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let asked = self.configured(asked)?;
        if self.is_taken(&asked.name) {
            return Err(Error::conflict(format!("network with name {} already exists", asked.name)));
        }
        let mut network = LocalNetwork {
            id,
            name: asked.name,
            created: now(),
            labels: asked.labels,
            options: asked.options,
            attachable: asked.attachable,
            internal: asked.internal,
            ipv6: asked.ipv6,
            ipam: asked.ipam,
            config_from: asked.config_from,
            bridge: None,
            host_address: None,
        };
        if !asked.config_only {
            self.raise(&mut network)?;
        }
        if let Err(error) = self.locals.insert(network.clone()) {
            self.lower(&network);
            return Err(Error::failed(format!("writing down network {}", network.name), &error));
        }
        self.prepare_addresses(&network);
        Ok(network)
    }

    /// Fills in what a configuration says.
    fn configured(&self, mut asked: NetworkCreate) -> Result<NetworkCreate> {
        check_ipam(&asked.ipam)?;
        if asked.config_only && (asked.internal || asked.attachable) {
            return Err(Error::forbidden(
                "configuration network can only contain network specific fields. Network operator fields like [ ingress \
                 | internal | attachable | scope ] are not supported.",
            ));
        }
        let Some(source) = &asked.config_from else { return Ok(asked) };
        if asked.config_only {
            return Err(Error::forbidden(
                "a configuration network cannot depend on another configuration network",
            ));
        }
        if asked.ipam != Ipam::default() || !asked.labels.is_empty() {
            return Err(Error::forbidden(
                "user-specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        if !asked.options.is_empty() {
            return Err(Error::forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            ));
        }
        let source = self.configuration(source)?;
        asked.ipam = source.ipam;
        asked.labels = source.labels;
        asked.options = source.options;
        asked.ipv6 |= source.ipv6;
        Ok(asked)
    }

    fn configuration(&self, name: &str) -> Result<LocalNetwork> {
        let found = self.locals.get(name).filter(|network| network.bridge.is_none());
        found.ok_or_else(|| Error::not_found(format!("configuration network {name:?} does not exist")))
    }

    fn is_taken(&self, name: &str) -> bool {
        let clustered = || self.cluster().networks.values().any(|network| network.name == name);
        PREDEFINED.contains(&name) || self.locals.get(name).is_some() || clustered()
    }

    /// Gives a network its subnet and its bridge.
    fn raise(&self, network: &mut LocalNetwork) -> Result<()> {
        let options = bridge_options(&network.options, self.bridge.mtu)?;
        let others = self.subnets();
        let subnet = match network.ipam.subnet {
            Some(subnet) if others.iter().any(|other| other.overlaps(subnet)) => {
                return Err(Error::forbidden(
                    "invalid pool request: Pool overlaps with other one on this address space",
                ));
            }
            Some(subnet) => subnet,
            None => self.free_subnet(&others)?,
        };
        if subnet.prefix() > 30 {
            return Err(Error::invalid(format!(
                "invalid subnet {subnet}: it has no room for a gateway and a container"
            )));
        }
        let first = network.ipam.range.unwrap_or(subnet);
        // As libnetwork: the gateway that nobody chooses is the first address that is to be given.
        let gateway = network.ipam.gateway.or_else(|| first_host(first, subnet));
        let gateway = gateway.ok_or_else(|| Error::invalid(format!("subnet {subnet} has no gateway")))?;
        (network.ipam.subnet, network.ipam.gateway) = (Some(subnet), Some(gateway));
        let gateway6 = match network.ipv6 {
            true => Some(self.place6(&network.id, &mut network.ipam)?),
            false => None,
        };
        let name = options.name.unwrap_or_else(|| format!("br-{}", &network.id[..12]));
        let used = |bridge: &Bridge| bridge.name == name;
        let locals = self.locals.all();
        if used(&self.bridge) || locals.iter().filter_map(|local| local.bridge.as_ref()).any(used) {
            return Err(Error::conflict(format!("bridge name {name} is already used by another network")));
        }
        let bridge = Bridge {
            name,
            gateway,
            prefix: subnet.prefix(),
            mtu: options.mtu,
            masquerade: options.masquerade,
            internal: network.internal,
            gateway6,
            ..self.bridge.clone()
        };
        self.kernel()
            .ensure_bridge(&bridge)
            .map_err(|error| Error::internal(format!("Failed to Setup IP tables: {}", chain(&error))))?;
        (network.bridge, network.host_address) = (Some(bridge), options.host_address);
        Ok(())
    }

    /// Gives a network its subnet of IPv6, and answers its gateway there.
    fn place6(&self, id: &str, ipam: &mut Ipam) -> Result<Address6> {
        let subnet = ipam.subnet6.or_else(|| own_subnet6(id));
        let subnet = subnet.ok_or_else(|| Error::internal(format!("no IPv6 subnet follows from id {id}")))?;
        let locals = self.locals.all();
        let clustered: Vec<Subnet6> = self.cluster().networks.values().filter_map(|it| it.subnet6).collect();
        let others = locals.iter().filter(|local| local.bridge.is_some()).filter_map(|it| it.ipam.subnet6);
        if others.chain(clustered).any(|other| other.overlaps(subnet)) {
            return Err(Error::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        let gateway = ipam.gateway6.unwrap_or_else(|| subnet.first_host());
        (ipam.subnet6, ipam.gateway6) = (Some(subnet), Some(gateway));
        Ok(Address6 { address: gateway, prefix: subnet.prefix() })
    }

    /// The subnets that are in use: of networks, and what the host has routes to.
    fn subnets(&self) -> Vec<Subnet> {
        let locals = self.locals.all();
        let bridges = locals.iter().filter_map(|local| local.bridge.as_ref()).chain([&self.bridge]);
        let mut subnets: Vec<Subnet> = bridges.filter_map(Bridge::subnet).collect();
        subnets.extend(self.cluster().networks.values().map(|network| network.subnet));
        subnets
    }

    fn free_subnet(&self, others: &[Subnet]) -> Result<Subnet> {
        // Of this thread: a thread may be in a network namespace of its own.
        let text = std::fs::read_to_string(Path::new("/proc/thread-self/net/route")).unwrap_or_default();
        let routes = pool::routes(&text, &self.bridge.name);
        let is_free = |pool: &&Subnet| !others.iter().chain(&routes).any(|other| other.overlaps(**pool));
        let free = self.pools.iter().find(is_free).copied();
        free.ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
    }

    /// Takes the bridge of a network away again.
    fn lower(&self, network: &LocalNetwork) {
        if let Some(bridge) = &network.bridge
            && let Err(error) = self.kernel().remove_bridge(&bridge.name)
        {
            tracing::error!("removing the bridge of network {}: {}", network.name, chain(&error));
        }
    }

    /// Removes a network that no container runs on.
    fn remove(&self, network: &LocalNetwork) -> Result<()> {
        let depends = |other: &LocalNetwork| other.config_from.as_ref() == Some(&network.name);
        if network.bridge.is_none() && self.locals.all().iter().any(depends) {
            return Err(Error::forbidden(format!("configuration network {:?} is in use", network.name)));
        }
        if let Some(bridge) = &network.bridge {
            self.kernel().remove_bridge(&bridge.name).map_err(|error| {
                Error::failed(format!("removing the bridge of network {}", network.name), &error)
            })?;
        }
        self.locals
            .remove(&network.id)
            .map_err(|error| Error::failed(format!("forgetting network {}", network.name), &error))?;
        self.forget_addresses(&network.id);
        Ok(())
    }
}

/// The subnet of IPv6 of a network that asks for none: local to this machine (RFC 4193), and its own by its id.
fn own_subnet6(id: &str) -> Option<Subnet6> {
    const PREFIX: u8 = 64;
    const UNIQUE_LOCAL: u128 = 0xfd;
    let drawn = u128::from_str_radix(id.get(..14)?, 16).ok()?;
    Subnet6::containing(Ipv6Addr::from(UNIQUE_LOCAL << 120 | drawn << 64), PREFIX)
}

/// The first address of a range that a host of the subnet may have.
fn first_host(range: Subnet, subnet: Subnet) -> Option<Ipv4Addr> {
    let offset = u32::from(range.network() == subnet.network());
    range.nth(offset)
}

impl Engine {
    /// Makes a network on this machine; answers its id.
    ///
    /// # Errors
    /// 403 for a predefined name and an overlapping subnet, 409 for a name in use, 400 for what makes no sense, 501 for an
    /// option that is not built.
    pub async fn create_network(&self, asked: NetworkCreate) -> Result<String> {
        if PREDEFINED.contains(&asked.name.as_str()) {
            // With Docker's space at its end.
            return Err(Error::forbidden(format!(
                "operation is not permitted on predefined {} network ",
                asked.name
            )));
        }
        if asked.name.is_empty() || asked.name.contains('/') {
            return Err(Error::invalid(format!("invalid name: {:?} cannot name a network", asked.name)));
        }
        if !["", "bridge"].contains(&asked.driver.as_str()) && !asked.config_only {
            return Err(match asked.driver.as_str() {
                driver @ ("macvlan" | "ipvlan" | "host" | "null") => {
                    Error::unsupported(format!("network driver {driver} is not built yet"))
                }
                driver => Error::not_found(format!("plugin {driver:?} not found")),
            });
        }
        let engine = self.clone();
        let create = blocking(move || {
            let id = engine.draw_id();
            let network = engine.shared.networks.create(asked, id)?;
            if let Some(zone) = local_zone(&network) {
                engine.names().set_zone(&network.id, zone);
            }
            engine.announce(&network, "create");
            Ok(network.id)
        });
        self.shared.tasks.run(async move { create.await? }).await
    }

    /// What a configuration network says, for a network of the cluster that is made from it.
    ///
    /// # Errors
    /// 404 when there is none of that name.
    pub fn network_configuration(&self, name: &str) -> Result<NetworkCreate> {
        let source = self.shared.networks.configuration(name)?;
        Ok(NetworkCreate {
            name: source.name,
            labels: source.labels,
            options: source.options,
            ipam: source.ipam,
            ipv6: source.ipv6,
            config_only: true,
            ..NetworkCreate::default()
        })
    }

    /// Removes a network of this machine.
    ///
    /// # Errors
    /// 404; 403 for a predefined network and one that containers run on.
    pub async fn delete_network(&self, name: &str) -> Result<()> {
        let view = self.inspect_network(name)?;
        self.delete_viewed(view).await
    }

    async fn delete_viewed(&self, view: NetworkView) -> Result<()> {
        if PREDEFINED.contains(&view.name.as_str()) {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                view.name
            )));
        }
        let Some(network) = self.shared.networks.locals.get(&view.id) else {
            return Err(Error::not_found(format!("network {} not found", view.name)));
        };
        let engine = self.clone();
        let remove = blocking(move || {
            let networks = &engine.shared.networks;
            let _creating = networks.creating.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Looked at inside: whoever connects looks for the network under the same lock.
            engine.refuse_active(&network)?;
            networks.remove(&network)?;
            engine.names().remove_zone(&network.id);
            engine.announce(&network, "destroy");
            Ok(())
        });
        self.shared.tasks.run(async move { remove.await? }).await
    }

    /// Refuses to remove a network that containers run on, in libnetwork's words.
    fn refuse_active(&self, network: &LocalNetwork) -> Result<()> {
        let members = self.members().remove(&network.id).unwrap_or_default();
        if members.is_empty() {
            return Ok(());
        }
        let named = members.iter().map(|(_, name, place)| {
            let id = place.endpoint_id.get(..12).unwrap_or_default();
            format!("name:{name:?} id:{id:?}")
        });
        let named: Vec<String> = named.collect();
        Err(Error::forbidden(format!(
            "error while removing network: network {} has active endpoints ({})",
            network.name,
            named.join(", ")
        )))
    }

    /// Removes the networks of this machine that no container is on and that `admits`. Answers their names.
    pub async fn prune_networks(&self, admits: impl Fn(&NetworkView) -> bool) -> Vec<String> {
        let mut removed = Vec::new();
        for view in self.networks() {
            // As Docker: configurations stay.
            let ours =
                view.scope == "local" && !view.config_only && !PREDEFINED.contains(&view.name.as_str());
            if !(ours && view.containers.is_empty() && admits(&view)) {
                continue;
            }
            let name = view.name.clone();
            match self.delete_viewed(view).await {
                Ok(()) => removed.push(name),
                Err(error) if error.kind == ErrorKind::Forbidden => {}
                Err(error) => tracing::warn!("could not remove local network {name}: {error}"),
            }
        }
        let attributes = attributes([("reclaimed", "0".to_owned())]);
        self.shared.events.emit(EventKind::Network, "prune", "", attributes);
        removed
    }

    /// Tells that a network of this machine was made or removed.
    fn announce(&self, network: &LocalNetwork, action: &str) {
        let driver = if network.bridge.is_some() { "bridge" } else { "null" };
        let attributes = attributes([("name", network.name.clone()), ("type", driver.to_owned())]);
        self.shared.events.emit(EventKind::Network, action, network.id.clone(), attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn addresses_are_checked_in_moby_s_words() {
        let mut ipam = Ipam { subnet: Some(subnet("10.1.0.0/24")), ..Ipam::default() };
        assert_eq!(check_ipam(&ipam), Ok(()));
        ipam.range = Some(subnet("10.2.0.0/16"));
        ipam.gateway = Some(Ipv4Addr::new(10, 2, 0, 1));
        let refused = check_ipam(&ipam).expect_err("outside");
        assert_eq!(
            refused.message,
            "invalid network config:\n\
             invalid ip-range 10.2.0.0/16: CIDR block is bigger than its parent subnet 10.1.0.0/24\n\
             invalid ip-range 10.2.0.0/16: parent subnet 10.1.0.0/24 doesn't contain ip-range\n\
             invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address"
        );
        assert!(check_ipam(&Ipam { range: Some(subnet("10.2.0.0/16")), ..Ipam::default() }).is_err());
    }

    #[test]
    fn options_of_bridges_are_read_or_refused_by_name() {
        let options = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(bridge_options(&options(MTU, "1400"), 1500).expect("an MTU").mtu, 1400);
        assert!(bridge_options(&options(ICC, "true"), 1500).is_ok());
        assert!(bridge_options(&options(MTU, "7"), 1500).is_err());
        let refused = bridge_options(&options("parent", "eth0"), 1500).expect_err("no option of bridges");
        assert_eq!(refused.message, "option parent=eth0 (--opt) is not built yet");
        assert!(bridge_options(&options(ICC, "false"), 1500).is_err());
    }

    #[test]
    fn a_subnet_of_ipv6_has_room_for_all_addresses_and_its_gateway() {
        let six = |subnet: &str, gateway: &str| Ipam {
            subnet6: subnet.parse().ok(),
            gateway6: gateway.parse().ok(),
            ..Ipam::default()
        };
        assert_eq!(check_ipam(&six("fd00:7::/64", "fd00:7::9")), Ok(()));
        assert!(check_ipam(&six("fd00:7::/112", "")).is_err());
        assert!(check_ipam(&six("", "fd00:7::9")).is_err());
        let refused = check_ipam(&six("fd00:7::/64", "fd00:8::9")).expect_err("elsewhere");
        assert!(refused.message.ends_with("parent subnet fd00:7::/64 doesn't contain this address"));
        let own = own_subnet6("0123456789abcdef").map(|subnet| subnet.to_string());
        assert_eq!(own.as_deref(), Some("fd01:2345:6789:abcd::/64"));
    }

    #[test]
    fn the_gateway_is_the_first_address_to_be_given() {
        let wide = subnet("10.1.0.0/24");
        assert_eq!(first_host(wide, wide), Some(Ipv4Addr::new(10, 1, 0, 1)));
        assert_eq!(first_host(subnet("10.1.0.128/25"), wide), Some(Ipv4Addr::new(10, 1, 0, 128)));
    }
}
