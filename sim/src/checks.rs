//! What must never be, and what must be in the end.

use skep_cluster::{Change, Objects, Request, check};
use skep_types::service::{RestartCondition, Service, ServiceMode, UpdateState};
use skep_types::{ServiceId, Task, TaskId, TaskState};

use crate::machine::Life;
use crate::user::{Promise, Removal};
use crate::world::{Verdict, World};

fn wanted(task: &Task) -> bool {
    task.desired <= TaskState::Running
}

/// After every step of the manager.
pub(crate) fn always(world: &World) -> Verdict {
    let Some(objects) = world.objects() else { return Ok(()) };
    if let Some(violation) = check(objects).into_iter().next() {
        return Err(violation.to_string());
    }
    for (id, promise) in &world.user.promises {
        if promise.removal == Removal::No && objects.service(*id).is_none() {
            let name = &promise.spec.name;
            return Err(format!("service {name} ({id}) was acknowledged and is lost"));
        }
    }
    Ok(())
}

/// When a container is told to stop: no connection may be sent to it by its own node any more.
pub(crate) fn draining(world: &World, node: usize, task: TaskId) -> Verdict {
    let Some(machine) = world.machines.get(node) else { return Ok(()) };
    let Some(container) = machine.containers.get(&task).filter(|container| container.is_running()) else {
        return Ok(());
    };
    let service = container.task.service;
    let Some(endpoint) = machine.served.get(&service) else { return Ok(()) };
    match container.addresses().find(|address| endpoint.backends.contains(address)) {
        Some(address) => {
            Err(format!("task {task} is told to stop while its node sends connections to {address}"))
        }
        None => Ok(()),
    }
}

/// When a container starts.
pub(crate) fn starting(world: &World, node: usize, id: TaskId) -> Verdict {
    let container = world.machines.get(node).and_then(|machine| machine.containers.get(&id));
    let Some(task) = container.map(|container| &container.task) else { return Ok(()) };
    if let Some(not_before) = task.not_before.filter(|time| *time > world.now) {
        return Err(format!("task {id} starts before its restart delay is over, at {not_before}"));
    }
    if world.nodes_vanish {
        // A node that was given up may still run what others took over.
        return Ok(());
    }
    let Some(objects) = world.objects() else { return Ok(()) };
    // A slot that was scaled away and is wanted again does not wait.
    let stays = |id: TaskId| objects.task(id).is_some_and(|known| known.desired < TaskState::Remove);
    for other in world.machines.iter().flat_map(|machine| machine.containers.values()) {
        let same_slot = (other.task.service, other.task.slot) == (task.service, task.slot);
        if other.is_running() && other.task.id != id && same_slot && stays(id) && stays(other.task.id) {
            let (service, slot) = (task.service, task.slot);
            return Err(format!("slot {slot} of service {service} runs twice: {id} and {}", other.task.id));
        }
        let shared =
            other.addresses().find(|address| task.attachments.iter().any(|mine| mine.address == *address));
        if let Some(address) = shared.filter(|_| other.is_running() && other.task.id != id) {
            return Err(format!("address {address} is given to {id} and {}", other.task.id));
        }
    }
    Ok(())
}

/// In the end.
pub(crate) fn settled(world: &World) -> Verdict {
    let Some(objects) = world.objects() else { return Err("the manager is down".to_owned()) };
    for (id, promise) in &world.user.promises {
        match (promise.removal, objects.service(*id)) {
            (Removal::Acknowledged, Some(_)) => return Err(format!("service {id} was removed and is there")),
            (Removal::Acknowledged, None) | (Removal::Unknown, None) => {
                if objects.tasks_of(*id).next().is_some() {
                    return Err(format!("service {id} was removed, and its tasks are there"));
                }
            }
            (Removal::No, None) => return Err(format!("service {id} is lost")),
            (Removal::No | Removal::Unknown, Some(service)) => kept(objects, service, promise)?,
        }
    }
    for service in objects.services() {
        let expected = world.user.promises.contains_key(&service.id)
            || world.user.perhaps_created.contains(&service.spec.name);
        if !expected {
            return Err(format!("nobody asked for service {}", service.id));
        }
    }
    machines(world, objects)
}

