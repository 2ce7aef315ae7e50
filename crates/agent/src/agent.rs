//! The agent: duties in, operations and reports out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use skep_types::assignment::{Assignment, Duty, DutyId, Overlay, StatusReport};
use skep_types::container::ClusterAttachment;
use skep_types::port::Protocol;
use skep_types::tunnel::{Tunnel, TunnelPeer};
use skep_types::{ContainerId, NetworkId, ServiceId, Task, TaskId, Time};

use crate::duties::{EndpointDuty, NetworkDuty, NetworkState, TunnelDuty};
use crate::event::{AgentEvent, Observed, Operation, Recovered};
use crate::peers::PeersDuty;
use crate::records::RecordsDuty;
use crate::work::{Networks, Work};

/// Wait before an operation that failed once is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often that wait doubles.
const RETRY_DOUBLINGS: u32 = 3;

/// When an operation is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Failures in a row.
    failures: u32,
    /// `None` while nothing waits.
    pub(crate) at: Option<Time>,
}

impl Retry {
    /// It failed.
    pub(crate) fn failed(&mut self, now: Time) {
        self.at = Some(now + RETRY * (1 << self.failures.min(RETRY_DOUBLINGS)));
        self.failures += 1;
    }

    /// It succeeded, or is about something else from now on.
    pub(crate) fn reset(&mut self) {
        *self = Retry::default();
    }

    /// Whether trying once more did not help either.
    pub(crate) fn keeps_failing(&self) -> bool {
        self.failures > 1
    }

    /// Whether it still has to wait.
    pub(crate) fn waits(&self, now: Time) -> bool {
        self.at.is_some_and(|at| now < at)
    }
}

/// How long a started task may take to listen on its published ports before it counts as running all the same:
/// one that never does must not wait for ever.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

fn await_ready(task: TaskId, container: ContainerId, ports: Vec<u16>) -> Operation {
    Operation::AwaitReady { task, container, ports, limit: LISTEN_LIMIT }
}

/// What an event led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentOutput {
    /// To be performed, in any order and concurrently.
    pub operations: Vec<Operation>,
    /// Tasks that are to end while their [`Operation::Prepare`] is under way: it may end early, in an error.
    pub abandoned: Vec<TaskId>,
    /// For the managers: one for each task whose status changed.
    pub reports: Vec<StatusReport>,
    /// For the managers: all changes of tables up to the assignment of this number are in force, so that this node
    /// sends connections to no task that they took out. Replaces what was said before.
    pub acknowledged: Option<u64>,
    /// When [`AgentEvent::Tick`] is due; `None` when nothing waits for time to pass.
    pub wake_at: Option<Time>,
}

/// The worker's brain.
#[derive(Debug, Default)]
pub struct Agent {
    tasks: BTreeMap<TaskId, Work>,
    networks: BTreeMap<NetworkId, NetworkDuty>,
    /// This node's own places; one may be named before its network is.
    overlays: BTreeMap<NetworkId, Overlay>,
    peers: BTreeMap<NetworkId, PeersDuty>,
    records: BTreeMap<NetworkId, RecordsDuty>,
    /// `None` while no manager spoke of encrypted networks.
    tunnel: Option<TunnelDuty>,
    endpoints: BTreeMap<ServiceId, EndpointDuty>,
    /// Containers of a former agent that no assignment has named yet.
    found: BTreeMap<TaskId, (ContainerId, Observed)>,
    /// Whether the managers have said everything once.
    complete: bool,
    /// The number of the last assignment.
    heard: u64,
    /// Those of this session that changed tables and are not acknowledged.
    unacknowledged: BTreeSet<u64>,
    /// Since when no manager is heard.
    alone: Option<Time>,
}

impl Agent {
    /// An agent that knows of nothing.
    pub fn new() -> Agent {
        Agent::default()
    }

