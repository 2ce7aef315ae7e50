//! A cluster on a stage: each thing that is told to it and all that it decides in return, as lines.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use skep_types::assignment::{Assignment, Duty, DutyId, StatusReport};
use skep_types::generic::GenericResources;
use skep_types::node::{Availability, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::port::Protocol;
use skep_types::resources::Resources;
use skep_types::service::{
    EndpointMode, PortSpec, PublishMode, RestartPolicy, Service, ServiceContainer, ServiceMode, ServiceSpec,
    TaskSpec, UpdateConfig,
};
use skep_types::swarm::{ClusterObject, ClusterSpec};
use skep_types::{
    ClusterId, Ids, Meta, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Time, Version,
};

use crate::{
    Answer, Change, Cluster, Event, Objects, Output, Refusal, Request, RequestId, SeatStep, UpdateStep, check,
};

pub(super) const SECOND: u64 = 1_000_000_000;

/// A cluster whose log commits at once.
pub(super) struct Scene {
    pub cluster: Cluster,
    pub ids: Ids,
    pub now: Time,
    index: u64,
    requests: u64,
    pub lines: Vec<String>,
    names: BTreeMap<TaskId, String>,
    services: BTreeMap<ServiceId, String>,
    pub wake_at: Option<Time>,
    /// Whether stories tell of places and peers, or only what nodes are to do.
    pub shows_peers: bool,
    /// What each node with a session knows of others, as its assignments say in order.
    known: BTreeMap<NodeId, BTreeMap<DutyId, Duty>>,
}

pub(super) fn port(target: u16, published: u16) -> PortSpec {
    PortSpec {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: target,
        published_port: published,
        mode: PublishMode::Ingress,
        address: None,
    }
}

pub(crate) fn spec(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec {
            container: ServiceContainer { image: "image:1".to_owned(), ..ServiceContainer::default() },
            limits: Resources::default(),
            reservations: Resources::default(),
            generic: Default::default(),
            restart: RestartPolicy::default(),
            placement: Default::default(),
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        mode: ServiceMode::Replicated { replicas },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        ports: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
    }
}

/// Changes the part of a specification that tasks are made from.
pub(crate) fn task_spec(spec: &mut ServiceSpec, change: impl FnOnce(&mut TaskSpec)) {
    change(Arc::make_mut(&mut spec.task));
}

/// Even nodes count their apples, odd ones name them.
fn generic(number: u64) -> GenericResources {
    let terms: &[&str] =
        if number.is_multiple_of(2) { &["apple=2"] } else { &["apple=boskoop", "apple=elstar"] };
    GenericResources::parse(terms.iter().copied()).unwrap()
}

pub(super) fn node(number: u64) -> Node {
    Node {
        id: NodeId(u128::from(number)),
        meta: Meta::default(),
        spec: NodeSpec {
            name: String::new(),
            labels: BTreeMap::new(),
            role: if number == 1 { NodeRole::Manager } else { NodeRole::Worker },
            availability: Availability::Active,
        },
        description: NodeDescription {
            hostname: format!("n{number}"),
            nano_cpus: 4_000_000_000,
            memory_bytes: 8 << 30,
            generic: generic(number),
            ..NodeDescription::default()
        },
        state: NodeState::Ready,
        message: String::new(),
        address: Ipv4Addr::LOCALHOST.into(),
        manager: None,
        data_path: None,
        ingress_address: None,
        down_since: None,
    }
}

pub(super) fn cluster_object(prefix: u8) -> ClusterObject {
    ClusterObject {
        id: ClusterId(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix: prefix,
        data_path_port: 4789,
        authority: Default::default(),
        unlock_key: None,
        worker_token: "worker".to_owned(),
        manager_token: "manager".to_owned(),
        network_keys: Vec::new(),
        network_keys_at: Default::default(),
    }
}

/// A change of the cluster's settings alone.
pub(super) fn update_cluster(version: Version, spec: ClusterSpec) -> Request {
    Request::UpdateCluster {
        version,
        spec: Box::new(spec),
        worker_token: None,
        manager_token: None,
        unlock_key: None,
        authority: None,
    }
}

impl Scene {
    /// A cluster of so many nodes, all ready. The story begins after that.
    pub fn of(nodes: u64) -> Scene {
        Scene::with_subnet(nodes, 24)
    }

    /// The same with an ingress network of another size.
    pub fn with_subnet(nodes: u64, prefix: u8) -> Scene {
        let mut scene = Scene {
            cluster: Cluster::new(Objects::default()),
            ids: Ids::new(7),
            now: Time(1000 * SECOND),
            index: 0,
            requests: 0,
            lines: Vec::new(),
            names: BTreeMap::new(),
            services: BTreeMap::new(),
            wake_at: None,
            shows_peers: false,
            known: BTreeMap::new(),
        };
        scene.tell(Event::Started);
        let (cluster, first) = (Box::new(cluster_object(prefix)), Box::new(node(1)));
        scene.ask(Request::CreateCluster { cluster, node: first }).unwrap();
        for number in 2..=nodes {
            scene.ask(Request::AddNode(Box::new(node(number)))).unwrap();
        }
        for number in 1..=nodes {
            scene.ready(number);
        }
        scene.lines.clear();
        scene
    }

    pub fn objects(&self) -> &Objects {
        self.cluster.objects()
    }

    /// Tells the cluster something and commits what it proposes until it has nothing left to decide.
    pub fn tell(&mut self, event: Event) -> Vec<(RequestId, Result<Answer, Refusal>)> {
        self.tell_for(event, usize::MAX)
    }

    /// [`Scene::tell`], but no more than so many entries are committed: what is proposed then stays in flight.
    pub fn tell_for(&mut self, event: Event, entries: usize) -> Vec<(RequestId, Result<Answer, Refusal>)> {
        match &event {
            Event::NodeLost { node, .. } => drop(self.known.remove(node)),
            // Sessions are a leader's.
            Event::Started | Event::Deposed => self.known.clear(),
            _ => {}
        }
        let mut replies = Vec::new();
        let mut output = self.cluster.step(event, self.now, &mut self.ids);
        for entry in 0.. {
            replies.extend(output.replies.iter().map(|reply| (reply.to, reply.result.clone())));
            let proposes = self.note(&output);
            self.check_known();
            if !proposes || entry == entries {
                break;
            }
            self.index += 1;
            output = self.cluster.step(Event::Committed { index: self.index }, self.now, &mut self.ids);
            assert_eq!(check(self.cluster.objects()), []);
        }
        replies
    }

    pub fn ask(&mut self, request: Request) -> Result<Answer, Refusal> {
        self.requests += 1;
        let id = RequestId(self.requests);
        let mut replies = self.tell(Event::Request(id, request));
        assert_eq!(replies.len(), 1);
        let (to, result) = replies.pop().unwrap();
        assert_eq!(to, id);
        result
    }

    pub fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        match self.ask(Request::CreateService(Box::new(spec))) {
            Ok(Answer::Service(id)) => id,
            other => panic!("the service was not created: {other:?}"),
        }
    }

    pub fn update(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.objects().service(id).unwrap();
        let (version, mut spec) = (service.meta.version, service.spec.clone());
        change(&mut spec);
        let request = Request::UpdateService { id, version, spec: Box::new(spec) };
        self.ask(request).unwrap();
    }

    pub fn change_node(
        &mut self,
        number: u64,
        change: impl FnOnce(&mut NodeSpec),
    ) -> Result<Answer, Refusal> {
        let id = NodeId(u128::from(number));
        let node = self.objects().node(id).unwrap();
        let (version, mut spec) = (node.meta.version, node.spec.clone());
        change(&mut spec);
        self.ask(Request::UpdateNode { id, version, spec: Box::new(spec) })
    }

    pub fn ready(&mut self, number: u64) {
        let node = node(number);
        let description = Box::new(node.description);
        self.tell(Event::NodeReady {
            node: node.id,
            description,
            address: node.address,
            data_path: node.data_path,
        });
    }

    /// Agents acknowledge all that they were told so far.
    pub fn acknowledge(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let node = NodeId(u128::from(number));
            self.tell(Event::Acknowledged { node, number: self.index });
        }
    }

    /// The task of a slot that is wanted, or its last.
    pub fn task(&self, service: ServiceId, slot: u64) -> &Task {
        crate::objects::representative(self.objects().tasks_of_slot(service, slot)).unwrap()
    }

    /// Every agent reports that its tasks have come to this state, in slots' order.
    pub fn report(&mut self, tasks: &[TaskId], state: TaskState, error: &str) {
        for id in tasks {
            let Some(node) = self.objects().task(*id).and_then(|task| task.node) else { continue };
            let message = state.name().to_owned();
            let status =
                TaskStatus { state, since: self.now, message, error: error.to_owned(), container: None };
            self.tell(Event::Reports(node, vec![StatusReport { task: *id, status }]));
        }
    }

    /// Agents do as they are told until nothing is left to do.
    pub fn work(&mut self) {
        loop {
            let due: Vec<(TaskId, TaskState)> = self
                .objects()
                .tasks()
                .filter(|task| task.node.is_some() && !task.status.state.is_terminal())
                .filter_map(|task| {
                    let next = match task.desired {
                        TaskState::Running | TaskState::Complete
                            if task.status.state < TaskState::Running =>
                        {
                            TaskState::Running
                        }
                        TaskState::Ready if task.status.state < TaskState::Ready => TaskState::Ready,
                        desired if desired > TaskState::Complete => TaskState::Shutdown,
                        _ => return None,
                    };
                    Some((task.id, next))
                })
                .collect();
            if due.is_empty() {
                return;
            }
            for (task, state) in due {
                self.report(&[task], state, "");
            }
        }
    }

    /// Lets time pass; timers ring on the way.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.wake_at.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell(Event::Tick);
        }
        self.now = end;
    }

    /// What was decided since the last look.
    pub fn story(&mut self) -> String {
        let mut story = std::mem::take(&mut self.lines).join("\n");
        story.push('\n');
        story
    }

    /// Applies an assignment to what its node knows of others.
    fn learn(&mut self, node: NodeId, assignment: &Assignment) {
        // That is told to those who are no nodes of the cluster.
        if *assignment == Assignment::Complete(Vec::new()) {
            self.known.remove(&node);
            return;
        }
        let known = self.known.entry(node).or_default();
        let (update, remove) = match assignment {
            Assignment::Complete(duties) => {
                known.clear();
                (duties, &Vec::new())
            }
            Assignment::Incremental { update, remove } => (update, remove),
        };
        let others = update.iter().filter(|duty| !matches!(duty, Duty::Task(_)));
        known.extend(others.map(|duty| (duty.id(), duty.clone())));
        for id in remove {
            known.remove(id);
        }
    }

    /// Differences must lead to what a new session would be told.
    fn check_known(&self) {
        let objects = self.objects();
        for (node, known) in self.known.iter().filter(|(node, _)| objects.node(**node).is_some()) {
            let told = crate::tables::all(objects, *node);
            let told: BTreeMap<DutyId, Duty> = told.into_iter().map(|duty| (duty.id(), duty)).collect();
            assert_eq!(*known, told, "n{}", node.0);
        }
    }

    /// Notes an output. Says whether there is something to commit.
    fn note(&mut self, output: &Output) -> bool {
        for reply in &output.replies {
            self.lines.push(match &reply.result {
                Ok(_) => "reply: done".to_owned(),
                Err(refusal) => format!("reply: {refusal}"),
            });
        }
        for (node, assignment) in &output.sends {
            let line = self.assignment(assignment);
            if line != "[]" {
                self.lines.push(format!("send n{}: {line}", node.0));
            }
            self.learn(*node, assignment);
        }
        for SeatStep::Remove { node, raft } in &output.seats {
            self.lines.push(format!("take seat {raft} from n{}", node.0));
        }
        self.wake_at = output.wake_at;
        self.check_placement(&output.propose);
        for change in &output.propose {
            let line = format!("  {}", self.change(change));
            self.lines.push(line);
        }
        if !output.propose.is_empty() {
            self.lines.push("commit".to_owned());
        }
        !output.propose.is_empty()
    }

    /// Whoever is given a task is what the task's placement asks for.
    fn check_placement(&self, changes: &[Change]) {
        for change in changes {
            let (node, spec) = match change {
                Change::CreateTask(task) => {
                    (task.node, &self.objects().service(task.service).unwrap().spec.task)
                }
                Change::Assign { task, node, .. } => (Some(*node), &self.objects().task(*task).unwrap().spec),
                _ => continue,
            };
            let node = node.map(|node| self.objects().node(node).unwrap());
            let fits = node.is_none_or(|node| {
                spec.placement.allows(node)
                    && spec.placement.fits_platform(node)
                    && node.state == NodeState::Ready
            });
            assert!(fits, "{change:?} against {:?}", spec.placement);
        }
    }

    fn name(&self, task: TaskId) -> String {
        self.names.get(&task).cloned().unwrap_or_else(|| "?".to_owned())
    }

    fn service_name(&self, id: ServiceId) -> &str {
        self.services.get(&id).map_or("?", String::as_str)
    }

    fn seconds(&self, time: Option<Time>) -> String {
        time.map(|time| format!(", after {:?}", time.since(self.now))).unwrap_or_default()
    }

    fn change(&mut self, change: &Change) -> String {
        match change {
            Change::PutService(service) => {
                self.services.insert(service.id, service.spec.name.clone());
                put_service(service)
            }
            Change::RemoveService(id) => format!("remove service {}", self.service_name(*id)),
            Change::Update { service, step, .. } => {
                let step = match step {
                    UpdateStep::End(status) => format!("{:?}: {}", status.state, self.named(&status.message)),
                    UpdateStep::Start { slots } => format!("start over {slots}"),
                    UpdateStep::Ran { task } => format!("{} ran", self.name(*task)),
                    UpdateStep::Failed { task } => format!("{} failed", self.name(*task)),
                    UpdateStep::Release { task } => format!("{} released", self.name(*task)),
                    UpdateStep::GiveUp { task } => format!("given up for {}", self.name(*task)),
                    UpdateStep::Forget { task } => format!("{} proven or gone", self.name(*task)),
                };
                format!("update {}: {step}", self.service_name(*service))
            }
            Change::CreateTask(task) => {
                let made = self.names.values().filter(|name| {
                    name.starts_with(&format!("{}.{}#", self.service_name(task.service), task.slot))
                });
                let name = format!("{}.{}#{}", self.service_name(task.service), task.slot, made.count() + 1);
                self.names.insert(task.id, name.clone());
                let node = task.node.map_or("no node".to_owned(), |node| format!("n{}", node.0));
                let addresses: Vec<String> =
                    task.attachments.iter().map(|attachment| format!(" {}", attachment.address)).collect();
                let (cause, after) = (task.cause, self.seconds(task.not_before));
                let status = status(&task.status);
                format!(
                    "task {name} ({cause:?}) on {node}{}, wanted {}{after}: {status}",
                    addresses.concat(),
                    task.desired
                )
            }
            Change::Allocate { task, attachments, .. } => {
                format!("task {} gets {}", self.name(*task), attachments[0].address)
            }
            Change::Assign { task, node, status: given, .. } => {
                format!("task {} to n{}: {}", self.name(*task), node.0, status(given))
            }
            Change::SetDesired { task, desired, .. } => format!("task {} wanted {desired}", self.name(*task)),
            Change::SetStatus { task, status: given, .. } => {
                format!("task {} is {}", self.name(*task), status(given))
            }
            Change::Move { service, tasks, .. } => {
                let tasks: Vec<String> = tasks.iter().map(|task| self.name(*task)).collect();
                format!("move of {}: {}", self.service_name(*service), tasks.join(" "))
            }
            Change::Scale { service, scaled } => {
                let name = self.service_name(*service);
                format!("scale {name} from {} to {}: {}", scaled.from, scaled.to, scaled.reason)
            }
            Change::RemoveTask(task) => format!("forget task {}", self.name(*task)),
            Change::PutNode(node) => {
                let address = node.ingress_address.map(|address| format!(" {address}")).unwrap_or_default();
                let (id, state, availability) = (node.id.0, node.state, node.spec.availability);
                let message =
                    if node.message.is_empty() { String::new() } else { format!(", {}", node.message) };
                let seat = node.manager.as_ref().map(|seat| format!(" seat {}", seat.raft));
                format!("node n{id} {state:?} {availability:?}{address}{}{message}", seat.unwrap_or_default())
            }
            Change::RemoveNode(id) => format!("remove node n{}", id.0),
            Change::PutCluster(_) => "cluster".to_owned(),
            Change::PutNetwork(network) => format!("network {} {}", network.name, network.subnet),
            Change::RemoveNetwork(_) => "remove network".to_owned(),
            Change::PutGuest(guest) => {
                format!(
                    "guest {} on n{} {} {:?}",
                    guest.container.short(),
                    guest.node.0,
                    guest.address,
                    guest.names
                )
            }
            Change::RemoveGuests(guests) => {
                let guests: Vec<String> = guests.iter().map(|(container, _)| container.short()).collect();
                format!("remove guests {}", guests.join(" "))
            }
        }
    }

    /// Task ids in a message, by name.
    fn named(&self, message: &str) -> String {
        self.names
            .iter()
            .fold(message.to_owned(), |message, (id, name)| message.replace(&id.to_string(), name))
    }

    fn assignment(&self, assignment: &Assignment) -> String {
        let (kind, update, remove) = match assignment {
            Assignment::Complete(duties) => ("all", duties, &Vec::new()),
            Assignment::Incremental { update, remove } => ("", update, remove),
        };
        let is_shown = |duty: &&Duty| self.shows_peers || !matches!(duty, Duty::Overlay(_) | Duty::Peer(_));
        let mut words: Vec<String> = update.iter().filter(is_shown).map(|duty| self.duty(duty)).collect();
        let is_shown =
            |id: &&DutyId| self.shows_peers || !matches!(id, DutyId::Overlay(_) | DutyId::Peer(..));
        words.extend(remove.iter().filter(is_shown).map(|id| match id {
            DutyId::Task(id) => format!("-{}", self.name(*id)),
            DutyId::Network(_) => "-network".to_owned(),
            DutyId::Overlay(_) => "-overlay".to_owned(),
            DutyId::Peer(_, address) => format!("-peer {address}"),
            DutyId::Record(id, _) => format!("-record {}", self.service_name(*id)),
            DutyId::Tunnel => "-tunnel".to_owned(),
            DutyId::TunnelPeer(host) => format!("-tunnel to {host}"),
            DutyId::Guest(id, _) => format!("-guest {}", id.short()),
            DutyId::Endpoint(id) => format!("-endpoint {}", self.service_name(*id)),
        }));
        format!("{kind}[{}]", words.join(", "))
    }

    fn duty(&self, duty: &Duty) -> String {
        match duty {
            Duty::Overlay(overlay) => {
                let address = overlay.address.map(|address| format!(" {address}")).unwrap_or_default();
                format!("overlay{address} on {}", overlay.host)
            }
            Duty::Record(record) => {
                let tasks: Vec<_> = record.tasks.iter().map(|task| task.address).collect();
                format!("record {} {:?} -> {tasks:?}", record.name, record.virtual_ip)
            }
            Duty::Tunnel(tunnel) => format!("tunnel with {} keys", tunnel.keys.len()),
            Duty::TunnelPeer(peer) => format!("tunnel to {}", peer.host),
            Duty::Guest(guest) => format!("guest {:?} {}", guest.names, guest.address),
            Duty::Peer(peer) => format!("peer {} at {}", peer.address, peer.host),
            Duty::Task(task) => format!("{} {}", self.name(task.id), task.desired),
            Duty::Network(network) => network.name.clone(),
            Duty::Endpoint(endpoint) => {
                let ports: Vec<String> = endpoint
                    .ports
                    .iter()
                    .map(|port| format!("{}:{}", port.published_port, port.target_port))
                    .collect();
                format!("endpoint {} {} -> {:?}", endpoint.name, ports.join(" "), endpoint.backends)
            }
        }
    }
}

fn put_service(service: &Service) -> String {
    let mode = match service.spec.mode {
        ServiceMode::Replicated { replicas } => format!("x{replicas}"),
        ServiceMode::Global => "global".to_owned(),
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            format!("job {max_concurrent} of {total_completions}")
        }
        ServiceMode::GlobalJob => "global job".to_owned(),
    };
    let (name, image) = (&service.spec.name, &service.spec.task.container.image);
    let ports: Vec<String> =
        service.ports.iter().map(|port| format!(" {}:{}", port.published_port, port.target_port)).collect();
    let addresses: Vec<String> = service.virtual_ips.iter().map(|ip| format!(" {}", ip.address)).collect();
    format!("service {name} {mode} {image}{}{}", ports.concat(), addresses.concat())
}

fn status(status: &TaskStatus) -> String {
    let TaskStatus { state, message, error, .. } = status;
    let error = if error.is_empty() { String::new() } else { format!(" ({error})") };
    format!("{state}, {message}{error}")
}
