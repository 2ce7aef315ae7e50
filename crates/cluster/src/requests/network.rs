//! Creating and removing networks, in the words of SwarmKit's control API and of libnetwork.

use std::net::Ipv4Addr;

use skep_types::ip::Subnet;
use skep_types::network::{Network, NetworkSpec};
use skep_types::swarm::ClusterObject;
use skep_types::{Meta, NetworkId, ServiceId, TaskId, Version};

use super::{refuse, validate};
use crate::allocator::{ipam, subnet};
use crate::objects::{is_live, is_wanted};
use crate::plan::Plan;
use crate::{Answer, Change, Refusal, RefusalKind};

/// The largest packet that IP knows, and the smallest that IPv4 must be able to carry.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;
/// The longest IPv6 prefix that leaves room for an IPv4 address.
const LONGEST_PREFIX6: u8 = 96;

pub(super) fn create(plan: &mut Plan, spec: NetworkSpec) -> Result<Answer, Refusal> {
    validate::network(&spec)?;
    refuse_taken_name(plan, &spec.name)?;
    if spec.ingress {
        refuse_second_ingress(plan)?;
    }
    let objects = plan.objects;
    let Some(cluster) = objects.cluster() else {
        return refuse(RefusalKind::Precondition, "there is no cluster yet");
    };
    let subnet = choose_subnet(plan, &spec, cluster)?;
    let vni = choose_vni(plan, spec.vni)?;
    let id = NetworkId(plan.ids.next_u128());
    let network = Network {
        id,
        meta: Meta { version: Version(0), created_at: plan.now, updated_at: plan.now },
        name: spec.name,
        labels: spec.labels,
        subnet,
        vni,
        ingress: spec.ingress,
        gateway: spec.gateway,
        range: spec.range,
        subnet6: spec.subnet6,
        attachable: spec.attachable,
        internal: spec.internal,
        encrypted: spec.encrypted,
        mtu: spec.mtu,
        options: spec.options,
        config_from: spec.config_from,
    };
    refuse_bad_addresses(&network)?;
    plan.networks.push(network.clone());
    plan.changes.push(Change::PutNetwork(Box::new(network)));
    Ok(Answer::Network(id))
}

/// The networks as they will be after this batch.
fn networks<'p>(plan: &'p Plan) -> impl Iterator<Item = &'p Network> {
    let known = plan.objects.networks().filter(|network| !plan.removed_networks.contains(&network.id));
    known.chain(&plan.networks)
}

fn refuse_taken_name(plan: &Plan, name: &str) -> Result<(), Refusal> {
    if networks(plan).any(|network| network.name == name) {
        return refuse(RefusalKind::Conflict, format!("network with name {name} already exists"));
    }
    Ok(())
}

fn refuse_second_ingress(plan: &Plan) -> Result<(), Refusal> {
    match networks(plan).find(|network| network.ingress) {
        Some(network) => {
            refuse(RefusalKind::Conflict, format!("ingress network ({}) is already present", network.id))
        }
        None => Ok(()),
    }
}

/// What the user asked for, unless it overlaps; else the first free one of the cluster's pools.
fn choose_subnet(plan: &Plan, spec: &NetworkSpec, cluster: &ClusterObject) -> Result<Subnet, Refusal> {
    if let Some(other) = networks(plan).find(|other| {
        let overlaps = spec.subnet6.zip(other.subnet6).is_some_and(|(one, other)| one.overlaps(other));
        overlaps || spec.subnet.is_some_and(|subnet| subnet.overlaps(other.subnet))
    }) {
        let six = other.subnet6.map(|subnet| format!(", {subnet}")).unwrap_or_default();
        return refuse(
            RefusalKind::Invalid,
            format!(
                "invalid pool request: Pool overlaps with other one on this address space: network {} has {}{six}",
                other.name, other.subnet
            ),
        );
    }
    let free = || {
        let used = networks(plan).map(|network| network.subnet);
        subnet::first_free(&cluster.address_pools, cluster.subnet_prefix, used)
    };
    spec.subnet.or_else(free).ok_or_else(|| {
        let pools: Vec<String> = cluster.address_pools.iter().map(ToString::to_string).collect();
        let message = format!(
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the \
             network: no /{} is free in {}",
            cluster.subnet_prefix,
            pools.join(", ")
        );
        Refusal { kind: RefusalKind::Precondition, message }
    })
}

/// The identifier that the user asked for, unless it is taken; else one that rested as long as possible: a node may
/// still be taking its last network away.
fn choose_vni(plan: &Plan, asked: Option<u32>) -> Result<u32, Refusal> {
    let holder = |vni: u32| networks(plan).find(|network| network.vni == vni);
    if let Some(vni) = asked {
        return match holder(vni) {
            Some(holder) => {
                let message = format!("VXLAN identifier {vni} is already in use by network {}", holder.name);
                refuse(RefusalKind::Invalid, message)
            }
            None => Ok(vni),
        };
    }
    let after = plan.objects.last_vni().map_or(subnet::FIRST_VNI, |last| last.saturating_add(1));
    let young = after..=subnet::LAST_VNI;
    let mut all = young.chain(subnet::FIRST_VNI..=subnet::LAST_VNI);
    all.find(|vni| holder(*vni).is_none()).ok_or_else(|| Refusal {
        kind: RefusalKind::Precondition,
        message: "no VXLAN identifier is left".to_owned(),
    })
}