    /// Takes in one event and decides what follows from it.
    pub fn step(&mut self, event: AgentEvent, now: Time) -> AgentOutput {
        let mut operations = Vec::new();
        match event {
            AgentEvent::Recovered(recovered) => self.recover(recovered),
            AgentEvent::Remembered(duties) => {
                self.alone = Some(now);
                for duty in duties {
                    self.take_on(duty, false, now, &mut operations);
                }
            }
            AgentEvent::Alone => self.alone = self.alone.or(Some(now)),
            AgentEvent::Assigned { number, assignment } => {
                self.hear(number, &assignment);
                self.assign(assignment, now, &mut operations);
            }
            AgentEvent::NetworkEnsured { network, result } => self.network_ensured(network, result, now),
            AgentEvent::NetworkRemoved { network, result } => self.network_removed(network, result, now),
            AgentEvent::PeersUpdated { network, result } => {
                if let Some(duty) = self.peers.get_mut(&network) {
                    duty.end(&result, now);
                }
            }
            AgentEvent::RecordsUpdated { network, result } => {
                if let Some(duty) = self.records.get_mut(&network) {
                    duty.end(&result, now);
                }
            }
            AgentEvent::TunnelSet { result } => {
                if let Some(duty) = &mut self.tunnel {
                    duty.end(result, now);
                }
            }
            AgentEvent::EndpointApplied { service, result } => {
                if let Some(duty) = self.endpoints.get_mut(&service) {
                    duty.end(result, now);
                }
            }
            AgentEvent::Prepared { task, result } => self.with(task, |work| work.prepared(result, now)),
            AgentEvent::Started { task, result } => {
                let ports = self.published_ports(task);
                if let Some(work) = self.tasks.get_mut(&task) {
                    let waits_for = work.started(result, &ports, now, self.alone);
                    operations.extend(work.watch());
                    operations.extend(waits_for.map(|container| await_ready(task, container, ports)));
                }
            }
            AgentEvent::Ready { task, result } => self.with(task, |work| work.ready(result, now)),
            AgentEvent::Unhealthy { task } => self.with(task, Work::unhealthy),
            AgentEvent::Exited { task, result } => {
                let alone = self.alone;
                self.with(task, |work| work.exited(result, now, alone));
            }
            AgentEvent::Drained { task } => self.with(task, Work::drained),
            AgentEvent::Stopped { task, result } => self.with(task, |work| work.stopped(result, now)),
            AgentEvent::Removed { task, result } => self.with(task, |work| work.removed(result, now)),
            AgentEvent::Tick => {}
        }
        self.settle(now, operations)
    }

    /// The containers of running tasks of these services.
    pub fn running_of(&self, services: &BTreeSet<ServiceId>) -> Vec<(TaskId, ContainerId)> {
        let is_of = |work: &Work| work.task.as_ref().is_some_and(|task| services.contains(&task.service));
        let works = self.tasks.iter().filter(|(_, work)| is_of(work));
        works.filter_map(|(task, work)| Some((*task, work.running()?))).collect()
    }

    fn with(&mut self, task: TaskId, change: impl FnOnce(&mut Work)) {
        if let Some(work) = self.tasks.get_mut(&task) {
            change(work);
        }
    }

    /// The TCP ports on which clients of a task's service expect it to answer.
    fn published_ports(&self, task: TaskId) -> Vec<u16> {
        let service = self.tasks.get(&task).and_then(|work| Some(work.task.as_ref()?.service));
        let endpoint = service.and_then(|service| self.endpoints.get(&service)?.wanted());
        let tcp = endpoint.into_iter().flat_map(|endpoint| &endpoint.ports);
        tcp.filter(|port| port.protocol == Protocol::Tcp).map(|port| port.target_port).collect()
    }

    fn recover(&mut self, recovered: Recovered) {
        assert!(!self.complete, "a former agent's remains are told before the first assignment");
        for (task, container, observed) in recovered.containers {
            self.found.insert(task, (container, observed));
        }
        for network in recovered.networks {
            self.networks.insert(network, NetworkDuty::left_over());
            self.peers.insert(network, PeersDuty::default());
        }
        for service in recovered.endpoints {
            self.endpoints.insert(service, EndpointDuty::new(None, 0));
        }
    }

    fn hear(&mut self, number: u64, assignment: &Assignment) {
        self.heard = number;
        if let Assignment::Complete(_) = assignment {
            // These managers were told nothing yet.
            self.unacknowledged.clear();
        }
        if assignment.changes_tables() {
            self.unacknowledged.insert(number);
        }
    }

