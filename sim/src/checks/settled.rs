//! What must be in the end, when all is healed and time has passed.

use std::collections::BTreeMap;

use skep_cluster::Objects;
use skep_types::generic::GenericUse;
use skep_types::node::{Availability, Node, NodeRole, NodeState};
use skep_types::service::Service;
use skep_types::{NetworkId, ServiceId, Task, TaskState};

use super::{dependencies, networks};
use crate::machine::Life;
use crate::user::{Promise, Removal};
use crate::world::{Verdict, World};

mod modes;

fn wanted(task: &Task) -> bool {
    task.desired <= TaskState::Complete
}

/// In the end.
pub(crate) fn settled(world: &World) -> Verdict {
    let Some(objects) = world.leaders_objects() else { return Err("no manager leads".to_owned()) };
    for (number, manager) in world.managers.iter().filter(|(_, manager)| !manager.retired) {
        if manager.objects() != Some(objects) {
            return Err(format!("manager {number} does not hold what the leader holds"));
        }
    }
    for node in objects.nodes() {
        let there = world.machines.iter().any(|machine| machine.id == node.id);
        if there && node.state != NodeState::Ready {
            return Err(format!("node {} is there and is {:?}: {}", node.id, node.state, node.message));
        }
    }
    for (id, promise) in &world.user.promises {
        match (promise.removal, objects.service(*id)) {
            (Removal::Acknowledged, Some(_)) => return Err(format!("service {id} was removed and is there")),
            (Removal::Acknowledged, None) | (Removal::Unknown, None) => {
                if objects.tasks_of(*id).next().is_some() {
                    return Err(format!("service {id} was removed, and its tasks are there"));
                }
            }
            (Removal::No, None) => return Err(format!("service {id} is lost")),
            (Removal::No | Removal::Unknown, Some(service)) => kept(world, objects, service, promise)?,
        }
    }
    for service in objects.services() {
        let expected = world.user.promises.contains_key(&service.id)
            || world.user.perhaps_created.contains(&service.spec.name);
        if !expected {
            return Err(format!("nobody asked for service {}", service.id));
        }
    }
    machines(world, objects)?;
    seats(world, objects)?;
    drained(world, objects)?;
    promised_networks(world, objects)?;
    networks::settled(world, objects)
}

/// Whether no node that a task may be on has room for it, or its service waits for another one.
fn is_stuck(world: &World, objects: &Objects, task: &Task) -> bool {
    let reserved = |task: &Task| task.spec.reservations.nano_cpus;
    let free = |node: &Node| {
        let held = objects.tasks_on(node.id).filter(|task| !task.status.state.is_terminal());
        node.description.nano_cpus - held.map(reserved).sum::<i64>()
    };
    let waits = task.node.is_none() && wanted(task);
    let service = objects.service(task.service);
    let held = |service| dependencies::awaited(objects, &world.book, service).is_some();
    if waits && service.is_some_and(held) {
        return true;
    }
    if waits && task.attachments.is_empty() && networks_of(objects, task).any(|id| is_full(objects, id)) {
        return true;
    }
    let open = |node: &Node| node.state == NodeState::Ready && node.spec.availability == Availability::Active;
    let apples = |node: &Node| {
        let mut used = GenericUse::default();
        let held = objects.tasks_on(node.id).filter(|task| !task.status.state.is_terminal());
        held.for_each(|task| used.add(&task.generic));
        node.description.generic.claim(&used, &task.spec.generic).is_some()
    };
    let most = task.spec.placement.max_replicas;
    let below_bound = |node: &Node| {
        let of_service = objects.tasks_on(node.id).filter(|other| other.service == task.service);
        let counting = of_service.filter(|other| wanted(other) && !other.status.state.is_terminal());
        most == 0 || (counting.count() as u64) < most
    };
    let takes = |node: &Node| {
        open(node)
            && task.pinned.is_none_or(|pinned| pinned == node.id)
            && task.spec.placement.allows(node)
            && free(node) >= reserved(task)
            && apples(node)
            && below_bound(node)
    };
    waits && !objects.nodes().any(takes)
}

/// The networks that a task needs an address of.
fn networks_of(objects: &Objects, task: &Task) -> impl Iterator<Item = NetworkId> {
    let service = objects.service(task.service);
    let publishes = service.is_some_and(|service| service.ingress_ports().next().is_some());
    let ingress = objects.ingress().filter(|_| publishes).map(|network| network.id);
    task.spec.networks.iter().map(|on| on.network).chain(ingress)
}

