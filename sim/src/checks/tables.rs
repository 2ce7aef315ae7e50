//! Tables before tasks: no client is ever sent to a task that was stopped, or does not run yet.

use std::time::Duration;

use skep_types::{ServiceId, TaskId, Time};

use super::book::{Holder, Who};
use super::{forsaken, is_forsaken};
use crate::machine::Place;
use crate::world::{Verdict, World};

/// For so long after it stood still, what a machine's kernel does is nobody's fault.
const DAZED: Duration = Duration::from_secs(2);
/// For so long after something began to run, nodes may not know who had its address before.
const LEARNED: Duration = Duration::from_secs(5);
/// Nodes of a big cluster whose tables are looked at when a container is stopped.
const SAMPLE: usize = 20;

/// Whether a node is one that the leader speaks with, and has taken in what it was told when their session began. Of
/// others nobody knows what their tables are; they are waited for, but not for ever.
fn hears(world: &World, node: usize) -> bool {
    // A leader's clock that is set ahead ends the wait for nodes early; the real one does not jump.
    if world.character.skew > 0 {
        return false;
    }
    let Some(machine) = world.machines.get(node) else { return false };
    // One that was removed is waited for no longer.
    if world.truth.node(machine.id).is_none() {
        return false;
    }
    let Some(session) = machine.session.filter(|_| machine.up) else { return false };
    let known = world.managers.get(&session.manager);
    let held = known.is_some_and(|manager| manager.sessions.get(&node) == Some(&session.number));
    let whole = !session.down_is_cut && !session.up_is_cut;
    let linked = world.is_linked(node, session.manager);
    let leads = world.leads_newest(session.manager) && world.runs(session.manager);
    leads && held && whole && linked && session.has_acknowledged && machine.paused_until + DAZED <= world.now
}

/// When a container is told to stop: nobody may be sent to it any more, and who is connected had time.
pub(crate) fn stopping(world: &World, node: usize, id: TaskId) -> Verdict {
    let Some(machine) = world.machines.get(node) else { return Ok(()) };
    let Some(container) = machine.containers.get(&id).filter(|container| container.is_running()) else {
        return Ok(());
    };
    // What fails its health check is stopped at once: it is not in tables before it is healthy. One that its node
    // restarted while it heard of no manager still is; nobody could tell of its end.
    if container.sick {
        return Ok(());
    }
    let service = container.task.service;
    let ingress = world.truth.ingress().map(|network| network.id);
    let sends = |place: usize| {
        let machine = world.machines.get(place)?;
        let found = container.addresses().find(|address| machine.sends_to(service, ingress, *address));
        found.map(|(_, address)| address)
    };
    // What was given up is stopped at once, whoever is connected; a node that was removed has no network of the cluster
    // to answer for names on.
    let removed = world.truth.node(machine.id).is_none();
    if let Some(address) = sends(node).filter(|_| !removed) {
        return Err(format!("task {id} is told to stop while its node sends connections to {address}"));
    }
    if forsaken(world, node, id) {
        return Ok(());
    }
    let count = world.machines.len();
    let step = if world.is_small() { 1 } else { count.div_ceil(SAMPLE) };
    for place in (0..count).step_by(step).filter(|place| hears(world, *place)) {
        if let Some(address) = sends(place) {
            return Err(format!(
                "task {id} on node {node} is told to stop while node {place} sends connections to {address}"
            ));
        }
    }
    let connected = container.clients.iter().filter(|until| **until > world.now).count();
    if connected > 0 && !container.had_time(world.now) {
        return Err(format!("task {id} is told to stop while {connected} clients are connected to it"));
    }
    Ok(())
}

/// When a client of a service is sent to an address where something else runs: what ended by itself leaves its address
/// before all nodes know of that, but not for long.
pub(crate) fn mistaken(
    world: &World,
    node: usize,
    service: ServiceId,
    holder: Holder,
    since: Time,
) -> Verdict {
    let (host, who) = holder;
    let its_own = match who {
        Who::Task(task) => {
            let container = world.machines.get(host).and_then(|machine| machine.containers.get(&task));
            container.is_some_and(|container| container.task.service == service)
        }
        Who::Guest(_) => false,
    };
    if its_own || since + LEARNED > world.now || !hears(world, node) || is_forsaken(world, holder, since) {
        return Ok(());
    }
    Err(format!("node {node} sends a client of service {service} to {who} on node {host}"))
}

/// When a client is sent to a task that runs: not one whose connections are waited for.
pub(crate) fn connecting(world: &World, node: usize, host: usize, task: TaskId) -> Verdict {
    let container = world.machines.get(host).and_then(|machine| machine.containers.get(&task));
    let drains = container.is_some_and(|container| container.drains_until.is_some());
    if drains && hears(world, node) && !forsaken(world, host, task) {
        return Err(format!("node {node} sends a client to task {task}, which is about to be stopped"));
    }
    Ok(())
}

/// When a client is sent to an address where nothing runs: what ended by itself, or with its machine, is out of the
/// tables when its end is known.
pub(crate) fn refused(world: &World, node: usize, place: Place) -> Verdict {
    let address = place.1;
    if !hears(world, node) {
        return Ok(());
    }
    if let Some((host, task)) = world.book.stopped_at(place) {
        return Err(format!(
            "node {node} sends a client to {address}: task {task} on node {host} was stopped"
        ));
    }
    // What ended by itself leaves its address before all nodes know of that, but not for long.
    if world.book.left_at(place).is_some_and(|left| left + LEARNED > world.now) {
        return Ok(());
    }
    for (host, machine) in world.machines.iter().enumerate() {
        // What was given up before it ever ran is kept for its history, and its address may be another's.
        let due = |id| world.truth.task(id).is_some_and(|task| !task.status.state.is_terminal());
        let mut awaited = machine.containers.values().filter(|it| it.is_new() && due(it.task.id));
        let at = awaited.find(|it| it.addresses().any(|it| it == place));
        if let Some(container) = at {
            let task = container.task.id;
            return Err(format!(
                "node {node} sends a client to {address}: task {task} on node {host} does not run yet"
            ));
        }
    }
    Ok(())
}
