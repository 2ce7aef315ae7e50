//! What a user may ask for next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_cluster::{Objects, Request};
use skep_types::network::NetworkSpec;
use skep_types::node::Availability;
use skep_types::placement::{Placement, Preference};
use skep_types::port::Protocol;
use skep_types::resources::Resources;
use skep_types::service::{
    EndpointMode, FailureAction, NetworkAttachment, PortSpec, PublishMode, RestartCondition, RestartPolicy,
    ServiceContainer, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};
use skep_types::{NetworkId, NodeId, ServiceId};

use super::{User, labels};
use crate::chance::Chance;

/// A label of nodes.
const ZONE: &str = "zone";
const NETWORKS: [&str; 4] = ["front", "back", "data", "side"];
pub(super) const NAMES: [&str; 6] = ["web", "db", "cache", "worker", "mail", "cron"];

/// How big a cluster users think of.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// The most replicas that a service is asked for.
    most: u64,
    /// Whether there are few nodes.
    small: bool,
}

impl User {
    /// Something to ask for, from what the user sees.
    pub fn think(&self, chance: &mut Chance, objects: &Objects, small: bool) -> Option<Request> {
        let scope = Scope { most: self.most, small };
        match chance.below(if small { 15 } else { 32 }) {
            0..=2 => Some(Request::CreateService(Box::new(new_spec(chance, objects, scope)))),
            3..=6 => change_service(chance, objects, scope),
            7 => Some(Request::RemoveService(some_service(chance, objects)?)),
            9 => {
                let cluster = objects.cluster()?;
                let mut spec = cluster.spec.clone();
                spec.task_history_limit = chance.below(6);
                let version = cluster.meta.version;
                Some(Request::UpdateCluster {
                    version,
                    spec: Box::new(spec),
                    worker_token: None,
                    manager_token: None,
                    unlock_key: None,
                    authority: None,
                })
            }
            10 | 11 => Some(Request::CreateNetwork(Box::new(new_network(chance, small)))),
            12 => Some(Request::RemoveNetwork(some_network(chance, objects)?)),
            13 => Some(Request::Rebalance(some_service(chance, objects)?)),
            14 => {
                let service = objects.service(some_service(chance, objects)?)?;
                Some(Request::RollBackService { id: service.id, version: service.meta.version })
            }
            _ => change_node(chance, objects),
        }
    }
}

fn some_network(chance: &mut Chance, objects: &Objects) -> Option<NetworkId> {
    let ids: Vec<NetworkId> =
        objects.networks().filter(|network| !network.ingress).map(|network| network.id).collect();
    chance.pick(&ids).copied()
}

fn new_network(chance: &mut Chance, small: bool) -> NetworkSpec {
    // Now and then a very small one, or one that overlaps with another.
    let subnets = ["10.99.0.0/28", "10.99.0.0/27", "10.99.0.32/28"];
    let subnet = if small && chance.happens(300) { chance.pick(&subnets) } else { None };
    NetworkSpec {
        name: chance.pick(&NETWORKS).copied().unwrap_or("front").to_owned(),
        subnet: subnet.and_then(|subnet| subnet.parse().ok()),
        attachable: chance.happens(700),
        encrypted: chance.happens(300),
        ..NetworkSpec::default()
    }
}

/// Half of the services are on networks, and some of them at several.
fn some_networks(chance: &mut Chance, objects: &Objects) -> Vec<NetworkAttachment> {
    let count = chance.pick(&[0, 0, 1, 2]).copied().unwrap_or(0);
    let chosen: BTreeSet<NetworkId> = (0..count).filter_map(|_| some_network(chance, objects)).collect();
    let aliases =
        |chance: &mut Chance| if chance.happens(300) { vec!["alias".to_owned()] } else { Vec::new() };
    chosen.into_iter().map(|network| NetworkAttachment { network, aliases: aliases(chance) }).collect()
}

/// A service whose names lead to its tasks publishes nothing on every node.
fn some_endpoint(chance: &mut Chance) -> (EndpointMode, Vec<PortSpec>) {
    if chance.happens(250) {
        (EndpointMode::Dnsrr, Vec::new())
    } else {
        (EndpointMode::Vip, some_ports(chance))
    }
}

fn some_service(chance: &mut Chance, objects: &Objects) -> Option<ServiceId> {
    let ids: Vec<ServiceId> = objects.services().map(|service| service.id).collect();
    chance.pick(&ids).copied()
}

fn change_service(chance: &mut Chance, objects: &Objects, scope: Scope) -> Option<Request> {
    let service = objects.service(some_service(chance, objects)?)?;
    let mut spec = service.spec.clone();
    let mut task = TaskSpec::clone(&spec.task);
    match chance.below(8) {
        7 => task.placement = some_placement(chance),
        6 => spec.labels = labels::some(chance, spec.mode),
        5 => task.networks = some_networks(chance, objects),
        0 => task.force_update += 1,
        1 | 2 => task.container.image = format!("image:{}", chance.below(1000)),
        3 => spec.mode = other_numbers(chance, spec.mode, scope),
        _ => {
            spec.mode = other_numbers(chance, spec.mode, scope);
            (spec.endpoint_mode, spec.ports) = some_endpoint(chance);
        }
    }
    spec.task = Arc::new(task);
    Some(Request::UpdateService { id: service.id, version: service.meta.version, spec: Box::new(spec) })
}

