//! What must be of a service of each mode in the end.

use std::collections::BTreeSet;

use skep_cluster::Objects;
use skep_types::node::{Availability, NodeState};
use skep_types::service::{RestartCondition, Service, ServiceMode, UpdateState};
use skep_types::{Task, TaskState};

use super::super::scaling;
use super::{is_stuck, wanted};
use crate::world::{Verdict, World};

/// One service, and what is to be forgiven it.
struct Settled<'w> {
    world: &'w World,
    objects: &'w Objects,
    service: &'w Service,
    name: &'w str,
    /// Its update is paused.
    paused: bool,
    /// Some of its tasks find no node, or no address.
    stuck: bool,
}

/// A service has what its mode asks for.
pub(super) fn settled(world: &World, objects: &Objects, service: &Service) -> Verdict {
    let state = service.update_status.as_ref().map(|status| status.state);
    let stuck = objects.tasks_of(service.id).any(|task| is_stuck(world, objects, task));
    let name = &service.spec.name;
    if matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted)) && !stuck {
        return Err(format!("the update of service {name} does not end"));
    }
    let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let settled = Settled { world, objects, service, name, paused, stuck };
    settled.history()?;
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            settled.replicated(replicas)?;
            scaling::settled(world, objects, service)
        }
        ServiceMode::Global | ServiceMode::GlobalJob => settled.global(),
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            settled.job(max_concurrent, total_completions)
        }
    }
}

/// The task that a slot stands for: the youngest that is wanted, or else the youngest.
fn standing<'w>(tasks: &[&'w Task]) -> Option<&'w Task> {
    tasks.iter().rfind(|task| wanted(task)).or(tasks.last()).copied()
}