/// Whether a network has no address left.
fn is_full(objects: &Objects, id: NetworkId) -> bool {
    let Some(network) = objects.network(id) else { return false };
    let tasks = objects.tasks().filter(|task| !task.status.state.is_terminal());
    let attached = tasks.flat_map(|task| &task.attachments).filter(|held| held.network == id).count();
    let given = objects.services().flat_map(|service| &service.virtual_ips).filter(|it| it.network == id);
    let own = objects.nodes().filter(|node| network.ingress && node.ingress_address.is_some()).count();
    // The subnet's own address, the broadcast address and the gateway are nobody's.
    let used = attached + given.count() + objects.guests_on(id).count() + own + 3;
    used as u64 >= 1 << (32 - network.subnet.prefix())
}

/// Networks that users were promised are there, and those that they removed are gone.
fn promised_networks(world: &World, objects: &Objects) -> Verdict {
    for (id, removal) in &world.user.networks {
        match (removal, objects.network(*id)) {
            (Removal::Acknowledged, Some(_)) => return Err(format!("network {id} was removed and is there")),
            (Removal::No, None) => return Err(format!("network {id} is lost")),
            (Removal::Acknowledged | Removal::Unknown, None) | (Removal::No | Removal::Unknown, Some(_)) => {}
        }
    }
    let unasked = objects.networks().find(|network| {
        let promised = world.user.networks.contains_key(&network.id);
        !(promised || network.ingress || world.user.perhaps_networks.contains(&network.name))
    });
    unasked.map_or(Ok(()), |network| Err(format!("nobody asked for network {}", network.id)))
}

/// The consensus has the members that the state names: those that are to be managers.
fn seats(world: &World, objects: &Objects) -> Verdict {
    for (number, machine) in world.machines.iter().enumerate() {
        let node = objects.node(machine.id);
        let wanted = node.is_some_and(|node| node.spec.role == NodeRole::Manager);
        let votes = world.consensus.voters.contains(&number);
        let known = node.and_then(|node| node.manager.as_ref()).map(|member| member.raft);
        let held = world.managers.get(&number).filter(|manager| !manager.retired).map(|manager| manager.seat);
        if votes != wanted || known.is_some() != wanted || wanted && held != known {
            return Err(format!(
                "node {number} is to be a manager: {wanted}; it votes: {votes}, with seat {held:?}, known as {known:?}"
            ));
        }
    }
    Ok(())
}

/// A node that is drained has no tasks.
fn drained(world: &World, objects: &Objects) -> Verdict {
    let Some(machine) = world.character.drained.and_then(|number| world.machines.get(number)) else {
        return Ok(());
    };
    let staying = objects.tasks_on(machine.id).find(|task| wanted(task) && !task.status.state.is_terminal());
    staying.map_or(Ok(()), |task| Err(format!("task {} is on a node that is drained", task.id)))
}

/// A promise is kept: what is to run does, on the newest specification.
fn kept(world: &World, objects: &Objects, service: &Service, promise: &Promise) -> Verdict {
    let name = &service.spec.name;
    let (promised, found) =
        (world.book.position(service.id, &promise.spec), world.book.position(service.id, &service.spec));
    if promised.is_none() {
        return Err(format!(
            "service {name} ({}) has lost a specification that was acknowledged",
            service.id
        ));
    }
    let newest = world.truth.service(service.id).is_some_and(|newest| newest.spec == service.spec);
    if found < promised || !newest {
        return Err(format!("service {name} ({}) has a specification that is not its newest", service.id));
    }
    modes::settled(world, objects, service)
}

/// The machines do what the objects say, and nothing else.
fn machines(world: &World, objects: &Objects) -> Verdict {
    let expected: BTreeMap<ServiceId, _> =
        objects.services().filter_map(|service| Some((service.id, objects.endpoint(service.id)?))).collect();
    for (number, machine) in world.machines.iter().enumerate() {
        for (id, container) in &machine.containers {
            let Some(task) = objects.task(*id) else {
                return Err(format!("node {number} keeps the container of {id}, a task that is forgotten"));
            };
            let due = wanted(task) && task.status.state == TaskState::Running;
            if container.is_running() != due {
                let (desired, state) = (task.desired, task.status.state);
                let life = container.state;
                return Err(format!(
                    "the container of {id} is {life:?}, but the task is {state}, wanted {desired}"
                ));
            }
        }
        for task in objects.tasks_on(machine.id).filter(|task| task.status.state == TaskState::Running) {
            let container = machine.containers.get(&task.id);
            if container.is_none_or(|container| matches!(container.state, Life::Ended { .. } | Life::Created))
            {
                return Err(format!("task {} is said to run on node {number}, and does not", task.id));
            }
        }
        if objects.node(machine.id).is_none() {
            if !machine.served.is_empty() {
                return Err(format!("node {number} was removed and serves {:?}", machine.served));
            }
            continue;
        }
        if machine.served != expected {
            return Err(format!("node {number} serves {:?}, not {expected:?}", machine.served));
        }
    }
    Ok(())
}
