//! What to do so that the kernel holds what is desired. Pure: reads no kernel, no clock, no file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use skep_types::port::Protocol;

use crate::model::{Bridge, Desired, Endpoint, MacAddress};
use crate::names::Names;

/// Where a service is reached on the host. Ordered so that all addresses of a port are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Front {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// `None` is every address of the host.
    pub(crate) address: Option<Ipv4Addr>,
}

impl Front {
    /// Whether both answer at some address.
    pub(crate) fn overlaps(&self, other: &Front) -> bool {
        (self.protocol, self.port) == (other.protocol, other.port)
            && (self.address == other.address || self.address.is_none() || other.address.is_none())
    }
}

/// Who answers: an address and a port.
pub(crate) type Backend = (Ipv4Addr, u16);

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
    /// Bring a bridge up with that size of packets, and allow 127.0.0.1 to be answered through it.
    RaiseBridge {
        bridge: String,
        mtu: u32,
    },
    DeleteLink {
        link: String,
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
    Configure {
        sandbox: String,
        endpoint: Endpoint,
    },
}

/// What is tried, for messages: `attach eth0 of sandbox x to docker0`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::CreateBridge { bridge, .. } => write!(f, "create bridge {bridge}"),
            Operation::RemoveAddress { link, address, prefix } => {
                write!(f, "remove address {address}/{prefix} from {link}")
            }
            Operation::AddAddress { link, address, prefix } => {
                write!(f, "add address {address}/{prefix} to {link}")
            }
            Operation::RaiseBridge { bridge, mtu } => write!(f, "bring up bridge {bridge} with MTU {mtu}"),
            Operation::DeleteLink { link } => write!(f, "delete interface {link}"),
            Operation::CreateSandbox { sandbox } => write!(f, "create sandbox {sandbox}"),
            Operation::RemoveSandbox { sandbox } => write!(f, "remove sandbox {sandbox}"),
            Operation::Attach { sandbox, endpoint } => {
                write!(f, "attach {} of sandbox {sandbox} to {}", endpoint.interface, endpoint.bridge)
            }
            Operation::Connect { link, bridge } => write!(f, "connect {link} to {bridge}"),
            Operation::Configure { sandbox, endpoint } => {
                write!(f, "configure {} of sandbox {sandbox}", endpoint.interface)
            }
        }
    }
}

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
    pub(crate) addresses: BTreeSet<(Ipv4Addr, u8)>,
}

/// An interface in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundInterface {
    pub(crate) up: bool,
    pub(crate) addresses: BTreeSet<(Ipv4Addr, u8)>,
    pub(crate) gateways: BTreeSet<Ipv4Addr>,
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
    for bridge in &desired.bridges {
        operations.extend(plan_bridge(bridge, actual.links.get(&bridge.name)));
    }
    for (sandbox, endpoints) in &desired.sandboxes {
        plan_sandbox(names, (sandbox, endpoints), actual, &mut operations);
    }
    operations
}

fn plan_removals(names: &Names, desired: &Desired, actual: &Actual, operations: &mut Vec<Operation>) {
    let wanted_links: BTreeSet<String> = desired
        .sandboxes
        .iter()
        .flat_map(|(sandbox, endpoints)| endpoints.iter().map(|it| names.host_end(sandbox, &it.interface)))
        .chain(desired.bridges.iter().map(|bridge| bridge.name.clone()))
        .collect();
    for (name, link) in &actual.links {
        let ours = match link.kind.as_str() {
            "veth" => names.is_host_end(name),
            "bridge" => link.ours,
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

/// The way to a bridge as described. A link of its name that is no bridge makes the first operation fail.
pub(crate) fn plan_bridge(bridge: &Bridge, found: Option<&FoundLink>) -> Vec<Operation> {
    let name = &bridge.name;
    let mut operations = Vec::new();
    let found = found.filter(|link| link.kind == "bridge");
    if found.is_none() {
        operations
            .push(Operation::CreateBridge { bridge: name.clone(), mac: MacAddress::of(bridge.gateway) });
    }
    let wanted = (bridge.gateway, bridge.prefix);
    let addresses = found.map(|link| link.addresses.clone()).unwrap_or_default();
    // An administrator may have given further addresses to a bridge of theirs.
    if found.is_some_and(|link| link.ours) {
        for &(address, prefix) in addresses.iter().filter(|address| **address != wanted) {
            operations.push(Operation::RemoveAddress { link: name.clone(), address, prefix });
        }
    }
    if !addresses.contains(&wanted) {
        let (address, prefix) = wanted;
        operations.push(Operation::AddAddress { link: name.clone(), address, prefix });
    }
    if !found.is_some_and(|link| link.up && link.mtu == bridge.mtu && link.local_clients) {
        operations.push(Operation::RaiseBridge { bridge: name.clone(), mtu: bridge.mtu });
    }
    operations
}

fn plan_sandbox(
    names: &Names,
    (sandbox, endpoints): (&String, &[Endpoint]),
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
        let (sandbox, endpoint) = (sandbox.clone(), endpoint.clone());
        match (host_end, interfaces.get(&endpoint.interface)) {
            (Some(host_end), Some(interface)) => {
                if host_end.master.as_ref() != Some(&endpoint.bridge) || !host_end.up {
                    operations.push(Operation::Connect { link, bridge: endpoint.bridge.clone() });
                }
                if !is_configured(interface, &endpoint) {
                    operations.push(Operation::Configure { sandbox, endpoint });
                }
            }
            (Some(_), None) => {
                operations.push(Operation::DeleteLink { link });
                operations.push(Operation::Attach { sandbox, endpoint });
            }
            (None, _) => operations.push(Operation::Attach { sandbox, endpoint }),
        }
    }
}

/// Whether an interface has what the endpoint asks for; more does not matter.
pub(crate) fn is_configured(interface: &FoundInterface, endpoint: &Endpoint) -> bool {
    interface.up
        && interface.addresses.contains(&(endpoint.address, endpoint.prefix))
        && endpoint.gateway.is_none_or(|gateway| interface.gateways.contains(&gateway))
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
