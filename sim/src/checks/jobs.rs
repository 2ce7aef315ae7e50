//! Jobs: what completed is never run again, no more run at a time than may, and schedules are kept.

use std::collections::{BTreeMap, BTreeSet};

use skep_cluster::NewTask;
use skep_types::service::{Service, ServiceMode};
use skep_types::{ServiceId, Task, TaskId, TaskState, TaskStatus};

use super::forsaken;
use crate::manager::EPOCH;
use crate::user::schedule;
use crate::world::{Verdict, World};

/// So long after a run came due it has begun, once all is well.
const PROMPT: u64 = 5;

/// What completed, by the log's word: also what the managers have forgotten.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Of each job the newest iteration in which anything completed, and the slots that did.
    completed: BTreeMap<ServiceId, (u64, BTreeSet<u64>)>,
    /// Which of these completed though they were told to end: their slots may be run again by what did not know of it.
    unasked: BTreeSet<(ServiceId, u64, u64)>,
    /// How many tasks of its job were to run at a time when a task was made.
    concurrency: BTreeMap<TaskId, u64>,
}

impl Ledger {
    fn enter(&mut self, service: ServiceId, iteration: u64, slot: u64, asked: bool) {
        if !asked {
            self.unasked.insert((service, iteration, slot));
        }
        let newest = self.completed.entry(service).or_default();
        if newest.0 < iteration {
            *newest = (iteration, BTreeSet::new());
        }
        if newest.0 == iteration {
            newest.1.insert(slot);
        }
    }

    pub fn forget(&mut self, task: TaskId) {
        self.concurrency.remove(&task);
    }

    /// Whether a slot completed in an iteration.
    pub fn has(&self, service: ServiceId, iteration: u64, slot: u64) -> bool {
        let newest = self.completed.get(&service);
        newest.is_some_and(|(newest, slots)| *newest == iteration && slots.contains(&slot))
    }

    /// How many slots did.
    pub fn completed(&self, service: ServiceId, iteration: u64) -> u64 {
        let newest = self.completed.get(&service).filter(|(newest, _)| *newest == iteration);
        newest.map_or(0, |(_, slots)| slots.len() as u64)
    }
}

/// The log says what a task's state is.
pub(super) fn reported(world: &mut World, task: TaskId, status: &TaskStatus) {
    let known = world.truth.task(task).filter(|_| status.state == TaskState::Complete);
    let Some(known) = known else { return };
    // One that was told to end and completed yet stands for its slot, unless it has a successor.
    let awaits = |other: &Task| other.desired <= TaskState::Complete && other.iteration == known.iteration;
    let counts = || {
        known.desired == TaskState::Complete
            || !world.truth.tasks_of_slot(known.service, known.slot).any(awaits)
    };
    if let Some(iteration) = known.iteration.filter(|_| counts()) {
        let (service, slot) = (known.service, known.slot);
        let asked = known.desired == TaskState::Complete;
        world.book.jobs.enter(service, iteration, slot, asked);
    }
}

/// The log makes a task.
pub(super) fn created(world: &mut World, new: &NewTask) -> Verdict {
    let Some(service) = world.truth.service(new.service) else { return Ok(()) };
    let Some(job) = service.job else { return Ok(()) };
    let (name, slot) = (&service.spec.name, new.slot);
    let unasked = world.book.jobs.unasked.contains(&(service.id, job.iteration, slot));
    if world.book.jobs.has(service.id, job.iteration, slot) && !unasked {
        return Err(format!("slot {slot} of job {name} ({}) is run again, and has completed", service.id));
    }
    let always_scheduled =
        || world.book.specs_of(service.id).iter().all(|spec| schedule(&spec.labels).is_some());
    if job.iteration == 0 && always_scheduled() {
        return Err(format!("task {} of job {name} is made before the first of its times", new.id));
    }
    if let ServiceMode::ReplicatedJob { max_concurrent, .. } = service.spec.mode {
        world.book.jobs.concurrency.insert(new.id, max_concurrent);
    }
    Ok(())
}

/// The log changes a service: perhaps because its time has come.
pub(super) fn iterated(world: &World, new: &Service) -> Verdict {
    let Some(known) = world.truth.service(new.id) else { return Ok(()) };
    let Some((before, after)) = known.job.zip(new.job) else { return Ok(()) };
    let (name, id) = (&new.spec.name, new.id);
    if after.iteration < before.iteration || after.iteration > before.iteration + 1 {
        return Err(format!(
            "job {name} ({id}) was run {} times, and then {}",
            before.iteration, after.iteration
        ));
    }
    // A user's word that runs such a job is another specification.
    let by_schedule = after.iteration > before.iteration && new.spec == known.spec;
    let Some(schedule) = schedule(&known.spec.labels).filter(|_| by_schedule) else { return Ok(()) };
    let last = before.last_execution.max(known.meta.updated_at);
    if schedule.due(after.last_execution) <= schedule.due(last) {
        return Err(format!(
            "job {name} ({id}) runs twice for one time, at {last} and {}",
            after.last_execution
        ));
    }
    let mut tasks = world.truth.tasks_of(id);
    let going_on = tasks.find(|task| !task.status.state.is_terminal()).map(|task| task.id);
    let runs = || world.book.in_service(id).find(|(node, task)| !forsaken(world, *node, *task));
    let former = going_on.or_else(|| runs().map(|(_, task)| task)).filter(|_| !schedule.replaces);
    former
        .map_or(Ok(()), |task| Err(format!("job {name} ({id}) runs while task {task} of its last run does")))
}

/// A container of a job starts: no more run than may. What was begun when more might is not ended for that.
pub(super) fn concurrent(world: &World, task: &Task) -> Verdict {
    let Some(service) = world.truth.service(task.service) else { return Ok(()) };
    let ServiceMode::ReplicatedJob { max_concurrent, .. } = service.spec.mode else { return Ok(()) };
    let current = service.job.map(|job| job.iteration);
    if task.iteration != current {
        return Ok(());
    }
    let counts = |(node, id): &(usize, TaskId)| {
        let known = world.truth.task(*id);
        let stays =
            known.is_some_and(|known| known.iteration == current && known.desired < TaskState::Remove);
        stays && !forsaken(world, *node, *id)
    };
    let running: Vec<TaskId> =
        world.book.in_service(service.id).filter(counts).map(|(_, task)| task).collect();
    let begun_under = running.iter().filter_map(|task| world.book.jobs.concurrency.get(task).copied());
    let most = begun_under.fold(max_concurrent, u64::max);
    if running.len() as u64 > most {
        let (name, running) = (&service.spec.name, running.len());
        return Err(format!("{running} tasks of job {name} ({}) run at a time, not {most}", service.id));
    }
    Ok(())
}

/// All has been well for a while: every job whose time has come has been run.
pub(crate) fn scheduled(world: &World) -> Verdict {
    // A clock that was set back makes its manager wait for what another one has done ahead of time.
    let Some(objects) = world.leaders_objects().filter(|_| world.character.skew == 0) else { return Ok(()) };
    for service in objects.services() {
        let Some((schedule, job)) = schedule(&service.spec.labels).zip(service.job) else { continue };
        let goes_on = objects.tasks_of(service.id).any(|task| !task.status.state.is_terminal());
        let last = job.last_execution.max(service.meta.updated_at);
        let due = schedule.due(world.now + EPOCH - std::time::Duration::from_secs(PROMPT));
        if schedule.due(last) < due && (schedule.replaces || !goes_on) {
            let name = &service.spec.name;
            return Err(format!("job {name} ({}) was last run at {last}, and is due", service.id));
        }
    }
    Ok(())
}
