//! What to do so that the kernel holds what is desired. Pure: reads no kernel, no clock, no file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_types::ip::{Subnet, Subnet6};
use skep_types::port::Protocol;

use crate::attachments::routed;
use crate::model::{Address6, Bridge, Desired, Endpoint, MacAddress, Peers, Transport};
use crate::names::Names;

/// Where a service is reached on the host. Ordered so that all addresses of a port are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Front {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// 0.0.0.0 is every IPv4 address of the host, and :: every IPv6 address.
    pub(crate) address: IpAddr,
}

impl Front {
    /// Whether both answer at some address.
    pub(crate) fn overlaps(&self, other: &Front) -> bool {
        (self.protocol, self.port) == (other.protocol, other.port)
            && self.address.is_ipv4() == other.address.is_ipv4()
            && (self.address == other.address || self.is_everywhere() || other.is_everywhere())
    }

    /// Whether it answers at every address of the host.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.address.is_unspecified()
    }
}

/// Who answers, an address and a port: of the front's own family.
pub(crate) type Backend = (IpAddr, u16);

/// Fronts and who answers there.
pub(crate) type Services = BTreeMap<Front, Vec<Backend>>;

/// A change of our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuleChange {
    AddBridge(Bridge),
    RemoveBridge(Bridge),
    /// New, or with other backends than before; there is at least one.
    SetService(Front, Vec<Backend>),
    RemoveService(Front),
}

/// A change of links, addresses or namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// Create a bridge, still down and without address.
    CreateBridge {
        bridge: String,
        mac: MacAddress,
    },
    /// Give a bridge of ours another hardware address.
    SetMac {
        link: String,
        mac: MacAddress,
    },
    RemoveAddress {
        link: String,
        address: Ipv4Addr,
        prefix: u8,
    },
    AddAddress {
        link: String,
        address: Ipv4Addr,
        prefix: u8,
    },
    /// Give a link of the host these IPv6 addresses beside those of its link, and take others away. Packets are sent
    /// from the first one that is no gateway's, if there is one.
    SetAddresses6 {
        link: String,
        addresses: Vec<Address6>,
        stale: BTreeSet<Address6>,
    },
    /// Bring a bridge up with that size of packets, and allow 127.0.0.1 to be answered through it.
    RaiseBridge {
        bridge: String,
        mtu: u32,
    },
    /// Let answers to [::1] come in by a bridge, which has to be up.
    AnswerLoopback6 {
        bridge: String,
    },
    DeleteLink {
        link: String,
    },
    /// Remove permanent neighbours of a bridge whose VXLAN device does not know them.
    ForgetNeighbours {
        bridge: String,
        addresses: BTreeSet<Ipv4Addr>,
    },
    /// Create the VXLAN device of a bridge, up, knowing nobody.
    CreateOverlay {
        link: String,
        bridge: String,
        vxlan: Vxlan,
    },
    /// Create the TAP device of a bridge, up, with that size of packets, knowing nobody.
    CreateTap {
        link: String,
        bridge: String,
        mtu: u32,
    },
    /// Make an existing device a port of the bridge again, up, with that size of packets.
    ConnectOverlay {
        transport: Transport,
        link: String,
        bridge: String,
        mtu: u32,
    },
    SetPeers {
        transport: Transport,
        link: String,
        bridge: String,
        peers: Peers,
    },
    RemovePeers {
        transport: Transport,
        link: String,
        bridge: String,
        addresses: BTreeSet<Ipv4Addr>,
    },
    CreateSandbox {
        sandbox: String,
    },
    RemoveSandbox {
        sandbox: String,
    },
    /// Create the veth pair of an endpoint and configure it.
    Attach {
        sandbox: String,
        endpoint: Endpoint,
    },
    /// Make an existing host end a port of the bridge again.
    Connect {
        link: String,
        bridge: String,
    },
    /// Add what lacks inside to an interface that exists.
    /// Give both ends of an interface the bridge's size of packets.
    Resize {
        sandbox: String,
        interface: String,
        mtu: u32,
    },
    Configure {
        sandbox: String,
        endpoint: Endpoint,
    },
    /// Answer connections that come in by the interface to the node of that network that they came from.
    AnswerSenders {
        sandbox: String,
        interface: String,
        network: Subnet,
        /// The same network over IPv6.
        network6: Option<Subnet6>,
    },
    /// Undo that before the interface goes.
    ForgetSenders {
        sandbox: String,
        interface: String,
    },
}