    fn assign(&mut self, assignment: Assignment, now: Time, operations: &mut Vec<Operation>) {
        match assignment {
            Assignment::Complete(duties) => {
                self.complete = true;
                self.alone = None;
                for work in self.tasks.values_mut() {
                    work.rejoin(now);
                    work.gone = true;
                }
                for duty in self.networks.values_mut() {
                    duty.wanted = None;
                }
                self.keep_overlays(&duties);
                let named = |service: &ServiceId| {
                    duties
                        .iter()
                        .any(|duty| matches!(duty, Duty::Endpoint(named) if named.service == *service))
                };
                for (_, duty) in self.endpoints.iter_mut().filter(|(service, _)| !named(service)) {
                    duty.want(None, self.heard);
                }
                for duty in duties {
                    self.take_on(duty, true, now, operations);
                }
                for duty in self.networks.values_mut().filter(|duty| duty.wanted.is_none()) {
                    duty.forsake();
                }
                for (task, (container, observed)) in std::mem::take(&mut self.found) {
                    self.tasks.insert(task, Work::unknown(task, container, observed, now));
                }
            }
            Assignment::Incremental { update, remove } => {
                for duty in update {
                    self.take_on(duty, false, now, operations);
                }
                for duty in remove {
                    self.give_up(duty);
                }
            }
        }
    }

    fn take_on(&mut self, duty: Duty, resync: bool, now: Time, operations: &mut Vec<Operation>) {
        match duty {
            Duty::Network(network) => {
                if !network.ingress {
                    self.records.entry(network.id).or_default();
                }
                match self.networks.get_mut(&network.id) {
                    Some(known) => known.update(network),
                    None => {
                        let (id, mut duty) = (network.id, NetworkDuty::wanted(network));
                        duty.place(self.overlays.get(&id).copied());
                        self.networks.insert(id, duty);
                    }
                }
            }
            Duty::Endpoint(endpoint) => match self.endpoints.get_mut(&endpoint.service) {
                Some(known) => known.want(Some(endpoint), self.heard),
                None => {
                    let service = endpoint.service;
                    self.endpoints.insert(service, EndpointDuty::new(Some(endpoint), self.heard));
                }
            },
            Duty::Task(task) => self.take_on_task(task, resync, now, operations),
            Duty::Overlay(overlay) => self.place(overlay.network, Some(overlay)),
            Duty::Peer(peer) => {
                self.peers.entry(peer.network).or_default().want(peer.address, Some(peer.host));
            }
            Duty::Record(record) => {
                let duty = self.records.entry(record.network).or_default();
                duty.want_service(record.service, Some(record), self.heard);
            }
            Duty::Guest(guest) => {
                let duty = self.records.entry(guest.network).or_default();
                duty.want_guest(guest.container, Some(guest), self.heard);
            }
            Duty::Tunnel(tunnel) => self.change_tunnel(|own, _| *own = Some(tunnel)),
            Duty::TunnelPeer(peer) => self.change_tunnel(|_, peers| {
                peers.insert(peer.host, peer);
            }),
        }
    }

    /// Gives up the places and peers that a whole set does not name.
    fn keep_overlays(&mut self, duties: &[Duty]) {
        let (mut overlays, mut peers) = (BTreeSet::new(), BTreeSet::new());
        let (mut records, mut guests) = (BTreeSet::new(), BTreeSet::new());
        let (mut tunnels, mut has_tunnel) = (BTreeSet::new(), false);
        for duty in duties {
            match duty {
                Duty::Overlay(overlay) => drop(overlays.insert(overlay.network)),
                Duty::Peer(peer) => drop(peers.insert((peer.network, peer.address))),
                Duty::Record(record) => drop(records.insert((record.network, record.service))),
                Duty::Guest(guest) => drop(guests.insert((guest.network, guest.container))),
                Duty::Tunnel(_) => has_tunnel = true,
                Duty::TunnelPeer(peer) => drop(tunnels.insert(peer.host)),
                Duty::Task(_) | Duty::Network(_) | Duty::Endpoint(_) => {}
            }
        }
        let gone: Vec<NetworkId> =
            self.overlays.keys().copied().filter(|network| !overlays.contains(network)).collect();
        for network in gone {
            self.place(network, None);
        }
        for (network, duty) in &mut self.peers {
            duty.keep(|address| peers.contains(&(*network, address)));
        }
        for (network, duty) in &mut self.records {
            let service = |service| records.contains(&(*network, service));
            duty.keep(service, |guest| guests.contains(&(*network, guest)), self.heard);
        }
        if self.tunnel.is_some() {
            self.change_tunnel(|own, peers| {
                *own = own.take().filter(|_| has_tunnel);
                peers.retain(|host, _| tunnels.contains(host));
            });
        }
    }

    fn place(&mut self, network: NetworkId, overlay: Option<Overlay>) {
        match overlay {
            Some(overlay) => drop(self.overlays.insert(network, overlay)),
            None => drop(self.overlays.remove(&network)),
        }
        if let Some(duty) = self.networks.get_mut(&network) {
            duty.place(overlay);
        }
    }

