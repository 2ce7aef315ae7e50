//! Containers that are no tasks, on attachable networks.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use skep_types::network::{Guest, Stay};
use skep_types::{ContainerId, NetworkId, NodeId};

use super::{network, refuse};
use crate::plan::Plan;
use crate::{Answer, Change, Refusal, RefusalKind};

/// Bytes of a guest's names together: every node that has the network is told them.
const MAX_NAMES: usize = 16 * 1024;

pub(super) fn attach(
    plan: &mut Plan,
    node: NodeId,
    container: ContainerId,
    on: NetworkId,
    names: Vec<String>,
    address: Option<Ipv4Addr>,
) -> Result<Answer, Refusal> {
    let objects = plan.objects;
    if objects.node(node).is_none() || plan.removed_nodes.contains(&node) {
        return refuse(RefusalKind::NotFound, format!("node {node} not found"));
    }
    let network = network::usable(plan, on)?;
    if !network.attachable {
        let message = format!("network {} not manually attachable", network.name);
        return refuse(RefusalKind::Precondition, message);
    }
    if names.iter().map(String::len).sum::<usize>() > MAX_NAMES {
        return refuse(
            RefusalKind::Invalid,
            format!("a container's names may have {MAX_NAMES} bytes together"),
        );
    }
    let key = (container, on);
    let held = match plan.guests.get(&key) {
        Some(decided) => *decided,
        None => objects.guest(container, on).map(|guest| guest.address),
    };
    let address = match held.filter(|held| address.is_none_or(|asked| asked == *held)) {
        Some(held) => held,
        None => network::address(plan, network, address)?,
    };
    plan.guests.insert(key, Some(address));
    plan.used_networks.insert(on);
    let guest = Guest { container, node, network: on, address, names };
    if objects.guest(container, on) != Some(&guest) {
        plan.changes.push(Change::PutGuest(Box::new(guest)));
    }
    Ok(Answer::Attached(address))
}

pub(super) fn detach(
    plan: &mut Plan,
    node: NodeId,
    container: ContainerId,
    on: NetworkId,
) -> Result<Answer, Refusal> {
    let known = plan.objects.guest(container, on).is_some_and(|guest| guest.node == node);
    let put = plan.guests.get(&(container, on)).is_some_and(Option::is_some);
    if known || put {
        remove(plan, vec![(container, on)]);
    }
    Ok(Answer::Done)
}

pub(super) fn keep(
    plan: &mut Plan,
    node: NodeId,
    staying: &BTreeMap<ContainerId, Stay>,
) -> Result<Answer, Refusal> {
    let keeps = |guest: &Guest| staying.get(&guest.container).is_some_and(|stay| stay.keeps(guest.network));
    let left = plan.objects.guests_of(node).filter(|guest| !keeps(guest));
    let keys = left.map(|guest| (guest.container, guest.network));
    // What came in this very batch is there.
    let gone: Vec<_> = keys.filter(|key| !plan.guests.contains_key(key)).collect();
    if !gone.is_empty() {
        remove(plan, gone);
    }
    Ok(Answer::Done)
}

fn remove(plan: &mut Plan, guests: Vec<(ContainerId, NetworkId)>) {
    plan.guests.extend(guests.iter().map(|key| (*key, None)));
    plan.changes.push(Change::RemoveGuests(guests));
}
