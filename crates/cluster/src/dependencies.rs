//! Services that wait for others: the label `skep.depends_on` names them, separated by commas.
//!
//! While no task of a service runs, its tasks wait for a node until each service that it names is ready: as many tasks run,
//! and are healthy where they have a health check, as it is to have; a job is ready once it completed. A service that runs
//! waits for nobody. A name means the service of the same stack first, as in a stack's file.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::service::{Service, ServiceMode};
use skep_types::{ServiceId, Task, TaskState};

use crate::Objects;
use crate::objects::{is_wanted, representative};

const LABEL: &str = "skep.depends_on";
/// Docker's, on every service of a stack.
const STACK: &str = "com.docker.stack.namespace";
/// How often a task that waits for one service is told how far that came, at most.
const STEPS: u64 = 16;

/// The services that a service names, as it names them.
fn names(labels: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    labels.get(LABEL).into_iter().flat_map(|names| names.split(',')).map(str::trim)
}

/// Whether a service with these labels waits for others.
pub(crate) fn names_others(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(LABEL)
}

/// Refuses names that cannot be those of other services, and circles.
///
/// # Errors
/// What is wrong with the label.
pub(crate) fn validate(
    objects: &Objects,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), String> {
    for other in names(labels) {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if other.is_empty() || !other.bytes().all(valid) {
            return Err(format!("label {LABEL}: {other:?} is not a service's name"));
        }
    }
    // Services that it would wait for, with how it comes to that, and what they wait for themselves.
    let mut ahead = vec![(name.to_owned(), labels)];
    let mut seen = BTreeSet::new();
    while let Some((path, labels)) = ahead.pop() {
        for other in names(labels) {
            let path = format!("{path} waits for {other}");
            if means(objects, labels, other, name) {
                return Err(format!("label {LABEL}: {path}"));
            }
            let service = find(objects, labels, other).filter(|service| seen.insert(service.id));
            ahead.extend(service.map(|service| (format!("{path}, {other}"), &service.spec.labels)));
        }
    }
    Ok(())
}

/// Whether a name means the service called `name`, once there is one.
fn means(objects: &Objects, labels: &BTreeMap<String, String>, other: &str, name: &str) -> bool {
    let of_stack = labels.get(STACK).map(|stack| format!("{stack}_{other}"));
    let taken = of_stack.as_ref().is_some_and(|of_stack| objects.service_named(of_stack).is_some());
    of_stack.is_some_and(|of_stack| of_stack == name) || !taken && other == name
}

/// What a service waits for, if it does: `waiting for service db (1/2 running)`.
pub(crate) fn missing(objects: &Objects, service: ServiceId) -> Option<String> {
    let service = objects.service(service).filter(|service| service.spec.labels.contains_key(LABEL))?;
    if objects.tasks_of(service.id).any(runs) {
        return None;
    }
    let reasons = names(&service.spec.labels).filter_map(|name| lacks(objects, service, name));
    let reasons: Vec<String> = reasons.collect();
    (!reasons.is_empty()).then(|| format!("waiting for {}", reasons.join(", ")))
}

/// Why a named service is not ready.
fn lacks(objects: &Objects, by: &Service, name: &str) -> Option<String> {
    let Some(service) = find(objects, &by.spec.labels, name) else {
        return Some(format!("service {name}, which does not exist"));
    };
    // While an update starts first, two tasks of a slot run.
    let running = || {
        let slots = objects.tasks_of(service.id).filter(|task| runs(task)).map(|task| task.slot);
        slots.collect::<BTreeSet<u64>>().len() as u64
    };
    let completed = || {
        // Where one that was told to end completed yet and has a successor, that counts for its slot.
        let done = |slot: &u64| {
            let tasks = objects.tasks_of_slot(service.id, *slot).filter(|task| !objects.is_past(task));
            representative(tasks).is_some_and(|task| task.status.state == TaskState::Complete)
        };
        objects.slots_of(service.id).filter(done).count() as u64
    };
    let slots = || objects.index().slots.get(&service.id).map_or(0, |slots| slots.occupied.len());
    let (has, wants, what) = match service.spec.mode {
        ServiceMode::Replicated { replicas } => (running(), replicas, "running"),
        ServiceMode::Global => (running(), slots().max(1), "running"),
        ServiceMode::ReplicatedJob { total_completions, .. } => (completed(), total_completions, "completed"),
        ServiceMode::GlobalJob => (completed(), slots().max(1), "completed"),
    };
    // Each of its tasks is told of each change: of a service of hundreds, not of every one.
    let told = has - has % wants.div_ceil(STEPS).max(1);
    (has < wants).then(|| format!("service {} ({told}/{wants} {what})", service.spec.name))
}

/// The service of that name, of the same stack if there is one.
fn find<'o>(objects: &'o Objects, labels: &BTreeMap<String, String>, name: &str) -> Option<&'o Service> {
    let of_stack = labels.get(STACK).and_then(|stack| objects.service_named(&format!("{stack}_{name}")));
    of_stack.or_else(|| objects.service_named(name))
}

fn runs(task: &Task) -> bool {
    task.status.state == TaskState::Running && is_wanted(task)
}