/// What is tried, for messages: `attach eth0 of sandbox x to docker0`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::CreateBridge { bridge, .. } => write!(f, "create bridge {bridge}"),
            Operation::SetMac { link, mac } => write!(f, "give {link} the hardware address {mac}"),
            Operation::CreateOverlay { link, bridge, vxlan } => {
                write!(f, "create {vxlan} as {link} for {bridge}")
            }
            Operation::CreateTap { link, bridge, mtu } => {
                write!(f, "create TAP device {link} for {bridge} with MTU {mtu}")
            }
            Operation::ConnectOverlay { link, bridge, mtu, .. } => {
                write!(f, "connect {link} to {bridge} with MTU {mtu}")
            }
            Operation::SetPeers { link, peers, .. } => write!(f, "tell {link} of {} peers", peers.len()),
            Operation::RemovePeers { link, addresses, .. } => {
                write!(f, "make {link} forget {} peers", addresses.len())
            }
            Operation::ForgetNeighbours { bridge, addresses } => {
                write!(f, "make {bridge} forget {} neighbours", addresses.len())
            }
            Operation::RemoveAddress { link, address, prefix } => {
                write!(f, "remove address {address}/{prefix} from {link}")
            }
            Operation::AddAddress { link, address, prefix } => {
                write!(f, "add address {address}/{prefix} to {link}")
            }
            Operation::SetAddresses6 { link, addresses, .. } => match addresses.first() {
                Some(Address6 { address, prefix }) => {
                    write!(f, "make {address}/{prefix} the IPv6 address of {link}")
                }
                None => write!(f, "take IPv6 from {link}"),
            },
            Operation::RaiseBridge { bridge, mtu } => write!(f, "bring up bridge {bridge} with MTU {mtu}"),
            Operation::AnswerLoopback6 { bridge } => write!(f, "let [::1] be answered through {bridge}"),
            Operation::DeleteLink { link } => write!(f, "delete interface {link}"),
            Operation::CreateSandbox { sandbox } => write!(f, "create sandbox {sandbox}"),
            Operation::RemoveSandbox { sandbox } => write!(f, "remove sandbox {sandbox}"),
            Operation::Attach { sandbox, endpoint } => {
                write!(f, "attach {} of sandbox {sandbox} to {}", endpoint.interface, endpoint.bridge)
            }
            Operation::Connect { link, bridge } => write!(f, "connect {link} to {bridge}"),
            Operation::Resize { sandbox, interface, mtu } => {
                write!(f, "give {interface} of sandbox {sandbox} MTU {mtu}")
            }
            Operation::Configure { sandbox, endpoint } => {
                write!(f, "configure {} of sandbox {sandbox}", endpoint.interface)
            }
            Operation::ForgetSenders { sandbox, interface } => {
                write!(f, "remove the rules of {interface} of sandbox {sandbox}")
            }
            Operation::AnswerSenders { sandbox, interface, .. } => {
                write!(f, "have {interface} of sandbox {sandbox} answer through the nodes that are asked")
            }
        }
    }
}

/// What a VXLAN device is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    /// Where packets are sent from; `None` leaves it to the host's routes.
    pub(crate) local: Option<Ipv4Addr>,
    pub(crate) mtu: u32,
}

/// `VXLAN 4096 from 192.0.2.1 at port 4789 with MTU 1450`.
impl fmt::Display for Vxlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.local.map(|local| format!(" from {local}")).unwrap_or_default();
        write!(f, "VXLAN {}{local} at port {} with MTU {}", self.vni, self.port, self.mtu)
    }
}

/// The addresses that a device and its bridge have entries for; `None` where some entry lacks or is wrong. A TAP device's
/// entries say no host, which counts as 0.0.0.0.
pub(crate) type FoundPeers = BTreeMap<Ipv4Addr, Option<Ipv4Addr>>;

