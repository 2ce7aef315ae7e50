//! What the property test knows of modes, schedules, networks and guests.

use skep_types::network::Guest;
use skep_types::service::{RestartCondition, Service, ServiceMode};
use skep_types::{NetworkId, TaskId, TaskState};

use super::some_service;
use crate::orchestrator::cron;
use crate::tests::scene::Scene;
use crate::{Objects, Request};

pub(super) fn some(mode: u8, number: u64) -> ServiceMode {
    match mode {
        0 => ServiceMode::Replicated { replicas: number },
        1 => ServiceMode::Global,
        2 => ServiceMode::ReplicatedJob { max_concurrent: 1 + number / 2, total_completions: number },
        _ => ServiceMode::GlobalJob,
    }
}

/// The same mode with another number.
pub(super) fn scaled(mode: ServiceMode, number: u64) -> ServiceMode {
    match mode {
        ServiceMode::Replicated { .. } => some(0, number),
        ServiceMode::ReplicatedJob { .. } => some(2, number),
        ServiceMode::Global | ServiceMode::GlobalJob => mode,
    }
}

/// Agents do what they are told, and what jobs run completes.
pub(super) fn work(scene: &mut Scene) {
    loop {
        scene.work();
        let ends = |scene: &Scene| -> Vec<TaskId> {
            let tasks = scene.objects().tasks().filter(|task| task.desired == TaskState::Complete);
            tasks.filter(|task| task.status.state == TaskState::Running).map(|task| task.id).collect()
        };
        let done = ends(scene);
        if done.is_empty() {
            return;
        }
        scene.report(&done, TaskState::Complete, "");
    }
}

/// Gives a service one label, or none. What makes no sense is refused.
pub(super) fn relabel(scene: &mut Scene, service: u8, label: Option<(String, String)>) {
    let known = some_service(scene, service).and_then(|id| scene.objects().service(id));
    let Some(Service { id, meta, spec, .. }) = known.cloned() else { return };
    let mut spec = Box::new(spec);
    spec.labels = label.into_iter().collect();
    let _ = scene.ask(Request::UpdateService { id, version: meta.version, spec });
}

pub(super) fn some_network(scene: &Scene, number: u8) -> Option<NetworkId> {
    let networks: Vec<NetworkId> =
        scene.objects().networks().filter(|network| !network.ingress).map(|network| network.id).collect();
    networks.get(usize::from(number) % networks.len().max(1)).copied()
}

pub(super) fn guests(objects: &Objects) -> impl Iterator<Item = &Guest> {
    objects.networks().flat_map(|network| objects.guests_on(network.id))
}

/// A service has the slots that its mode asks for.
pub(super) fn settled(objects: &Objects, service: &Service) {
    let name = &service.spec.name;
    let slots = objects.index().slots.get(&service.id);
    let (occupied, finished) = slots.map_or((0, 0), |slots| (slots.occupied.len(), slots.finished.len()));
    let pending = objects.tasks_of(service.id).any(|task| task.node.is_none());
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => assert_eq!(occupied, replicas, "{name}"),
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            let awaits = cron::awaits_run(service);
            assert!(pending || awaits || finished == total_completions, "{name}: {finished}");
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {
            let takes = |node: &&_| crate::objects::takes_tasks(service, node);
            let wanted = objects.nodes().filter(takes).count() as u64;
            let restarts = service.spec.task.restart.condition == RestartCondition::Any;
            let awaits = cron::awaits_run(service);
            assert!(occupied >= wanted || awaits || !restarts, "{name}: {occupied} of {wanted}");
        }
    }
}
