//! What must never be, and what must be in the end.

mod book;
mod dependencies;
mod jobs;
mod networks;
mod scaling;
mod settled;
mod tables;
mod updates;

use skep_cluster::{Change, check};
use skep_types::node::{Availability, NodeState};
use skep_types::service::TaskSpec;
use skep_types::{NodeId, TaskId, TaskState, Time};

pub(crate) use book::{Book, Holder, Who};
pub(crate) use jobs::scheduled;
pub(crate) use networks::{arriving, removing_network};
pub(crate) use scaling::scales;
pub(crate) use settled::settled;
pub(crate) use tables::{connecting, mistaken, refused, stopping};

use crate::manager::EPOCH;
use crate::user::Granted;
use crate::world::{Verdict, World};

/// How many times smaller than its number of objects a big cluster's checks in whole are: each looks at
/// everything.
const SPARSE: u64 = 40;

/// Before an entry is applied to the truth.
pub(crate) fn before(world: &mut World, changes: &[Change]) -> Verdict {
    let made = changes.iter().filter_map(|change| match change {
        Change::CreateTask(task) => Some(task.service),
        _ => None,
    });
    let replacing = |service| world.truth.rollout(service).map_or(0, |rollout| rollout.holding.len());
    let replacing = made.map(|service| (service, replacing(service))).collect();
    world.book.replacing = replacing;
    for change in changes {
        match change {
            Change::SetDesired { task, desired, .. } => {
                let known = world.truth.task(*task);
                if let Some(known) = known.filter(|known| known.desired > *desired) {
                    return Err(format!("task {task} was wanted {} and is wanted {desired}", known.desired));
                }
                updates::ends(world, *task, *desired)?;
            }
            Change::SetStatus { task, status, .. } => {
                let known = world.truth.task(*task);
                if let Some(known) = known.filter(|known| known.status.state > status.state) {
                    let (old, new) = (known.status.state, status.state);
                    return Err(format!("task {task} was {old} and is {new} now"));
                }
                if status.state == TaskState::Orphaned {
                    orphaned(world, changes, *task)?;
                }
                jobs::reported(world, *task, status);
            }
            Change::Assign { task, node, .. } => {
                if let Some(other) = world.truth.task(*task).and_then(|task| task.node) {
                    return Err(format!("task {task} is given to {node} and was given to {other}"));
                }
                let spec = world.truth.task(*task).map(|task| task.spec.as_ref());
                fits(world, changes, *task, spec, *node)?;
                let service = world.truth.task(*task).and_then(|task| world.truth.service(task.service));
                dependencies::may_begin(world, *task, service)?;
            }
            Change::PutService(service) => jobs::iterated(world, service)?,
            Change::CreateTask(task) => {
                jobs::created(world, task)?;
                if let Some(node) = task.node {
                    dependencies::may_begin(world, task.id, world.truth.service(task.service))?;
                    // A service that the same entry changes is looked at when that is committed.
                    let spec = world.truth.service(task.service).map(|service| service.spec.task.as_ref());
                    fits(world, changes, task.id, spec, node)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A task is given up only where its node was removed, or is down. With right clocks no run lasts as long as managers
/// wait for one that is down.
fn orphaned(world: &World, changes: &[Change], task: TaskId) -> Verdict {
    let node = world.truth.task(task).and_then(|task| task.node).and_then(|node| world.truth.node(node));
    let Some(node) = node else { return Ok(()) };
    let heard = changes.iter().any(|change| {
        matches!(change, Change::PutNode(changed) if changed.id == node.id && changed.state != NodeState::Down)
    });
    if node.state == NodeState::Down && !heard && world.character.skew > 0 {
        return Ok(());
    }
    Err(format!(
        "task {task} is orphaned, and its node {} is {:?}, since {:?}",
        node.id, node.state, node.down_since
    ))
}

/// A task is given to a node only if that takes tasks, before the entry or by it.
fn fits(world: &World, changes: &[Change], task: TaskId, service: Option<&TaskSpec>, id: NodeId) -> Verdict {
    let takes = |node: &skep_types::node::Node| {
        node.state == NodeState::Ready
            && node.spec.availability == Availability::Active
            && service.is_none_or(|spec| spec.placement.allows(node))
    };
    let changed = changes.iter().any(|change| match change {
        Change::PutNode(node) => node.id == id && takes(node),
        _ => false,
    });
    if changed || world.truth.node(id).is_some_and(takes) {
        return Ok(());
    }
    Err(format!("task {task} is given to node {id}, which does not take it"))
}

/// After an entry was applied to the truth.
pub(crate) fn committed(world: &mut World, changes: &[Change]) -> Verdict {
    let size = (world.truth.tasks().count() + world.truth.nodes().count()) as u64;
    world.book.entries += 1;
    let whole = world.is_small() || world.book.entries.is_multiple_of(1 + size / SPARSE);
    if let Some(violation) = whole.then(|| check(&world.truth)).into_iter().flatten().next() {
        return Err(violation.to_string());
    }
    for change in changes {
        match change {
            Change::PutNode(node) if node.state == NodeState::Down => world.gave_up(node.id),
            Change::RemoveNode(id) => world.gave_up(*id),
            Change::PutService(service) => {
                world.book.history(service.id).push(service.spec.clone());
                scaling::noted(world, service.id);
            }
            Change::Scale { service, scaled } => {
                let spec = world.truth.service(*service).map(|service| service.spec.clone());
                world.book.history(*service).extend(spec);
                scaling::noted(world, *service);
                scaling::scaled(world, *service, scaled)?;
            }
            Change::CreateTask(task) => {
                scaling::bounded(world, task.service)?;
                networks::rested(world, task.id, &task.attachments)?;
                if let Some(node) = task.node {
                    world.book.assigned(task.id, node, world.now);
                }
                updates::parallelism(world, world.truth.service(task.service))?;
                updates::filled_once(world, task.service, task.slot)?;
            }
            Change::Assign { task, node, .. } => world.book.assigned(*task, *node, world.now),
            Change::RemoveTask(task) => world.book.forget(*task),
            Change::Allocate { task, attachments, .. } => networks::rested(world, *task, attachments)?,
            Change::PutGuest(guest) => networks::admitted(world, guest)?,
            _ => {}
        }
    }
    Ok(())
}

/// When a manager has applied something: those that applied the same hold the same.
pub(crate) fn replica(world: &World, manager: usize) -> Verdict {
    let Some(objects) = world.managers.get(&manager).and_then(|manager| manager.objects()) else {
        return Ok(());
    };
    let sparse = !world.is_small() && !world.book.entries.is_multiple_of(50);
    if sparse || objects.applied() != world.truth.applied() || *objects == world.truth {
        return Ok(());
    }
    let index = objects.applied();
    Err(format!("manager {manager} holds other objects at entry {index} than the log gives"))
}

/// When a user is told that something is done.
pub(crate) fn granted(world: &World, granted: &Granted) -> Verdict {
    match granted {
        Granted::Spec(id, spec) => {
            if world.book.position(*id, spec).is_none() {
                return Err(format!("service {id} is acknowledged as {} and not committed", spec.name));
            }
        }
        Granted::Removal(id) => {
            if world.truth.service(*id).is_some() {
                return Err(format!("service {id} is acknowledged as removed and is there"));
            }
        }
        Granted::Network(id) => {
            if world.truth.network(*id).is_none() {
                return Err(format!("network {id} is acknowledged and not committed"));
            }
        }
        Granted::NetworkRemoval(id) => {
            if world.truth.network(*id).is_some() {
                return Err(format!("network {id} is acknowledged as removed and is there"));
            }
        }
        Granted::Attached { node, container, network, address } => {
            let known = world.truth.guest(*container, *network);
            if known.is_none_or(|known| known.node != *node || known.address != *address) {
                return Err(format!(
                    "guest {} is let in at {address}, and the log says {known:?}",
                    container.short()
                ));
            }
        }
        Granted::Detached { .. } | Granted::Kept { .. } => {}
    }
    Ok(())
}

/// When a container starts.
pub(crate) fn starting(world: &mut World, node: usize, id: TaskId) -> Verdict {
    let machine = world.machines.get(node);
    let Some(container) = machine.and_then(|machine| machine.containers.get(&id)) else { return Ok(()) };
    let task = container.task.clone();
    let now = world.now;
    world.book.starts(node, &task, now);
    let Some(machine) = world.machines.get(node) else { return Ok(()) };
    if task.node != Some(machine.id) {
        return Err(format!(
            "node {node} ({}) starts task {id}, which is given to {:?}",
            machine.id, task.node
        ));
    }
    match world.book.owner(id) {
        Some((owner, _)) if owner != machine.id => {
            return Err(format!("node {node} starts task {id}, which was given to {owner}"));
        }
        // What is forgotten was assigned once: its node may not have heard of the end.
        Some(_) | None => {}
    }
    // Clocks that differ make a delay longer or shorter; with right ones it is kept.
    let right = world.character.skew == 0;
    if let Some(not_before) = task.not_before.filter(|time| right && *time > world.now + EPOCH) {
        let seconds = not_before.since(Time(0) + EPOCH).as_secs_f64();
        return Err(format!("task {id} starts before its restart delay is over, at {seconds}"));
    }
    jobs::concurrent(world, &task)?;
    reserved(world, node)?;
    alone(world, node, &task)
}

/// All that runs on a machine reserves no more than it has.
fn reserved(world: &World, node: usize) -> Verdict {
    let Some(machine) = world.machines.get(node) else { return Ok(()) };
    let running = machine.containers.values().filter(|container| container.is_running());
    let reserved: i64 = running.map(|container| container.task.spec.reservations.nano_cpus).sum();
    let has = world.description(node).nano_cpus;
    if reserved > has {
        return Err(format!("what runs on node {node} reserves {reserved} of its {has} nano CPUs"));
    }
    Ok(())
}

/// Nothing else may run in a task's slot, or at its addresses, but on nodes that were given up.
fn alone(world: &World, node: usize, task: &skep_types::Task) -> Verdict {
    let id = task.id;
    if forsaken(world, node, id) {
        return Ok(());
    }
    // A slot that was scaled away and is wanted again does not wait.
    let stays = |id: TaskId| world.truth.task(id).is_some_and(|known| known.desired < TaskState::Remove);
    let others = world.book.in_slot(task.service, task.slot).filter(|(_, other)| *other != id);
    for (place, other) in others.filter(|(place, other)| !forsaken(world, *place, *other)) {
        let version = |id: TaskId| world.truth.task(id).map(|task| (task.spec_version, task.moves));
        let first = world.book.starts_first(task.service) && version(id) != version(other);
        if stays(id) && stays(other) && !first {
            let (service, slot) = (task.service, task.slot);
            return Err(format!(
                "slot {slot} of service {service} runs twice: {id} on node {node} and {other} on node {place}"
            ));
        }
    }
    let held = task.attachments.iter().map(|held| (held.network, held.address));
    held.into_iter().try_for_each(|address| networks::unshared(world, address, (node, Who::Task(id))))
}

/// The same of anything that runs.
pub(crate) fn is_forsaken(world: &World, holder: Holder, since: Time) -> bool {
    let (node, who) = holder;
    match who {
        Who::Task(task) => forsaken(world, node, task),
        Who::Guest(_) => {
            let given_up = world.machines.get(node).and_then(|machine| machine.given_up);
            given_up.is_some_and(|given_up| given_up >= since)
        }
    }
}

/// Whether the managers gave up the node after they gave it the task: others may have taken it over.
pub(crate) fn forsaken(world: &World, node: usize, task: TaskId) -> bool {
    let Some(machine) = world.machines.get(node) else { return true };
    match world.book.owner(task) {
        Some((_, since)) => machine.given_up.is_some_and(|given_up| given_up >= since),
        None => machine.given_up.is_some(),
    }
}

impl World {
    fn gave_up(&mut self, id: NodeId) {
        let now = self.now;
        for machine in self.machines.iter_mut().filter(|machine| machine.id == id) {
            machine.given_up = Some(now);
        }
    }
}