    fn take_on_task(&mut self, task: Box<Task>, resync: bool, now: Time, operations: &mut Vec<Operation>) {
        let id = task.id;
        if let Some(work) = self.tasks.get_mut(&id) {
            // A whole set follows a change of managers, who may never have heard of the last report.
            work.unreported |= resync && work.status != task.status;
            work.update(task);
            return;
        }
        let found = self.found.remove(&id);
        let work = match found {
            Some((container, observed)) => Work::adopt(task, container, observed, now, self.alone),
            None => Work::accept(task, now),
        };
        operations.extend(work.watch());
        self.tasks.insert(id, work);
        if let Some((container, Observed::Starting(_))) = found {
            operations.push(await_ready(id, container, self.published_ports(id)));
        }
    }

    fn give_up(&mut self, duty: DutyId) {
        match duty {
            DutyId::Task(task) => self.with(task, |work| work.gone = true),
            DutyId::Overlay(network) => self.place(network, None),
            DutyId::Peer(network, address) => {
                if let Some(duty) = self.peers.get_mut(&network) {
                    duty.want(address, None);
                }
            }
            DutyId::Record(service, network) => {
                if let Some(duty) = self.records.get_mut(&network) {
                    duty.want_service(service, None, self.heard);
                }
            }
            DutyId::Guest(container, network) => {
                if let Some(duty) = self.records.get_mut(&network) {
                    duty.want_guest(container, None, self.heard);
                }
            }
            DutyId::Tunnel => self.change_tunnel(|own, _| *own = None),
            DutyId::TunnelPeer(host) => self.change_tunnel(|_, peers| {
                peers.remove(&host);
            }),
            DutyId::Network(network) => {
                if let Some(duty) = self.networks.get_mut(&network) {
                    duty.forsake();
                }
            }
            DutyId::Endpoint(service) => {
                if let Some(duty) = self.endpoints.get_mut(&service) {
                    duty.want(None, self.heard);
                }
            }
        }
    }

    fn change_tunnel(&mut self, change: impl FnOnce(&mut Option<Tunnel>, &mut BTreeMap<IpAddr, TunnelPeer>)) {
        let duty = self.tunnel.get_or_insert_with(|| TunnelDuty::new(Some(Default::default()), self.heard));
        let (mut own, mut peers) = duty.wanted().cloned().unwrap_or_default();
        change(&mut own, &mut peers);
        duty.want(Some((own, peers)), self.heard);
    }

    fn network_ensured(&mut self, network: NetworkId, result: Result<(), String>, now: Time) {
        let Some(duty) = self.networks.get_mut(&network) else { return };
        let Err(error) = result else {
            duty.ensured();
            if let Some(peers) = self.peers.get_mut(&network) {
                peers.invalidate();
            }
            if let Some(records) = self.records.get_mut(&network) {
                records.invalidate();
            }
            return;
        };
        duty.state = NetworkState::Absent;
        duty.retry.failed(now);
        for work in self.tasks.values_mut() {
            if work.waits_for_networks() && uses(work, network) {
                work.reject(error.clone(), now);
            }
        }
    }

    fn network_removed(&mut self, network: NetworkId, result: Result<(), String>, now: Time) {
        let Some(duty) = self.networks.get_mut(&network) else { return };
        match result {
            Ok(()) => {
                duty.state = NetworkState::Absent;
                duty.leaves_something = false;
            }
            // Wanted anew meanwhile, it is brought up as it is wanted now.
            Err(_) if duty.wanted.is_some() => {
                duty.state = NetworkState::Absent;
                duty.retry.reset();
            }
            Err(_) => {
                duty.state = NetworkState::Ready;
                duty.retry.failed(now);
            }
        }
    }

    /// Gives out every operation that is due. The whole table is looked at after each event: it holds the
    /// tasks of one node, and a pass takes less time than one of their system calls.
    fn settle(&mut self, now: Time, mut operations: Vec<Operation>) -> AgentOutput {
        self.settle_tunnel(now, &mut operations);
        self.settle_networks(now, &mut operations);
        self.settle_peers(now, &mut operations);
        self.settle_records(now, &mut operations);
        self.settle_endpoints(now, &mut operations);
        self.settle_tasks(now, &mut operations);
        self.explain_endpoints();
        self.drop_networks(now, &mut operations);
        let mut reports = Vec::new();
        for (task, work) in &mut self.tasks {
            // Of a task that is gone the managers know nothing any more.
            if std::mem::take(&mut work.unreported) && !work.gone {
                reports.push(StatusReport { task: *task, status: work.status.clone() });
            }
        }
        let acknowledged = self.acknowledge();
        let abandoned = self.tasks.values_mut().filter_map(Work::abandon).collect();
        AgentOutput { operations, abandoned, reports, acknowledged, wake_at: self.wake_at(now) }
    }

