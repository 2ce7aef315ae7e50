//! Dependencies: no task of a service begins before those that the service waits for are ready.

use std::collections::BTreeSet;

use skep_cluster::Objects;
use skep_types::service::{Service, ServiceMode};
use skep_types::{Task, TaskId, TaskState};

use super::Book;
use crate::user::depends_on;
use crate::world::{Verdict, World};

fn runs(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.desired <= TaskState::Complete
}

/// Whether as many tasks run as are to, or a job has completed.
fn is_ready(objects: &Objects, book: &Book, service: &Service) -> bool {
    let current = |task: &&Task| task.iteration == service.job.map(|job| job.iteration);
    let staying =
        || objects.tasks_of(service.id).filter(current).filter(|task| task.desired < TaskState::Remove);
    let slots: BTreeSet<u64> = staying().map(|task| task.slot).collect();
    let running: BTreeSet<u64> = staying().filter(|task| runs(task)).map(|task| task.slot).collect();
    let iteration = service.job.map_or(0, |job| job.iteration);
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => running.len() as u64 >= replicas,
        ServiceMode::Global => !slots.is_empty() && running.len() >= slots.len(),
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            book.jobs.completed(service.id, iteration) >= total_completions
        }
        ServiceMode::GlobalJob => {
            !slots.is_empty() && slots.iter().all(|slot| book.jobs.has(service.id, iteration, *slot))
        }
    }
}

/// The name of a service that this one waits for. One that runs waits for nobody.
pub(super) fn awaited<'o>(objects: &'o Objects, book: &Book, service: &'o Service) -> Option<&'o str> {
    if objects.tasks_of(service.id).any(runs) {
        return None;
    }
    let named = |name: &str| objects.services().find(|other| other.spec.name == name);
    let mut names = depends_on(&service.spec.labels).into_iter();
    names.find(|name| named(name).is_none_or(|other| !is_ready(objects, book, other)))
}

/// The log gives a task a node.
pub(super) fn may_begin(world: &World, id: TaskId, service: Option<&Service>) -> Verdict {
    let Some(service) = service else { return Ok(()) };
    awaited(&world.truth, &world.book, service).map_or(Ok(()), |other| {
        let name = &service.spec.name;
        Err(format!("task {id} of service {name} is given a node, and service {other} is not ready"))
    })
}
