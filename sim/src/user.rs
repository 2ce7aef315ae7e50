//! The user: asks for things, and remembers what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use skep_cluster::{Answer, Objects, Refusal, RefusalKind, Request, RequestId};
use skep_types::network::NetworkSpec;
use skep_types::node::Availability;
use skep_types::placement::{Placement, Preference};
use skep_types::port::Protocol;
use skep_types::resources::Resources;
use skep_types::service::{
    EndpointMode, FailureAction, NetworkAttachment, PortSpec, PublishMode, RestartCondition, RestartPolicy,
    Service, ServiceContainer, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId};

use crate::chance::Chance;

/// A label of nodes.
const ZONE: &str = "zone";
const NETWORKS: [&str; 4] = ["front", "back", "data", "side"];
const NAMES: [&str; 6] = ["web", "db", "cache", "worker", "mail", "cron"];

/// What the user may rely on for a service.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The newest specification that was acknowledged.
    pub spec: ServiceSpec,
    pub removal: Removal,
}

/// What is known of a service's removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    No,
    Unknown,
    Acknowledged,
}

/// What a user was told is done.
#[derive(Clone, Debug)]
pub(crate) enum Granted {
    /// The service has this specification, or had it.
    Spec(ServiceId, Box<ServiceSpec>),
    /// The service is gone.
    Removal(ServiceId),
    /// The network is there.
    Network(NetworkId),
    /// It is gone.
    NetworkRemoval(NetworkId),
    /// A guest of a node is let onto a network.
    Attached { node: NodeId, container: ContainerId, network: NetworkId, address: Ipv4Addr },
    /// It has left it.
    Detached { node: NodeId, container: ContainerId, network: NetworkId },
    /// The managers know which guests a node has.
    Kept { node: NodeId },
}

/// The user's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    /// What is asked, and of which manager.
    open: BTreeMap<RequestId, (usize, Request)>,
    next: u64,
    /// The most replicas that a service is asked for.
    most: u64,
    pub promises: BTreeMap<ServiceId, Promise>,
    /// Names of services that may or may not have been created.
    pub perhaps_created: BTreeSet<String>,
    /// The networks that were acknowledged.
    pub networks: BTreeMap<NetworkId, Removal>,
    pub perhaps_networks: BTreeSet<String>,
}

impl User {
    /// A user of a cluster of so many nodes.
    pub fn new(nodes: usize) -> User {
        User { most: (nodes as u64 / 4).max(8), ..User::default() }
    }

    /// Registers a request as asked of a manager.
    pub fn ask(&mut self, manager: usize, request: Request) -> (RequestId, Request) {
        self.next += 1;
        let id = RequestId(self.next);
        self.open.insert(id, (manager, request.clone()));
        (id, request)
    }

    /// Takes in an answer. Gives what was granted, if it can be checked.
    pub fn answered(&mut self, id: RequestId, result: &Result<Answer, Refusal>) -> Option<Granted> {
        let (_, request) = self.open.remove(&id)?;
        match result {
            Ok(answer) => self.granted(request, *answer),
            Err(refusal) => {
                if refusal.kind == RefusalKind::Unavailable {
                    self.fate_unknown(request);
                }
                None
            }
        }
    }

    /// A manager died: nobody will answer what it was asked.
    pub fn unanswered(&mut self, manager: usize) {
        let ids = self.open.iter().filter(|(_, (asked, _))| *asked == manager).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            if let Some((_, request)) = self.open.remove(&id) {
                self.fate_unknown(request);
            }
        }
    }

    /// Whether a node waits for an answer about its guests.
    pub fn asks_of_guests(&self, id: NodeId) -> bool {
        self.open.values().any(|(_, request)| about_guests_of(request) == Some(id))
    }

    /// Nobody waits for answers about a node's guests any more.
    pub fn forget_guests(&mut self, id: NodeId) {
        self.open.retain(|_, (_, request)| about_guests_of(request) != Some(id));
    }

    /// A flawed manager says that a service is as asked. Gives whether anybody asked for that.
    pub fn believe(&mut self, manager: usize, service: &Service) -> bool {
        let asks = |request: &Request| match request {
            Request::CreateService(spec) => **spec == service.spec,
            Request::UpdateService { id, spec, .. } => *id == service.id && **spec == service.spec,
            _ => false,
        };
        let asked = self.open.iter().find(|(_, (of, request))| *of == manager && asks(request));
        let Some(id) = asked.map(|(id, _)| *id) else { return false };
        self.answered(id, &Ok(Answer::Service(service.id))).is_some()
    }

    fn granted(&mut self, request: Request, answer: Answer) -> Option<Granted> {
        match (request, answer) {
            (Request::CreateService(spec), Answer::Service(id)) => {
                let promise = Promise { spec: *spec.clone(), removal: Removal::No };
                self.promises.insert(id, promise);
                Some(Granted::Spec(id, spec))
            }
            (Request::UpdateService { id, spec, .. }, _) => {
                if let Some(promise) = self.promises.get_mut(&id) {
                    promise.spec = *spec.clone();
                }
                Some(Granted::Spec(id, spec))
            }
            (Request::RemoveService(id), _) => {
                if let Some(promise) = self.promises.get_mut(&id) {
                    promise.removal = Removal::Acknowledged;
                }
                Some(Granted::Removal(id))
            }
            (Request::CreateNetwork(_), Answer::Network(id)) => {
                self.networks.insert(id, Removal::No);
                Some(Granted::Network(id))
            }
            (Request::RemoveNetwork(id), _) => {
                self.networks.insert(id, Removal::Acknowledged);
                Some(Granted::NetworkRemoval(id))
            }
            (Request::Attach { node, container, network, .. }, Answer::Attached(address)) => {
                Some(Granted::Attached { node, container, network, address })
            }
            (Request::Detach { node, container, network }, _) => {
                Some(Granted::Detached { node, container, network })
            }
            (Request::KeepGuests { node, .. }, _) => Some(Granted::Kept { node }),
            _ => None,
        }
    }

    fn fate_unknown(&mut self, request: Request) {
        match request {
            Request::CreateService(spec) => {
                self.perhaps_created.insert(spec.name);
            }
            Request::RemoveService(id) => {
                if let Some(promise) = self.promises.get_mut(&id)
                    && promise.removal == Removal::No
                {
                    promise.removal = Removal::Unknown;
                }
            }
            Request::CreateNetwork(spec) => drop(self.perhaps_networks.insert(spec.name)),
            Request::RemoveNetwork(id) => {
                let removal = self.networks.entry(id).or_insert(Removal::Unknown);
                if *removal == Removal::No {
                    *removal = Removal::Unknown;
                }
            }
            _ => {}
        }
    }

    /// Something to ask for, from what the user sees.
    pub fn think(&self, chance: &mut Chance, objects: &Objects, small: bool) -> Option<Request> {
        match chance.below(if small { 13 } else { 30 }) {
            0..=2 => Some(Request::CreateService(Box::new(new_spec(chance, objects, self.most)))),
            3..=6 => change_service(chance, objects, self.most),
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
            _ => change_node(chance, objects),
        }
    }
}