/// Half of the services are of some other mode than with a number of replicas; in big clusters few have a task for
/// each node.
fn some_mode(chance: &mut Chance, scope: Scope) -> ServiceMode {
    let mode = match chance.below(if scope.small { 20 } else { 60 }) {
        0..=2 => ServiceMode::Global,
        3 | 4 => ServiceMode::GlobalJob,
        5..=9 => ServiceMode::ReplicatedJob { max_concurrent: 0, total_completions: 0 },
        _ => ServiceMode::Replicated { replicas: 0 },
    };
    other_numbers(chance, mode, scope)
}

/// The same mode with other numbers. Few jobs let none run at a time.
fn other_numbers(chance: &mut Chance, mode: ServiceMode, scope: Scope) -> ServiceMode {
    match mode {
        ServiceMode::Replicated { .. } => ServiceMode::Replicated { replicas: chance.below(scope.most) },
        ServiceMode::ReplicatedJob { .. } => {
            let most = chance.below(5) * (scope.most / 8);
            let max_concurrent = if most == 0 { chance.below(2) } else { most };
            ServiceMode::ReplicatedJob { max_concurrent, total_completions: chance.below(scope.most) }
        }
        ServiceMode::Global => ServiceMode::Global,
        ServiceMode::GlobalJob => ServiceMode::GlobalJob,
    }
}

fn change_node(chance: &mut Chance, objects: &Objects) -> Option<Request> {
    let ids: Vec<NodeId> = objects.nodes().map(|node| node.id).collect();
    let node = objects.node(*chance.pick(&ids)?)?;
    let mut spec = node.spec.clone();
    let all = [Availability::Active, Availability::Active, Availability::Pause, Availability::Drain];
    if chance.happens(300) {
        let zone = chance.pick(&["a", "a", "b"]).map(|zone| (ZONE.to_owned(), (*zone).to_owned()));
        spec.labels = zone.into_iter().collect();
    } else {
        spec.availability = *chance.pick(&all)?;
    }
    Some(Request::UpdateNode { id: node.id, version: node.meta.version, spec: Box::new(spec) })
}

/// Now and then, tasks may only be on some nodes.
fn some_placement(chance: &mut Chance) -> Placement {
    let conditions = ["node.labels.zone==a", "node.labels.zone!=a", "node.role==worker"];
    let chosen = if chance.happens(250) { chance.pick(&conditions) } else { None };
    let constraints = chosen.into_iter().filter_map(|text| text.parse().ok()).collect();
    let preferences = if chance.happens(300) {
        vec![Preference { spread: format!("node.labels.{ZONE}") }]
    } else {
        Vec::new()
    };
    let max_replicas = if chance.happens(200) { 1 + chance.below(3) } else { 0 };
    Placement { constraints, preferences, max_replicas, ..Placement::default() }
}

fn some_ports(chance: &mut Chance) -> Vec<PortSpec> {
    let published = [0, 0, 8080, 8081];
    (0..chance.below(3))
        .map(|number| PortSpec {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: 80 + number as u16,
            published_port: chance.pick(&published).copied().unwrap_or(0),
            mode: PublishMode::Ingress,
            address: None,
        })
        .collect()
}

fn some_restart(chance: &mut Chance) -> RestartPolicy {
    let conditions =
        [RestartCondition::Any, RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
    RestartPolicy {
        condition: chance.pick(&conditions).copied().unwrap_or(RestartCondition::Any),
        delay: Duration::from_secs(chance.below(7)),
        max_attempts: if chance.happens(200) { 1 + chance.below(3) } else { 0 },
        window: Duration::from_secs(chance.below(2) * 30),
    }
}

fn some_update(chance: &mut Chance, scope: Scope) -> UpdateConfig {
    let orders = [UpdateOrder::StopFirst, UpdateOrder::StopFirst, UpdateOrder::StartFirst];
    let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
    UpdateConfig {
        parallelism: chance.below(4) * (scope.most / 8),
        delay: Duration::from_secs(chance.below(4)),
        failure_action: chance.pick(&actions).copied().unwrap_or(FailureAction::Pause),
        monitor: Duration::from_secs(chance.below(6)),
        max_failure_permille: chance.below(3) as u32 * 300,
        order: chance.pick(&orders).copied().unwrap_or(UpdateOrder::StopFirst),
    }
}

fn new_spec(chance: &mut Chance, objects: &Objects, scope: Scope) -> ServiceSpec {
    let reserved = Resources { nano_cpus: chance.below(3) as i64 * 250_000_000, ..Resources::default() };
    let container = ServiceContainer {
        image: format!("image:{}", chance.below(1000)),
        stop_grace: Some(chance.millis(0, 10_000)),
        ..ServiceContainer::default()
    };
    let (endpoint_mode, ports) = some_endpoint(chance);
    let mode = some_mode(chance, scope);
    ServiceSpec {
        name: chance.pick(&NAMES).copied().unwrap_or("web").to_owned(),
        labels: labels::some(chance, mode),
        task: Arc::new(TaskSpec {
            container,
            limits: Resources::default(),
            reservations: reserved,
            generic: if chance.happens(150) {
                [("apple".to_owned(), 1 + chance.below(2))].into()
            } else {
                Default::default()
            },
            restart: some_restart(chance),
            placement: some_placement(chance),
            force_update: 0,
            networks: some_networks(chance, objects),
            log: None,
        }),
        mode,
        update: some_update(chance, scope),
        rollback: some_update(chance, scope),
        ports,
        endpoint_mode,
    }
}