/// A link of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundLink {
    /// `bridge`, `veth`, ...
    pub(crate) kind: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// The bridge whose port it is.
    pub(crate) master: Option<String>,
    /// Whether this instance created it, as its alias says.
    pub(crate) ours: bool,
    /// For a bridge: whether packets to and from 127.0.0.1 may be routed through it.
    pub(crate) local_clients: bool,
    /// Whether [::1] may be answered through it.
    pub(crate) local_clients6: bool,
    pub(crate) addresses: BTreeSet<(Ipv4Addr, u8)>,
    /// Those of IPv6 that are not of the link alone.
    pub(crate) addresses6: BTreeSet<Address6>,
    pub(crate) mac: Option<MacAddress>,
    /// For a VXLAN device that works as ours do: what it was made with, and whom it knows.
    pub(crate) vxlan: Option<(Vxlan, FoundPeers)>,
    /// For a TAP device of ours: whom its bridge knows to be behind it.
    pub(crate) tap: Option<FoundPeers>,
    /// For a link of ours: its permanent neighbours.
    pub(crate) neighbours: BTreeSet<Ipv4Addr>,
}

/// An interface in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundInterface {
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) addresses: BTreeSet<(Ipv4Addr, u8)>,
    pub(crate) gateways: BTreeSet<Ipv4Addr>,
    pub(crate) addresses6: BTreeSet<Address6>,
    pub(crate) gateways6: BTreeSet<Ipv6Addr>,
    /// Whether connections that come in by it are answered to the node that they came from.
    pub(crate) answers_senders: bool,
}

/// A file in the directory of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundSandbox {
    /// No namespace is bound to it.
    Empty,
    /// It could not be looked into, for this reason. It may well be in use, so it is left alone.
    Unseen(String),
    /// Its interfaces by name.
    Namespace(BTreeMap<String, FoundInterface>),
}

/// What the kernel holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    pub(crate) links: BTreeMap<String, FoundLink>,
    pub(crate) sandboxes: BTreeMap<String, FoundSandbox>,
}

/// The way from `actual` to `desired`: first what goes, then bridges, then what hangs on them.
pub(crate) fn plan(names: &Names, desired: &Desired, actual: &Actual) -> Vec<Operation> {
    let mut operations = Vec::new();
    plan_removals(names, desired, actual, &mut operations);
    let nobody = Peers::new();
    for bridge in &desired.bridges {
        let carrier = carrier_mtu(bridge, &actual.links);
        operations.extend(plan_bridge(bridge, actual.links.get(&bridge.name), carrier));
        let peers = desired.peers.get(&bridge.name).unwrap_or(&nobody);
        operations.extend(plan_overlay(names, bridge, peers, &actual.links));
    }
    for (sandbox, endpoints) in &desired.sandboxes {
        plan_sandbox(names, (sandbox, endpoints), &desired.bridges, actual, &mut operations);
    }
    operations
}

fn plan_removals(names: &Names, desired: &Desired, actual: &Actual, operations: &mut Vec<Operation>) {
    let wanted_links: BTreeSet<String> = desired
        .sandboxes
        .iter()
        .flat_map(|(sandbox, endpoints)| endpoints.iter().map(|it| names.host_end(sandbox, &it.interface)))
        .chain(desired.bridges.iter().map(|bridge| bridge.name.clone()))
        .chain(desired.bridges.iter().map(|bridge| names.overlay(&bridge.name)))
        .collect();
    for (name, link) in &actual.links {
        let ours = match link.kind.as_str() {
            "veth" => names.is_host_end(name),
            "bridge" | "vxlan" | "tun" => link.ours,
            _ => false,
        };
        if ours && !wanted_links.contains(name) {
            operations.push(Operation::DeleteLink { link: name.clone() });
        }
    }
    for sandbox in actual.sandboxes.keys().filter(|name| !desired.sandboxes.contains_key(*name)) {
        operations.push(Operation::RemoveSandbox { sandbox: sandbox.clone() });
    }
}

/// What VXLAN adds to a packet, in bytes: its own header, and those of UDP, IPv4 and Ethernet.
const VXLAN_OVERHEAD: u32 = 50;
/// The size of packets of a carrier that is not known.
const USUAL_MTU: u32 = 1500;

/// The size of packets of the link that has the address which other nodes send to.
pub(crate) fn carrier_mtu(bridge: &Bridge, links: &BTreeMap<String, FoundLink>) -> Option<u32> {
    let local = bridge.overlay?.local;
    let has = |link: &&FoundLink| link.addresses.iter().any(|(address, _)| *address == local);
    links.values().find(has).map(|link| link.mtu)
}