/// A promise is kept: the replicas run, on the newest specification.
fn kept(objects: &Objects, service: &Service, promise: &Promise) -> Verdict {
    let name = &service.spec.name;
    if service.spec != promise.spec && !promise.perhaps.contains(&service.spec) {
        return Err(format!("service {name} has a specification that is not its newest"));
    }
    let state = service.update_status.as_ref().map(|status| status.state);
    if state == Some(UpdateState::Updating) {
        return Err(format!("the update of service {name} does not end"));
    }
    let ServiceMode::Replicated { replicas } = service.spec.mode;
    let staying: Vec<&Task> =
        objects.tasks_of(service.id).filter(|task| task.desired < TaskState::Remove).collect();
    let mut slots: Vec<u64> = staying.iter().map(|task| task.slot).collect();
    slots.dedup();
    if slots.len() as u64 != replicas {
        return Err(format!("service {name} has {} slots of {replicas}", slots.len()));
    }
    let paused = state == Some(UpdateState::Paused);
    for slot in slots {
        let mut tasks = objects.tasks_of_slot(service.id, slot);
        let Some(task) = tasks.rfind(|task| task.desired < TaskState::Remove) else { continue };
        // A task whose policy gave up may rest; any other must run.
        let restart = &task.spec.restart;
        let bounded = restart.condition != RestartCondition::Any || restart.max_attempts > 0;
        let runs = wanted(task) && task.status.state == TaskState::Running;
        let rests = bounded && !wanted(task) && task.status.state.is_terminal();
        if !runs && !rests {
            let Task { id, status, desired, .. } = task;
            let (state, error) = (status.state, &status.error);
            return Err(format!("task {id} of service {name} is {state} ({error}), wanted {desired}"));
        }
        if !paused && task.spec != service.spec.task {
            return Err(format!("slot {slot} of service {name} is not on the newest specification"));
        }
    }
    Ok(())
}

/// The machines do what the objects say, and nothing else.
fn machines(world: &World, objects: &Objects) -> Verdict {
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
        let expected: Vec<_> =
            objects.services().filter_map(|service| objects.endpoint(service.id)).collect();
        let mut served: Vec<_> = machine.served.values().cloned().collect();
        served.sort_by_key(|endpoint| endpoint.service);
        if served != expected {
            return Err(format!("node {number} serves {served:?}, not {expected:?}"));
        }
    }
    Ok(())
}

/// A change in a few words, for the story.
pub(crate) fn brief(change: &Change) -> String {
    match change {
        Change::PutCluster(_) => "cluster".to_owned(),
        Change::PutNode(node) => format!("node {} {:?} {:?}", node.id, node.state, node.spec.availability),
        Change::RemoveNode(id) => format!("node {id} removed"),
        Change::PutNetwork(network) => format!("network {}", network.name),
        Change::RemoveNetwork(id) => format!("network {id} removed"),
        Change::PutService(service) => brief_service(service),
        Change::RemoveService(id) => format!("service {id} removed"),
        Change::Update { service, step, .. } => format!("update of {service}: {step:?}"),
        Change::CreateTask(task) => format!(
            "task {} for {}.{} on {:?}, {:?}, wanted {}, not before {:?}",
            task.id, task.service, task.slot, task.node, task.cause, task.desired, task.not_before
        ),
        Change::Allocate { task, .. } => format!("task {task} allocated"),
        Change::Assign { task, node, .. } => format!("task {task} to {node}"),
        Change::SetDesired { task, desired, .. } => format!("task {task} wanted {desired}"),
        Change::SetStatus { task, status, .. } => format!("task {task} is {} {}", status.state, status.error),
        Change::RemoveTask(id) => format!("task {id} forgotten"),
    }
}

fn brief_service(service: &Service) -> String {
    let ServiceMode::Replicated { replicas } = service.spec.mode;
    let image = &service.spec.task.container.image;
    format!("service {} {} x{replicas} {image} v{}", service.spec.name, service.id, service.spec_version.0)
}

/// A request in a few words, for the story.
pub(crate) fn brief_request(request: &Request) -> String {
    let spec = |id: Option<ServiceId>, spec: &skep_types::service::ServiceSpec| {
        let ServiceMode::Replicated { replicas } = spec.mode;
        let restart = &spec.task.restart;
        format!(
            "{} {id:?} x{replicas} {} ports {} restart {:?} {:?} max {} update {:?}",
            spec.name,
            spec.task.container.image,
            spec.ports.len(),
            restart.condition,
            restart.delay,
            restart.max_attempts,
            spec.update
        )
    };
    match request {
        Request::CreateCluster { .. } => "create the cluster".to_owned(),
        Request::UpdateCluster { spec, .. } => format!("keep {} tasks of history", spec.task_history_limit),
        Request::AddNode(node) => format!("add node {}", node.id),
        Request::UpdateNode { id, spec, .. } => format!("node {id} {:?}", spec.availability),
        Request::SetSeat { node, seat } => format!("seat of node {node}: {seat:?}"),
        Request::RemoveNode { id, .. } => format!("remove node {id}"),
        Request::CreateService(service) => format!("create {}", spec(None, service)),
        Request::UpdateService { id, spec: service, .. } => format!("update {}", spec(Some(*id), service)),
        Request::RemoveService(id) => format!("remove service {id}"),
    }
}
