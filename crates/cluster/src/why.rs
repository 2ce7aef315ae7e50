//! Why a thing is where it is, or is nowhere, in lines for people. Nothing is decided here.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_types::node::{Availability, Node, NodeState};
use skep_types::service::{Scaled, Service, ServiceMode, UpdateState};
use skep_types::{NodeId, ServiceId, Task, TaskId, TaskState, Time};

use crate::Objects;
use crate::autoscale::Autoscale;
use crate::leader::NODE_DOWN_PERIOD;
use crate::objects::{is_live, is_wanted};
use crate::scheduler::{Candidates, Placed, Reasons, Standing, Unfit};

/// How far a service is from what its specification asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Convergence {
    /// All that is asked for is there.
    Converged,
    /// Something is still to happen; what is missing.
    Waiting(String),
    /// Its update was paused or rolled back; what the update says.
    Failed(String),
}

/// How far a service is.
pub fn convergence(objects: &Objects, service: &Service) -> Convergence {
    if let Some(status) = &service.update_status {
        match status.state {
            UpdateState::Paused | UpdateState::RollbackPaused | UpdateState::RollbackCompleted => {
                return Convergence::Failed(status.message.clone());
            }
            UpdateState::Updating | UpdateState::RollbackStarted => {
                return Convergence::Waiting(status.message.clone());
            }
            UpdateState::Completed => {}
        }
    }
    let outdated = objects.index().slots.get(&service.id).map_or(0, |slots| slots.outdated.len());
    if outdated > 0 || objects.rollout(service.id).is_some() {
        return Convergence::Waiting("update in progress".to_owned());
    }
    let (there, wanted, what) = progress(objects, service);
    if there >= wanted {
        return Convergence::Converged;
    }
    let mut message = format!("{there} of {wanted} tasks {what}");
    if let Some(reason) = objects.tasks_of(service.id).find_map(waits_for) {
        message = format!("{message}: {reason}");
    }
    Convergence::Waiting(message)
}

fn waits_for(task: &Task) -> Option<&str> {
    let waits = is_wanted(task) && is_live(task) && task.node.is_none();
    Some(task.status.error.as_str()).filter(|error| waits && !error.is_empty())
}

/// How many tasks are as they are to be, of how many.
fn progress(objects: &Objects, service: &Service) -> (u64, u64, &'static str) {
    let iteration = service.job.map(|job| job.iteration);
    let tasks = objects.tasks_of(service.id).filter(|task| task.iteration == iteration);
    let count = |tasks: &mut dyn Iterator<Item = &Task>| tasks.count() as u64;
    let ran = |task: &&Task| task.status.state == TaskState::Complete;
    let runs = |task: &&Task| task.status.state == TaskState::Running && is_wanted(task);
    let staying = |task: &&Task| task.desired < TaskState::Shutdown;
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => (count(&mut tasks.filter(runs)), replicas, "run"),
        ServiceMode::Global => {
            let wanted = count(&mut objects.tasks_of(service.id).filter(|task| is_wanted(task)));
            (count(&mut tasks.filter(runs)), wanted, "run")
        }
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            (count(&mut tasks.filter(ran)), total_completions, "are complete")
        }
        ServiceMode::GlobalJob => {
            let all = objects.tasks_of(service.id).filter(|task| task.iteration == iteration);
            let wanted = count(&mut all.filter(staying));
            (count(&mut tasks.filter(ran)), wanted, "are complete")
        }
    }
}

/// Why a task is where it is; nothing for one that is not there.
pub fn why_task(objects: &Objects, id: TaskId, now: Time) -> Vec<String> {
    let Some(task) = objects.task(id) else { return Vec::new() };
    let state = task.status.state;
    let name = task.container_name();
    let mut lines = vec![match task.node {
        Some(node) => format!("{name} is {state} on {}", node_name(objects, node)),
        None => format!("{name} is {state} and has no node"),
    }];
    lines.push(format!("it is wanted {}; last: {}", task.desired, said(task)));
    if is_live(task) && is_wanted(task) {
        lines.extend(placing(objects, task, now));
    }
    if let Some(delay) = task.not_before.filter(|time| *time > now && task.desired == TaskState::Ready) {
        let seconds = delay.since(now).as_secs();
        lines.push(format!("it starts in {seconds} s: the restart delay after the task before it"));
    }
    lines.extend(before(objects, task));
    lines
}

/// A task's status in a few words.
fn said(task: &Task) -> String {
    let status = &task.status;
    let message = if status.message.is_empty() { status.state.name() } else { &status.message };
    if status.error.is_empty() { message.to_owned() } else { format!("{message}: {}", status.error) }
}