impl<'w> Settled<'w> {
    /// Tasks that are not on their way out.
    fn staying(&self) -> impl Iterator<Item = &'w Task> {
        self.objects.tasks_of(self.service.id).filter(|task| task.desired < TaskState::Remove)
    }

    /// The tasks of a slot, of a job those of its present iteration.
    fn of_slot(&self, slot: u64) -> Vec<&'w Task> {
        let current = self.service.job.map(|job| job.iteration);
        let tasks = self.objects.tasks_of_slot(self.service.id, slot);
        tasks.filter(|task| task.desired < TaskState::Remove && task.iteration == current).collect()
    }

    /// No more ended tasks are kept than the cluster's history says, and none that are of no use.
    fn history(&self) -> Verdict {
        let limit = self.objects.cluster().map_or(0, |cluster| cluster.spec.task_history_limit);
        let current = self.service.job.map(|job| job.iteration);
        let slots: BTreeSet<u64> = self.objects.tasks_of(self.service.id).map(|task| task.slot).collect();
        for slot in slots {
            let tasks = || self.objects.tasks_of_slot(self.service.id, slot);
            let needed = tasks().filter(|task| wanted(task) && task.iteration == current).count() as u64;
            let kept = tasks().count() as u64;
            // The last task of a slot stands for it.
            if kept > limit.max(needed).max(1) {
                return Err(format!(
                    "slot {slot} of service {} keeps {kept} old tasks of {limit}",
                    self.name
                ));
            }
            if let Some(task) = tasks().find(|task| task.desired == TaskState::Remove) {
                return Err(format!("task {} of service {} is on its way out for ever", task.id, self.name));
            }
            let mut past = tasks().filter(|task| task.iteration != current);
            if let Some(task) = past.find(|task| !task.status.state.is_terminal()) {
                return Err(format!("task {} of an older run of job {} goes on", task.id, self.name));
            }
        }
        Ok(())
    }

    fn replicated(&self, replicas: u64) -> Verdict {
        let slots: BTreeSet<u64> = self.staying().map(|task| task.slot).collect();
        if slots.len() as u64 != replicas {
            return Err(format!("service {} has {} slots of {replicas}", self.name, slots.len()));
        }
        slots.into_iter().try_for_each(|slot| self.slot(slot))
    }

    /// One task on each node that takes it, none on others.
    fn global(&self) -> Verdict {
        let nodes: BTreeSet<u64> = self.objects.nodes().map(|node| node.id.slot()).collect();
        if let Some(task) = self.objects.tasks_of(self.service.id).find(|task| !nodes.contains(&task.slot)) {
            return Err(format!("task {} of service {} is of a node that is gone", task.id, self.name));
        }
        for node in self.objects.nodes() {
            let takes = node.state == NodeState::Ready
                && node.spec.availability == Availability::Active
                && self.service.spec.task.placement.allows(node);
            let tasks = self.of_slot(node.id.slot());
            let mut live = tasks.iter().filter(|task| wanted(task) && !task.status.state.is_terminal());
            match (takes, tasks.is_empty(), live.next()) {
                (true, false, _) => self.slot(node.id.slot())?,
                (true, true, _) => {
                    return Err(format!("service {} has no task on node {}", self.name, node.id));
                }
                (false, _, Some(task)) => {
                    let (name, node) = (self.name, node.id);
                    return Err(format!(
                        "task {} of service {name} is on node {node}, which takes none",
                        task.id
                    ));
                }
                (false, _, None) => {}
            }
        }
        Ok(())
    }

    /// All that is to complete has: each slot once.
    fn job(&self, max_concurrent: u64, total_completions: u64) -> Verdict {
        let iteration = self.service.job.map_or(0, |job| job.iteration);
        let completed = self.world.book.jobs.completed(self.service.id, iteration);
        if completed > total_completions {
            return Err(format!("job {} completed {completed} times, not {total_completions}", self.name));
        }
        let mut waiting = 0;
        for slot in 0..total_completions {
            match standing(&self.of_slot(slot)) {
                Some(task) if is_stuck(self.world, self.objects, task) => waiting += 1,
                Some(_) => self.slot(slot)?,
                // What waits for a node takes the place of others.
                None if waiting >= max_concurrent => {}
                None => return Err(format!("slot {slot} of job {} is never run", self.name)),
            }
        }
        let beyond = self.staying().find(|task| task.slot >= total_completions);
        beyond.map_or(Ok(()), |task| Err(format!("task {} of job {} is one too many", task.id, self.name)))
    }

    /// What a slot has runs, or has completed, on the newest specification.
    fn slot(&self, slot: u64) -> Verdict {
        let tasks = self.of_slot(slot);
        let Some(task) = standing(&tasks) else { return Ok(()) };
        if is_stuck(self.world, self.objects, task) {
            return Ok(());
        }
        // A task whose policy gave up may rest; any other must run, or have completed.
        let restart = &task.spec.restart;
        let bounded = restart.condition != RestartCondition::Any || restart.max_attempts > 0;
        let rests = bounded && !wanted(task) && task.status.state.is_terminal();
        let Task { id, status, desired, .. } = task;
        let name = self.name;
        match (self.service.job, status.state) {
            (None, TaskState::Running) if wanted(task) => self.well_placed(task)?,
            (Some(job), TaskState::Complete) => {
                if !self.world.book.jobs.has(self.service.id, job.iteration, slot) {
                    return Err(format!("task {id} of job {name} is complete, and nobody said so"));
                }
                return Ok(());
            }
            _ if rests => {}
            (_, state) => {
                let error = &status.error;
                return Err(format!("task {id} of service {name} is {state} ({error}), wanted {desired}"));
            }
        }
        if self.paused || self.stuck {
            return Ok(());
        }
        let wanted_spec = &self.service.spec.task;
        let is_newest = task.spec == *wanted_spec || task.spec.differs_in_placement_only(wanted_spec);
        if !is_newest {
            return Err(format!("slot {slot} of service {name} is not on the newest specification"));
        }
        if task.moves && wanted(task) {
            return Err(format!("task {id} of service {name} is to move and does not"));
        }
        let running = tasks.iter().filter(|task| wanted(task)).count();
        if running > 1 {
            return Err(format!("slot {slot} of service {name} has {running} tasks"));
        }
        Ok(())
    }

    fn well_placed(&self, task: &Task) -> Verdict {
        let node = task.node.and_then(|id| self.objects.node(id));
        let newest = self.paused
            || self.stuck
            || node.is_some_and(|node| self.service.spec.task.placement.allows(node));
        if node.is_some_and(|node| task.spec.placement.allows(node)) && newest {
            return Ok(());
        }
        Err(format!("task {} of service {} is on a node that it may not be on", task.id, self.name))
    }
}