/// The node that a request about guests is from.
fn about_guests_of(request: &Request) -> Option<NodeId> {
    match request {
        Request::Attach { node, .. } | Request::Detach { node, .. } | Request::KeepGuests { node, .. } => {
            Some(*node)
        }
        _ => None,
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

fn change_service(chance: &mut Chance, objects: &Objects, most: u64) -> Option<Request> {
    let service = objects.service(some_service(chance, objects)?)?;
    let mut spec = service.spec.clone();
    let mut task = TaskSpec::clone(&spec.task);
    match chance.below(6) {
        5 => task.networks = some_networks(chance, objects),
        0 => task.force_update += 1,
        1 | 2 => task.container.image = format!("image:{}", chance.below(1000)),
        3 => spec.mode = ServiceMode::Replicated { replicas: chance.below(most) },
        _ => {
            spec.mode = ServiceMode::Replicated { replicas: chance.below(most) };
            (spec.endpoint_mode, spec.ports) = some_endpoint(chance);
        }
    }
    spec.task = Arc::new(task);
    Some(Request::UpdateService { id: service.id, version: service.meta.version, spec: Box::new(spec) })
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

fn new_spec(chance: &mut Chance, objects: &Objects, most: u64) -> ServiceSpec {
    let conditions =
        [RestartCondition::Any, RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
    let actions = [FailureAction::Pause, FailureAction::Continue];
    let restart = RestartPolicy {
        condition: chance.pick(&conditions).copied().unwrap_or(RestartCondition::Any),
        delay: Duration::from_secs(chance.below(7)),
        max_attempts: if chance.happens(200) { 1 + chance.below(3) } else { 0 },
        window: Duration::from_secs(chance.below(2) * 30),
    };
    let reserved = Resources { nano_cpus: chance.below(3) as i64 * 250_000_000, ..Resources::default() };
    let container = ServiceContainer {
        image: format!("image:{}", chance.below(1000)),
        stop_grace: Some(chance.millis(0, 10_000)),
        ..ServiceContainer::default()
    };
    let orders = [UpdateOrder::StopFirst, UpdateOrder::StopFirst, UpdateOrder::StartFirst];
    let (endpoint_mode, ports) = some_endpoint(chance);
    ServiceSpec {
        name: chance.pick(&NAMES).copied().unwrap_or("web").to_owned(),
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec {
            container,
            limits: Resources::default(),
            reservations: reserved,
            generic: if chance.happens(150) {
                [("apple".to_owned(), 1 + chance.below(2))].into()
            } else {
                Default::default()
            },
            restart,
            placement: some_placement(chance),
            force_update: 0,
            networks: some_networks(chance, objects),
            log: None,
        }),
        mode: ServiceMode::Replicated { replicas: chance.below(most) },
        update: UpdateConfig {
            parallelism: chance.below(4) * (most / 8),
            delay: Duration::from_secs(chance.below(4)),
            failure_action: chance.pick(&actions).copied().unwrap_or(FailureAction::Pause),
            monitor: Duration::from_secs(chance.below(6)),
            max_failure_permille: chance.below(3) as u32 * 300,
            order: chance.pick(&orders).copied().unwrap_or(UpdateOrder::StopFirst),
        },
        rollback: UpdateConfig::default(),
        ports,
        endpoint_mode,
    }
}
