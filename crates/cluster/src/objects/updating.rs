//! Applying the moves of rolling updates.

use skep_types::service::{Scaled, Service, ServiceMode, UpdateState, UpdateStatus};
use skep_types::{ServiceId, TaskId, Time};

use crate::autoscale::is_autoscaled;

use super::{Objects, Touched, UpdateStep, Watch};

impl Objects {
    /// Applies a move of a service's rolling update.
    pub(super) fn step_update(&mut self, id: ServiceId, step: &UpdateStep, at: Time, touched: &mut Touched) {
        let version = self.version();
        let Some(service) = self.services.get_mut(&id) else { return };
        let keeps_place = !service.rollout_config().delay.is_zero();
        // A rollback that has nothing to renew ends without having begun.
        let goes_back = service.goes_back() && matches!(step, UpdateStep::End(_));
        if goes_back || matches!(step, UpdateStep::Start { .. }) {
            self.rollouts.entry(id).or_default();
        }
        // Whatever comes after an update's end belongs to nothing.
        let Some(rollout) = self.rollouts.get_mut(&id) else { return };
        // A step in a task's proof sets its slot's next deadline.
        let mut affected: Vec<TaskId> = step.task().into_iter().collect();
        match step {
            UpdateStep::Start { slots } => {
                rollout.slots = *slots;
                // What was left of an earlier update is watched from now on.
                affected.extend(rollout.watched.keys());
                start(service, at);
            }
            UpdateStep::Ran { task } => {
                rollout.watched.insert(*task, Watch::Ran(at));
                if !keeps_place {
                    rollout.holding.remove(task);
                }
            }
            UpdateStep::Failed { task } => {
                rollout.failures += 1;
                if keeps_place {
                    // Its place is free only after the delay; then it is forgotten.
                    rollout.watched.insert(*task, Watch::Failed(at));
                } else {
                    rollout.forget(*task);
                }
            }
            UpdateStep::Release { task } => {
                rollout.holding.remove(task);
            }
            UpdateStep::Forget { task } => rollout.forget(*task),
            UpdateStep::End(status) => {
                self.rollouts.remove(&id);
                service.update_status = Some(status.clone());
            }
            UpdateStep::GiveUp { task } => rollout.given_up = Some(*task),
        }
        // Only a beginning and an end show in the service itself.
        if matches!(step, UpdateStep::Start { .. } | UpdateStep::End(_)) {
            service.meta.version = version;
            service.meta.updated_at = at;
        }
        touched.services.insert(id);
        let affected = affected.iter().filter_map(|task| self.tasks.get(task));
        touched.slots.extend(affected.map(|task| (task.service, task.slot)));
    }

    /// A service has another number of replicas, whatever its rolling update is at.
    pub(super) fn scale_service(&mut self, id: ServiceId, scaled: &Scaled, touched: &mut Touched) {
        let version = self.version();
        let Some(service) = self.services.get_mut(&id) else { return };
        service.meta.version = version;
        service.meta.updated_at = scaled.at;
        service.spec.mode = ServiceMode::Replicated { replicas: scaled.to };
        // Who goes back to what the service was before goes back to what it ran, not to how many there were.
        let previous = service.previous_spec.as_mut().filter(|spec| is_autoscaled(&spec.labels));
        if let Some(previous) = previous {
            previous.mode = service.spec.mode;
        }
        service.scaled = Some(scaled.clone());
        touched.services.insert(id);
    }

    /// A service's specification was replaced: of the rolling update under way remains what the new one wants too.
    pub(super) fn supersede(&mut self, id: ServiceId) {
        let Some(rollout) = self.rollouts.remove(&id) else { return };
        let left = rollout.superseded(|task| self.is_current(task));
        self.rollouts.extend(left.map(|left| (id, left)));
    }

    /// Whether a task is of its service's present specification.
    fn is_current(&self, task: TaskId) -> bool {
        self.tasks.get(&task).is_some_and(|task| {
            let node = task.node.and_then(|node| self.nodes.get(&node));
            self.services.get(&task.service).is_some_and(|service| task.is_current(service, node))
        })
    }

    /// A task is forgotten.
    pub(super) fn unwatch(&mut self, service: ServiceId, task: TaskId) {
        let Some(rollout) = self.rollouts.get_mut(&service) else { return };
        rollout.forget(task);
        if rollout.is_idle() {
            self.rollouts.remove(&service);
        }
    }
}

/// Says of a service that it is being updated. One that goes back to what it was is said to do so already.
fn start(service: &mut Service, at: Time) {
    if !service.goes_back() {
        service.update_status = Some(UpdateStatus {
            state: UpdateState::Updating,
            started_at: at,
            completed_at: None,
            message: "update in progress".to_owned(),
        });
    }
}