/// What came before a task in its slot, and what its policy makes of that.
fn before(objects: &Objects, task: &Task) -> Vec<String> {
    let earlier: Vec<&Task> =
        objects.tasks_of_slot(task.service, task.slot).take_while(|other| other.id != task.id).collect();
    let mut lines: Vec<String> = earlier
        .iter()
        .rev()
        .map(|other| {
            let node = other.node.map_or("no node".to_owned(), |node| node_name(objects, node));
            format!("before it, on {node}: {}, {}", other.status.state, said(other))
        })
        .collect();
    let policy = &task.spec.restart;
    if policy.max_attempts > 0 {
        let history = objects.restart_history(task.service, task.slot);
        let history = history.filter(|history| history.spec_version == task.spec_version);
        let total = history.map_or(0, |history| history.total);
        lines.push(format!("it was restarted {total} times; its policy allows {}", policy.max_attempts));
    }
    lines
}

/// What each node has for or against a task.
fn placing(objects: &Objects, task: &Task, now: Time) -> Vec<String> {
    let spec = (task.spec.as_ref(), task.spec_version);
    let candidates = Candidates::new(objects, task.service, spec, task.host_ports.iter(), now);
    // As if it were nowhere: what it holds itself is no reason.
    let placed = Placed::without(std::iter::once(task));
    let line = |(node, standing, unfit): (&Node, Standing, Option<Unfit>)| {
        let name = &node.description.hostname;
        let here = if task.node == Some(node.id) { " (here)" } else { "" };
        let verdict = match unfit {
            Some(reason) => lacking(task, node, &standing, reason),
            None => {
                let Standing { of_service, tasks, .. } = standing;
                let failures = match candidates.failures(node.id) {
                    0 => String::new(),
                    count => format!("; comes last: {count} failures of the service there in 5 minutes"),
                };
                format!("fits; other tasks there: {of_service} of the service, {tasks} in all{failures}")
            }
        };
        format!("  node {name}{here}: {verdict}")
    };
    candidates.survey(&placed).into_iter().map(line).collect()
}

/// Why a node cannot take a task, with numbers.
fn lacking(task: &Task, node: &Node, standing: &Standing, reason: Unfit) -> String {
    let reserved = &task.spec.reservations;
    let has = &node.description;
    match reason {
        Unfit::NotAvailable if node.state != NodeState::Ready => "it does not answer".to_owned(),
        Unfit::NotAvailable => format!("its availability is {}", availability(node)),
        Unfit::Resources if reserved.nano_cpus > has.nano_cpus - standing.nano_cpus => {
            let thousandths = |nano: i64| nano / 1_000_000;
            format!(
                "asks for {} thousandths of a CPU, and {} of {} are free",
                thousandths(reserved.nano_cpus),
                thousandths(has.nano_cpus - standing.nano_cpus),
                thousandths(has.nano_cpus)
            )
        }
        Unfit::Resources if reserved.memory_bytes > has.memory_bytes - standing.memory_bytes => format!(
            "asks for {} MiB of memory, and {} of {} are free",
            reserved.memory_bytes >> 20,
            (has.memory_bytes - standing.memory_bytes) >> 20,
            has.memory_bytes >> 20
        ),
        Unfit::Resources => {
            let wanted: Vec<String> =
                task.spec.generic.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
            format!("has not enough free of {}", wanted.join(", "))
        }
        Unfit::Constraints => {
            let broken = task.spec.placement.constraints.iter().find(|constraint| !constraint.holds(node));
            broken.map_or_else(String::new, |constraint| format!("is not {constraint}"))
        }
        Unfit::MaxReplicas => format!(
            "has {} tasks of the service, and a node may have {}",
            standing.of_service, task.spec.placement.max_replicas
        ),
        Unfit::Plugin => "lacks a driver that the task needs".to_owned(),
        Unfit::Platform => format!("is {}/{}, which the image is not for", has.os, has.architecture),
        Unfit::HostPort => "has a port in use that the task publishes there".to_owned(),
    }
}

