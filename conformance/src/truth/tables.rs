//! What every node serves, seen as its users see it: by asking.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::NODES;
use super::world::{Running, World, list, running};
use crate::{Lab, dns, host, http};

/// Every node's mesh, and names and virtual addresses in a container of every node and network, lead to exactly what
/// runs.
pub(crate) fn check(lab: &Lab, world: &World) -> Result<(), String> {
    let running = running(lab)?;
    distinct(&running)?;
    let virtual_addresses = virtual_addresses(lab)?;
    for (name, service) in &world.services {
        let Some(port) = service.port else { continue };
        let wanted = names(running.get(name));
        for node in 1..=NODES {
            let address = SocketAddr::new(IpAddr::V4(lab.address(node)), port);
            let answered = lab.inside(0, || who_answers(address, wanted.len()));
            equal(&format!("port {port} of node {node}, of {name}"), &answered?, &wanted)?;
        }
    }
    for node in 1..=NODES {
        for (network, process) in windows(lab, node)? {
            let seen = host::in_process_namespace(process, || {
                look_around(world, &network, &running, &virtual_addresses)
            });
            let seen = seen.map_err(|gone| format!("its process has ended: {gone}")).flatten();
            seen.map_err(|wrong| format!("in network {network} on node {node}: {wrong}"))?;
        }
    }
    Ok(())
}

/// Names and virtual addresses, seen from inside a container on a network.
fn look_around(
    world: &World,
    network: &str,
    running: &BTreeMap<String, Vec<Running>>,
    virtual_addresses: &BTreeMap<(String, String), Ipv4Addr>,
) -> Result<(), String> {
    for (name, service) in world.services.iter().filter(|(_, service)| service.networks.contains(&network)) {
        let tasks = running.get(name);
        let address = |task: &Running| task.addresses.get(network).and_then(|text| text.parse().ok());
        let addresses: BTreeSet<Ipv4Addr> = tasks.into_iter().flatten().filter_map(address).collect();
        let all = dns::addresses(&format!("tasks.{name}"))?.unwrap_or_default();
        equal(&format!("tasks.{name}"), &all, &addresses)?;
        let found = dns::addresses(name)?.unwrap_or_default();
        if !service.has_address {
            equal(name, &found, &addresses)?;
            continue;
        }
        let own = virtual_addresses.get(&(name.clone(), network.to_owned()));
        let own = own.ok_or_else(|| format!("{name} has no virtual address"))?;
        equal(name, &found, &BTreeSet::from([*own]))?;
        let wanted = names(tasks);
        let answered = who_answers(SocketAddr::new(IpAddr::V4(*own), 80), wanted.len())?;
        equal(&format!("the virtual address of {name}"), &answered, &wanted)?;
    }
    for name in &world.gone {
        if let Some(addresses) = dns::addresses(name)? {
            return Err(format!("{name} is gone, and resolves to {addresses:?}"));
        }
    }
    for (guest, (_, _)) in world.guests.iter().filter(|(_, (_, its))| *its == network) {
        if dns::addresses(guest)?.is_none_or(|addresses| addresses.len() != 1) {
            return Err(format!("the guest {guest} has no address"));
        }
    }
    Ok(())
}

/// Nothing of networks and tasks is left on any node.
pub(crate) fn nothing_left(lab: &Lab) -> Result<(), String> {
    for node in 1..=NODES {
        let output = host::printed(&["ip", "-n", &lab.namespace(node), "-o", "link"])?;
        let names = output.lines().filter_map(|line| line.split(": ").nth(1));
        let names: Vec<&str> = names.map(|name| name.split('@').next().unwrap_or(name)).collect();
        // The mesh's own bridge and device stay as long as the node is in the cluster.
        let bridges = names.iter().filter(|name| name.starts_with("sk-")).count();
        if bridges > 2 || names.iter().any(|name| name.starts_with("veth")) {
            return Err(format!("node {node} still has {names:?}"));
        }
        let sandboxes = std::fs::read_dir(lab.folder(node).join("exec/netns")).into_iter().flatten().count();
        if sandboxes > 0 {
            return Err(format!("node {node} still has {sandboxes} sandboxes"));
        }
        let rules = host::printed(&["ip", "netns", "exec", &lab.namespace(node), "nft", "list", "ruleset"])?;
        if rules.contains("dnat to") {
            return Err(format!("node {node} still has rules:\n{rules}"));
        }
    }
    Ok(())
}