    /// What the managers can be told of the tables.
    fn acknowledge(&mut self) -> Option<u64> {
        // What is in force of a network that is brought up anew is still what was told of it before.
        let named = |network: &NetworkId| self.networks.get(network).is_some_and(NetworkDuty::has_names);
        let records = self.records.iter().filter(|(network, _)| named(network));
        let records = records.filter_map(|(_, duty)| duty.holds_back());
        let first = self.endpoints.values().filter_map(EndpointDuty::holds_back).chain(records).min();
        let last = first.map_or(u64::MAX, |first| first.saturating_sub(1));
        let done = self.unacknowledged.range(..=last).next_back().copied()?;
        self.unacknowledged = self.unacknowledged.split_off(&(done + 1));
        Some(done)
    }

    fn settle_tunnel(&mut self, now: Time, operations: &mut Vec<Operation>) {
        let begun = self.tunnel.as_mut().and_then(|duty| duty.begin(now)).flatten();
        operations.extend(
            begun
                .map(|(tunnel, peers)| Operation::SetTunnel { tunnel, peers: peers.into_values().collect() }),
        );
    }

    /// Peers come first: a name must not lead to an address that nobody knows the place of.
    fn settle_records(&mut self, now: Time, operations: &mut Vec<Operation>) {
        for (network, duty) in &mut self.records {
            if self.networks.get(network).is_some_and(NetworkDuty::stands)
                && !self.peers.get(network).is_some_and(PeersDuty::is_under_way)
                && let Some(change) = duty.begin(now)
            {
                operations.push(Operation::UpdateRecords { network: *network, change });
            }
        }
    }

    fn settle_peers(&mut self, now: Time, operations: &mut Vec<Operation>) {
        for (network, duty) in &mut self.peers {
            if self.records.get(network).is_some_and(RecordsDuty::is_under_way) {
                continue;
            }
            if self.networks.get(network).is_some_and(NetworkDuty::is_up)
                && let Some(change) = duty.begin(now)
            {
                operations.push(Operation::UpdatePeers { network: *network, change });
            }
        }
    }

    /// Whether peers are about to be brought into force. A connection that an endpoint sent to one before that would
    /// never be answered: which source it has is decided once.
    fn awaits_peers(&self) -> bool {
        let coming = |network| self.networks.get(network).is_some_and(NetworkDuty::is_coming);
        self.peers.iter().any(|(network, duty)| duty.unsettled() && coming(network))
    }

    fn settle_endpoints(&mut self, now: Time, operations: &mut Vec<Operation>) {
        if self.awaits_peers() {
            return;
        }
        for (service, duty) in &mut self.endpoints {
            // What a former agent served is served until the managers have said everything.
            if !self.complete && duty.wanted().is_none() {
                continue;
            }
            operations.extend(duty.begin(now).map(|endpoint| match endpoint {
                Some(endpoint) => Operation::ServeEndpoint(endpoint),
                None => Operation::RemoveEndpoint(*service),
            }));
        }
        self.endpoints.retain(|_, duty| !duty.is_finished());
    }

    fn settle_networks(&mut self, now: Time, operations: &mut Vec<Operation>) {
        for (id, duty) in &mut self.networks {
            let busy = self.peers.get(id).is_some_and(PeersDuty::is_under_way)
                || self.records.get(id).is_some_and(RecordsDuty::is_under_way);
            let Some(wanted) = duty.wanted.as_ref().filter(|_| !busy) else { continue };
            // Nothing is sent in clear for want of what encrypts it.
            if wanted.encrypted && self.tunnel.as_ref().is_some_and(TunnelDuty::unsettled) {
                continue;
            }
            // A task that needs the network does not wait for the time to try again.
            let needed = self.tasks.values().any(|work| work.waits_for_networks() && uses(work, *id));
            let due = needed || !duty.retry.waits(now);
            if duty.state == NetworkState::Absent && due {
                let begun = duty.begin();
                operations.extend(begun.map(|(network, overlay)| Operation::EnsureNetwork(network, overlay)));
            }
        }
    }