/// Why a service is as it is; nothing for one that is not there.
pub fn why_service(objects: &Objects, id: ServiceId, now: Time) -> Vec<String> {
    let Some(service) = objects.service(id) else { return Vec::new() };
    let name = &service.spec.name;
    let mut lines = vec![match convergence(objects, service) {
        Convergence::Converged => format!("{name} is as its specification asks"),
        Convergence::Waiting(message) => format!("{name} is not yet as its specification asks: {message}"),
        Convergence::Failed(message) => format!("{name} is not as its last update asked: {message}"),
    }];
    lines.extend(scaling(service, now));
    let mut of_node: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut waiting: BTreeMap<String, u64> = BTreeMap::new();
    for task in objects.tasks_of(id).filter(|task| is_live(task) && is_wanted(task)) {
        match task.node {
            Some(node) => *of_node.entry(node).or_default() += 1,
            None => *waiting.entry(said(task)).or_default() += 1,
        }
    }
    lines.extend(waiting.into_iter().map(|(reason, tasks)| format!("  {tasks} have no node: {reason}")));
    let spec = (service.spec.task.as_ref(), service.spec_version);
    let candidates = Candidates::new(objects, id, spec, service.host_ports(), now);
    let mut reasons = Reasons::default();
    for (node, _, unfit) in candidates.survey(&Placed::default()) {
        let tasks = of_node.get(&node.id).copied().unwrap_or_default();
        let failures = match candidates.failures(node.id) {
            0 => String::new(),
            count => format!("; comes last: {count} failures in 5 minutes"),
        };
        if tasks > 0 || !failures.is_empty() {
            lines.push(format!("  {tasks} on node {}{failures}", node.description.hostname));
        }
        if let Some(reason) = unfit {
            reasons.count(reason);
        }
    }
    let reasons = reasons.list();
    if !reasons.is_empty() {
        lines.push(format!("one more task could not go everywhere: {reasons}"));
    }
    lines
}

/// Why a service has as many replicas as it has, where its load decides that.
fn scaling(service: &Service, now: Time) -> Option<String> {
    let autoscale = Autoscale::of(&service.spec.labels, &service.spec.task).ok()??;
    let last = match &service.scaled {
        Some(Scaled { at, from, to, reason }) => {
            format!("last from {from} to {to}, {} s ago: {reason}", now.since(*at).as_secs())
        }
        None => "it asked for no other number yet".to_owned(),
    };
    Some(format!("its load decides how many tasks it has, {autoscale}; {last}"))
}

/// Why a node has what it has; nothing for one that is not there.
pub fn why_node(objects: &Objects, id: NodeId, now: Time) -> Vec<String> {
    let Some(node) = objects.node(id) else { return Vec::new() };
    let name = &node.description.hostname;
    let state = match node.state {
        NodeState::Ready => "answers",
        NodeState::Down => "does not answer",
        NodeState::Unknown => "was not heard of since the managers changed their leader",
    };
    let message = if node.message.is_empty() { String::new() } else { format!(": {}", node.message) };
    let takes = match (node.state, node.spec.availability) {
        (NodeState::Ready, Availability::Active) => "it takes tasks",
        (_, Availability::Drain) => "it gives up its tasks, because it is drained",
        (_, Availability::Pause) => "it keeps its tasks and takes no new ones, because it is paused",
        (NodeState::Down, _) => "its tasks are replaced elsewhere",
        (NodeState::Unknown, _) => "it takes no new tasks until it is heard of",
    };
    let load = objects.index().loads.get(&id).copied().unwrap_or_default();
    let mut lines = vec![
        format!("{name} {state}{message}; {takes}"),
        format!(
            "{} tasks; reserved: {} of {} thousandths of a CPU, {} of {} MiB of memory",
            load.tasks,
            load.nano_cpus / 1_000_000,
            node.description.nano_cpus / 1_000_000,
            load.memory_bytes >> 20,
            node.description.memory_bytes >> 20
        ),
    ];
    lines.extend(node.down_since.map(|since| abandoning(now.since(since))));
    let mut services: BTreeMap<&str, u64> = BTreeMap::new();
    for task in objects.tasks_on(id).filter(|task| is_live(task)) {
        *services.entry(&task.service_name).or_default() += 1;
    }
    lines.extend(services.into_iter().map(|(service, tasks)| format!("  {tasks} of {service}")));
    lines
}

/// What a node's absence means for its tasks.
fn abandoning(absent: Duration) -> String {
    let minutes = absent.as_secs() / 60;
    let left = NODE_DOWN_PERIOD.saturating_sub(absent).as_secs().div_ceil(60);
    let hours = NODE_DOWN_PERIOD.as_secs() / 3600;
    if left == 0 {
        format!("it is down for {minutes} min: its tasks are orphaned, {hours} hours are over")
    } else {
        format!(
            "it is down for {minutes} min; in {left} min its tasks are orphaned, and what they hold is free"
        )
    }
}

fn node_name(objects: &Objects, id: NodeId) -> String {
    objects
        .node(id)
        .map_or_else(|| format!("node {id}, which is gone"), |node| node.description.hostname.clone())
}

fn availability(node: &Node) -> &'static str {
    match node.spec.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}