/// Refuses a gateway or a range that is not in the subnet, and a network that has no address to give.
fn refuse_bad_addresses(network: &Network) -> Result<(), Refusal> {
    let invalid = |message: String| refuse(RefusalKind::Invalid, format!("ipam configuration: {message}"));
    let subnet = network.subnet;
    if let Some(range) = network.range.filter(|range| !subnet.contains_all(*range)) {
        return invalid(format!("subnet {subnet} does not contain range {range}"));
    }
    if let Some(gateway) = network.gateway {
        if !subnet.contains(gateway) {
            return invalid(format!("subnet {subnet} does not contain gateway {gateway}"));
        }
        if [subnet.network(), subnet.broadcast()].contains(&gateway) {
            return invalid(format!("invalid gateway {gateway}"));
        }
    }
    if subnet.prefix() > 30 || ipam::capacity(network) == 0 {
        return match network.range {
            Some(range) => invalid(format!("range {range} of subnet {subnet} has no address to give")),
            None => invalid(format!("subnet {subnet} has no address to give besides its gateway")),
        };
    }
    Ok(())
}

/// Refuses what makes no sense in itself.
pub(super) fn validate(spec: &NetworkSpec) -> Result<(), Refusal> {
    let invalid = |message: String| refuse(RefusalKind::Invalid, message);
    if spec.ingress && spec.attachable {
        return invalid("ingress network cannot be attachable".to_owned());
    }
    if spec.ingress && spec.internal {
        return invalid("ingress network cannot be internal".to_owned());
    }
    if spec.subnet.is_none() && (spec.gateway.is_some() || spec.range.is_some()) {
        return invalid("ipam configuration: a gateway or range needs a subnet".to_owned());
    }
    if let Some(subnet) = spec.subnet6.filter(|subnet| subnet.prefix() > LONGEST_PREFIX6) {
        return invalid(format!(
            "ipam configuration: IPv6 subnet {subnet} has no room for all addresses: its prefix may have at most \
             {LONGEST_PREFIX6} bits"
        ));
    }
    if let Some(mtu) = spec.mtu.filter(|mtu| !MTU.contains(mtu)) {
        return invalid(format!("invalid mtu {mtu}: it must be between {} and {}", MTU.start(), MTU.end()));
    }
    if let Some(vni) = spec.vni.filter(|vni| !(1..=subnet::LAST_VNI).contains(vni)) {
        return invalid(format!(
            "invalid VXLAN identifier {vni}: it must be between 1 and {}",
            subnet::LAST_VNI
        ));
    }
    Ok(())
}

pub(super) fn remove(plan: &mut Plan, id: NetworkId) -> Result<Answer, Refusal> {
    let objects = plan.objects;
    let Some(network) = objects.network(id).filter(|_| !plan.removed_networks.contains(&id)) else {
        return refuse(RefusalKind::NotFound, format!("network {id} not found"));
    };
    let in_use = |by: String| refuse(RefusalKind::Precondition, format!("network {id} is in use by {by}"));
    let staying = |service: &ServiceId| !plan.removed.contains(service);
    if network.ingress {
        let mut publishing = objects.services().filter(|service| service.ingress_ports().next().is_some());
        if let Some(service) = publishing.find(|service| staying(&service.id)) {
            let message =
                format!("ingress network cannot be removed because service {} depends on it", service.id);
            return refuse(RefusalKind::Precondition, message);
        }
    }
    if let Some(service) = objects.services_on(id).find(staying) {
        return in_use(format!("service {service}"));
    }
    // Nobody wants what a removed service left: it is on its way out.
    let wanted = |task: &TaskId| {
        objects.task(*task).is_some_and(|task| {
            let service = objects.service(task.service).filter(|service| staying(&service.id));
            service.is_some() && is_live(task) && is_wanted(task)
        })
    };
    if let Some(task) = objects.tasks_with_address_on(id).find(wanted) {
        return in_use(format!("task {task}"));
    }
    if let Some(guest) = objects.guests_on(id).next() {
        return in_use(format!("container {} on node {}", guest.container.short(), guest.node));
    }
    if plan.used_networks.contains(&id) {
        return in_use("a service or container that is being created".to_owned());
    }
    plan.removed_networks.insert(id);
    plan.changes.push(Change::RemoveNetwork(id));
    Ok(Answer::Done)
}

/// A network that services or guests may use: one that exists and stays.
pub(super) fn usable<'o>(plan: &Plan<'o>, id: NetworkId) -> Result<&'o Network, Refusal> {
    let found = plan.objects.network(id).filter(|_| !plan.removed_networks.contains(&id));
    found.ok_or_else(|| Refusal { kind: RefusalKind::NotFound, message: format!("network {id} not found") })
}

/// Takes an address of an attachable network for a guest.
pub(super) fn address(
    plan: &mut Plan,
    network: &Network,
    asked: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, Refusal> {
    let taken = match asked {
        Some(address) => ipam::take_exact(plan, network, address).map(|()| address),
        None => ipam::take(plan, network),
    };
    taken.map_err(|message| Refusal { kind: RefusalKind::Precondition, message })
}