    /// A port that this node cannot serve is said by the service's tasks here, though they run: in Docker it would be in a
    /// log of this machine only.
    fn explain_endpoints(&mut self) {
        for work in self.tasks.values_mut() {
            let service = work.task.as_ref().map(|task| task.service);
            let endpoint = service.and_then(|service| self.endpoints.get(&service));
            if let Some(trouble) = endpoint.and_then(EndpointDuty::trouble) {
                work.is_served(trouble);
            }
        }
    }

    fn settle_tasks(&mut self, now: Time, operations: &mut Vec<Operation>) {
        let (networks, records) = (&self.networks, &self.records);
        let changes = |task: &Task| {
            let mut on = task.attachments.iter().map(|attachment| attachment.network);
            on.any(|network| {
                let named = networks.get(&network).is_some_and(NetworkDuty::has_names);
                named && records.get(&network).is_some_and(RecordsDuty::unsettled)
            })
        };
        for work in self.tasks.values_mut() {
            // A container of a task that nobody names may stand behind any service.
            let held = match &work.task {
                Some(task) => {
                    self.endpoints.get(&task.service).is_some_and(EndpointDuty::unsettled) || changes(task)
                }
                None => self.endpoints.values().any(EndpointDuty::unsettled),
            };
            operations.extend(work.next(now, held, |task| attachments(task, networks, records)));
        }
        self.tasks.retain(|_, work| !work.is_finished());
    }

    fn drop_networks(&mut self, now: Time, operations: &mut Vec<Operation>) {
        for (id, duty) in &mut self.networks {
            let used = self.tasks.values().any(|work| work.uses_networks() && uses(work, *id));
            let busy = self.peers.get(id).is_some_and(PeersDuty::is_under_way)
                || self.records.get(id).is_some_and(RecordsDuty::is_under_way);
            let due = !duty.retry.waits(now) && !busy;
            let rests = matches!(duty.state, NetworkState::Ready | NetworkState::Absent);
            let unwanted = self.complete && duty.wanted.is_none() && duty.leaves_something;
            if unwanted && rests && !used && due {
                duty.state = NetworkState::Removing;
                duty.retry.at = None;
                operations.push(Operation::RemoveNetwork(*id));
            }
        }
        self.networks.retain(|_, duty| {
            duty.wanted.is_some() || duty.leaves_something || duty.state != NetworkState::Absent
        });
        self.peers.retain(|network, duty| !duty.is_idle() || self.networks.contains_key(network));
        let networks = &self.networks;
        self.records.retain(|network, duty| !duty.is_idle() || networks.contains_key(network));
    }

    /// What is due and was not begun waits for the end of an operation, which is an event too.
    fn wake_at(&self, now: Time) -> Option<Time> {
        let tasks = self.tasks.values().filter_map(Work::wakes_at);
        let networks = self.networks.values().filter_map(|duty| duty.retry.at);
        let peers = self.peers.values().filter_map(|duty| duty.retry.at);
        let records = self.records.values().filter_map(|duty| duty.retry.at);
        let endpoints = self.endpoints.values().filter_map(|duty| duty.retry.at);
        let tunnel = self.tunnel.as_ref().and_then(|duty| duty.retry.at);
        let all = tasks.chain(networks).chain(peers).chain(records).chain(endpoints).chain(tunnel);
        all.filter(|at| *at > now).min()
    }
}

/// Whether a container may be attached to `network`: one of an unknown task may be attached to any.
fn uses(work: &Work, network: NetworkId) -> bool {
    work.task
        .as_ref()
        .is_none_or(|task| task.attachments.iter().any(|attachment| attachment.network == network))
}

fn attachments(
    task: &Task,
    networks: &BTreeMap<NetworkId, NetworkDuty>,
    records: &BTreeMap<NetworkId, RecordsDuty>,
) -> Networks {
    let mut ready = Vec::new();
    for attachment in &task.attachments {
        let duty = networks.get(&attachment.network);
        let Some((network, state)) = duty.and_then(|duty| Some((duty.wanted.as_ref()?, duty.state))) else {
            // As moby's `network %s not found`.
            return Networks::Missing(format!("network {} not found", attachment.network));
        };
        // A container that is asked for a name on a network knows the names there from its start.
        let told = records.get(&attachment.network).is_none_or(RecordsDuty::is_told);
        if state != NetworkState::Ready || !told {
            return Networks::Pending;
        }
        let on = task.spec.networks.iter().find(|on| on.network == network.id);
        let aliases = on.map(|on| on.aliases.clone()).unwrap_or_default();
        ready.push(ClusterAttachment { network: network.clone(), address: attachment.address, aliases });
    }
    Networks::Ready(ready)
}