/// The way to a bridge as described. A link of its name that is no bridge makes the first operation fail.
/// `carrier` is what [`carrier_mtu`] gives.
pub(crate) fn plan_bridge(
    bridge: &Bridge,
    found: Option<&FoundLink>,
    carrier: Option<u32>,
) -> Vec<Operation> {
    let name = &bridge.name;
    let mut operations = Vec::new();
    let found = found.filter(|link| link.kind == "bridge");
    let is_ours = found.is_some_and(|link| link.ours);
    let mac = MacAddress::of(bridge.overlay.map_or(bridge.gateway, |overlay| overlay.address));
    if found.is_none() {
        operations.push(Operation::CreateBridge { bridge: name.clone(), mac });
    } else if is_ours && bridge.overlay.is_some() && found.and_then(|link| link.mac) != Some(mac) {
        operations.push(Operation::SetMac { link: name.clone(), mac });
    }
    let wanted = bridge_addresses(bridge);
    let addresses = found.map(|link| link.addresses.clone()).unwrap_or_default();
    // An administrator may have given further addresses to a bridge of theirs.
    if is_ours {
        for &(address, prefix) in addresses.iter().filter(|address| !wanted.contains(address)) {
            operations.push(Operation::RemoveAddress { link: name.clone(), address, prefix });
        }
    }
    for (address, prefix) in wanted.into_iter().filter(|address| !addresses.contains(address)) {
        operations.push(Operation::AddAddress { link: name.clone(), address, prefix });
    }
    let addresses6 = found.map(|link| link.addresses6.clone()).unwrap_or_default();
    let wanted6 = bridge_addresses6(bridge);
    let stale: BTreeSet<Address6> =
        addresses6.iter().filter(|it| is_ours && !wanted6.contains(it)).copied().collect();
    if !stale.is_empty() || wanted6.iter().any(|address| !addresses6.contains(address)) {
        operations.push(Operation::SetAddresses6 { link: name.clone(), addresses: wanted6, stale });
    }
    let mtu = bridge_mtu(bridge, carrier);
    if !found.is_some_and(|link| link.up && link.mtu == mtu && link.local_clients) {
        operations.push(Operation::RaiseBridge { bridge: name.clone(), mtu });
    }
    if bridge.gateway6.is_some() && !found.is_some_and(|link| link.up && link.local_clients6) {
        operations.push(Operation::AnswerLoopback6 { bridge: name.clone() });
    }
    operations
}

/// The node's own address stands for the subnet, so that it is what packets are sent from. Every node has the gateway's
/// too, each for its own containers.
fn bridge_addresses(bridge: &Bridge) -> Vec<(Ipv4Addr, u8)> {
    match bridge.overlay {
        Some(overlay) => vec![(overlay.address, bridge.prefix), (bridge.gateway, 32)],
        None => vec![(bridge.gateway, bridge.prefix)],
    }
}

/// As [`bridge_addresses`], of IPv6: the one that packets are sent from first. A node's own ends in its IPv4 one.
fn bridge_addresses6(bridge: &Bridge) -> Vec<Address6> {
    let own = bridge.overlay.and_then(|overlay| {
        let gateway = bridge.gateway6?;
        let address = Subnet6::containing(gateway.address, gateway.prefix)?.with_low_bits(overlay.address)?;
        Some(Address6 { address, prefix: gateway.prefix })
    });
    own.into_iter().chain(bridge.gateway6).collect()
}

/// What the carrier leaves of a packet, and no more than was asked for: larger ones would be lost, or travel in pieces.
pub(crate) fn bridge_mtu(bridge: &Bridge, carrier: Option<u32>) -> u32 {
    match bridge.overlay {
        Some(overlay) => {
            let left = carrier.unwrap_or(USUAL_MTU).saturating_sub(VXLAN_OVERHEAD + overlay.overhead);
            left.min(overlay.mtu.unwrap_or(left))
        }
        None => bridge.mtu,
    }
}