/// Who answers at an address that `count` containers are behind, which take turns. Nobody: it refuses.
fn who_answers(address: SocketAddr, count: usize) -> Result<BTreeSet<String>, String> {
    let mut answered = BTreeSet::new();
    if count == 0 {
        return match http::fetch(address) {
            Ok(answer) => Err(format!("{address} answers {answer}")),
            Err(_) => Ok(answered),
        };
    }
    // Random choice needs a few more tries than turns to meet everybody.
    for _ in 0..count * 16 {
        let answer = http::fetch(address)?;
        let name = answer.split([' ', ',']).nth(1).unwrap_or_default();
        answered.insert(name.to_owned());
        if answered.len() == count {
            break;
        }
    }
    // And once more around, for somebody who should not be there.
    for _ in 0..count {
        let answer = http::fetch(address)?;
        answered.insert(answer.split([' ', ',']).nth(1).unwrap_or_default().to_owned());
    }
    Ok(answered)
}

/// A process in a container for each network that a node has containers on. One that is on several answers by the first
/// of them, whichever that is, and is no window on the others.
fn windows(lab: &Lab, node: u16) -> Result<BTreeMap<String, u32>, String> {
    let mut windows = BTreeMap::new();
    for container in list(lab, node, "/containers/json")? {
        let id = container["Id"].as_str().unwrap_or_default();
        let networks = container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
        let inspected = lab.api(node, "GET", &format!("/containers/{id}/json"), "")?;
        let inspected: serde_json::Value =
            serde_json::from_str(&inspected.body).map_err(|error| error.to_string())?;
        let Some(process) = inspected["State"]["Pid"].as_u64().filter(|process| *process > 0) else {
            continue;
        };
        let own: Vec<&String> = networks.keys().filter(|network| network.starts_with('n')).collect();
        if let [network] = own[..] {
            windows.insert(network.clone(), process as u32);
        }
    }
    Ok(windows)
}

/// The virtual addresses by service and network.
fn virtual_addresses(lab: &Lab) -> Result<BTreeMap<(String, String), Ipv4Addr>, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let networks: BTreeMap<String, String> = list(lab, 1, "/networks")?
        .iter()
        .map(|network| (text(&network["Id"]), text(&network["Name"])))
        .collect();
    let mut addresses = BTreeMap::new();
    for service in list(lab, 1, "/services")? {
        for own in service["Endpoint"]["VirtualIPs"].as_array().into_iter().flatten() {
            let network = networks.get(&text(&own["NetworkID"])).cloned().unwrap_or_default();
            let address = text(&own["Addr"]);
            let address = address.split('/').next().unwrap_or_default().parse();
            if let Ok(address) = address {
                addresses.insert((text(&service["Spec"]["Name"]), network), address);
            }
        }
    }
    Ok(addresses)
}

fn names(tasks: Option<&Vec<Running>>) -> BTreeSet<String> {
    tasks.into_iter().flatten().map(|task| task.name.clone()).collect()
}

/// No address is held twice.
fn distinct(running: &BTreeMap<String, Vec<Running>>) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    for task in running.values().flatten() {
        for address in &task.addresses {
            if let Some(other) = holders.insert(address, &task.name) {
                return Err(format!("{} on {} is held by {other} and {}", address.1, address.0, task.name));
            }
        }
    }
    Ok(())
}

fn equal<T: std::fmt::Debug + PartialEq>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
}