/// The way to a bridge's VXLAN device and what it knows. There is none while nobody is on another node: a cluster of one
/// node opens no port.
pub(crate) fn plan_overlay(
    names: &Names,
    bridge: &Bridge,
    peers: &Peers,
    links: &BTreeMap<String, FoundLink>,
) -> Vec<Operation> {
    let link = names.overlay(&bridge.name);
    let found = links.get(&link);
    let neighbours =
        links.get(&bridge.name).filter(|_| bridge.overlay.is_some()).map(|found| &found.neighbours);
    let mut stale: BTreeSet<Ipv4Addr> =
        neighbours.into_iter().flatten().filter(|address| !peers.contains_key(address)).copied().collect();
    let mut operations = Vec::new();
    match bridge.overlay.filter(|_| !peers.is_empty()) {
        None => operations.extend(found.map(|_| Operation::DeleteLink { link })),
        Some(overlay) => {
            let carrier = carrier_mtu(bridge, links);
            // An address that this host lacks, behind a translating router, cannot be sent from.
            let local = carrier.map(|_| overlay.local);
            let mtu = bridge_mtu(bridge, carrier);
            let vxlan = Vxlan { vni: overlay.vni, port: overlay.port, local, mtu };
            let transport = overlay.transport;
            let known = found.and_then(|found| match transport {
                // Its size of packets is all that can be changed of it.
                Transport::Vxlan => {
                    let as_wanted = |(known, _): &&(Vxlan, _)| Vxlan { mtu, ..*known } == vxlan;
                    found.vxlan.as_ref().filter(as_wanted).map(|(_, peers)| (found, peers))
                }
                Transport::Process => found.tap.as_ref().map(|peers| (found, peers)),
            });
            match known {
                Some((found, known)) => {
                    stale.retain(|address| !known.contains_key(address));
                    plan_peers(bridge, (transport, link), mtu, peers, (found, known), &mut operations);
                }
                None => {
                    operations.extend(found.map(|_| Operation::DeleteLink { link: link.clone() }));
                    let bridge = bridge.name.clone();
                    operations.push(match transport {
                        Transport::Vxlan => {
                            Operation::CreateOverlay { link: link.clone(), bridge: bridge.clone(), vxlan }
                        }
                        Transport::Process => {
                            Operation::CreateTap { link: link.clone(), bridge: bridge.clone(), mtu }
                        }
                    });
                    operations.push(Operation::SetPeers { transport, link, bridge, peers: peers.clone() });
                }
            }
        }
    }
    if !stale.is_empty() {
        operations.push(Operation::ForgetNeighbours { bridge: bridge.name.clone(), addresses: stale });
    }
    operations
}

/// The way to the peers of a device that is made as it should be.
fn plan_peers(
    bridge: &Bridge,
    (transport, link): (Transport, String),
    mtu: u32,
    peers: &Peers,
    (found, known): (&FoundLink, &FoundPeers),
    operations: &mut Vec<Operation>,
) {
    // A device that is connected again has lost what its port knew, so everything is told again.
    let connected = found.up && found.mtu == mtu && found.master.as_ref() == Some(&bridge.name);
    let bridge = bridge.name.clone();
    if !connected {
        operations.push(Operation::ConnectOverlay {
            transport,
            link: link.clone(),
            bridge: bridge.clone(),
            mtu,
        });
    }
    let addresses: BTreeSet<Ipv4Addr> =
        known.keys().copied().filter(|address| !peers.contains_key(address)).collect();
    if !addresses.is_empty() {
        operations.push(Operation::RemovePeers {
            transport,
            link: link.clone(),
            bridge: bridge.clone(),
            addresses,
        });
    }
    let lacks = |address: &Ipv4Addr, host: &Ipv4Addr| {
        let host = match transport {
            Transport::Vxlan => *host,
            Transport::Process => Ipv4Addr::UNSPECIFIED,
        };
        !connected || known.get(address) != Some(&Some(host))
    };
    let peers: Peers =
        peers.iter().filter(|(address, host)| lacks(address, host)).map(|(a, h)| (*a, *h)).collect();
    if !peers.is_empty() {
        operations.push(Operation::SetPeers { transport, link, bridge, peers });
    }
}

/// The size of packets that a bridge will have; `None` for one that is not ours to change.
fn mtu_of(bridges: &[Bridge], bridge: &str, actual: &Actual) -> Option<u32> {
    let bridge = bridges.iter().find(|known| known.name == bridge)?;
    Some(bridge_mtu(bridge, carrier_mtu(bridge, &actual.links)))
}

fn plan_sandbox(
    names: &Names,
    (sandbox, endpoints): (&String, &[Endpoint]),
    bridges: &[Bridge],
    actual: &Actual,
    operations: &mut Vec<Operation>,
) {
    let nothing = BTreeMap::new();
    let interfaces = match actual.sandboxes.get(sandbox) {
        Some(FoundSandbox::Namespace(interfaces)) => interfaces,
        Some(FoundSandbox::Unseen(_)) => return,
        Some(FoundSandbox::Empty) | None => {
            operations.push(Operation::CreateSandbox { sandbox: sandbox.clone() });
            &nothing
        }
    };
    for endpoint in endpoints {
        let link = names.host_end(sandbox, &endpoint.interface);
        let host_end = actual.links.get(&link);
        let (sandbox, endpoint) = (sandbox.clone(), routed(endpoints, endpoint));
        let bridge = bridges.iter().find(|bridge| bridge.name == endpoint.bridge);
        let answering = bridge.and_then(|bridge| answer_senders(&sandbox, &endpoint, bridge));
        match (host_end, interfaces.get(&endpoint.interface)) {
            (Some(host_end), Some(interface)) => {
                if host_end.master.as_ref() != Some(&endpoint.bridge) || !host_end.up {
                    operations.push(Operation::Connect { link, bridge: endpoint.bridge.clone() });
                }
                let mtu = mtu_of(bridges, &endpoint.bridge, actual);
                // A container that is content with smaller packets has its reasons.
                if mtu.is_some_and(|mtu| host_end.mtu != mtu || interface.mtu > mtu) {
                    let (sandbox, interface) = (sandbox.clone(), endpoint.interface.clone());
                    operations.extend(mtu.map(|mtu| Operation::Resize { sandbox, interface, mtu }));
                }
                if !is_configured(interface, &endpoint) {
                    operations.push(Operation::Configure { sandbox, endpoint });
                }
                operations.extend(answering.filter(|_| !interface.answers_senders));
            }
            (Some(_), None) => {
                operations.push(Operation::DeleteLink { link });
                operations.push(Operation::Attach { sandbox, endpoint });
                operations.extend(answering);
            }
            (None, _) => {
                operations.push(Operation::Attach { sandbox, endpoint });
                operations.extend(answering);
            }
        }
    }
}

/// What an endpoint needs beside its interface, where published ports lead to it.
pub(crate) fn answer_senders(sandbox: &str, endpoint: &Endpoint, bridge: &Bridge) -> Option<Operation> {
    let network = bridge.subnet().filter(|_| bridge.ingress)?;
    let network6 = bridge.gateway6.and_then(|it| Subnet6::containing(it.address, it.prefix));
    let (sandbox, interface) = (sandbox.to_owned(), endpoint.interface.clone());
    Some(Operation::AnswerSenders { sandbox, interface, network, network6 })
}

/// Whether an interface has what the endpoint asks for; more does not matter.
pub(crate) fn is_configured(interface: &FoundInterface, endpoint: &Endpoint) -> bool {
    interface.up
        && interface.addresses.contains(&(endpoint.address, endpoint.prefix))
        && endpoint.gateway.is_none_or(|gateway| interface.gateways.contains(&gateway))
        && endpoint.address6.is_none_or(|address| interface.addresses6.contains(&address))
        && endpoint.gateway6.is_none_or(|gateway| interface.gateways6.contains(&gateway))
}

/// The changes from one set of services to another. A front without backends has no rules.
pub(crate) fn plan_services(before: &Services, after: &Services) -> Vec<RuleChange> {
    let served = |services: &Services, front: &Front| services.get(front).is_some_and(|it| !it.is_empty());
    let mut changes: Vec<RuleChange> = before
        .keys()
        .filter(|front| served(before, front) && !served(after, front))
        .map(|front| RuleChange::RemoveService(*front))
        .collect();
    changes.extend(
        after
            .iter()
            .filter(|(front, backends)| !backends.is_empty() && before.get(front) != Some(backends))
            .map(|(front, backends)| RuleChange::SetService(*front, backends.clone())),
    );
    changes
}

#[cfg(test)]
mod tests;
