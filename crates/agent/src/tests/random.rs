//! Any events in any order: one operation at a time for each subject, tasks that only move up, and at the
//! end nothing left over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

/// One thing that happens: what it is, and where, as numbers that are taken modulo what there is.
#[derive(Clone, Debug)]
enum Happening {
    Assign(u128, TaskState),
    Unassign(u128),
    Endpoint(Vec<u8>),
    Network,
    Overlay(u8),
    Peer(u8, u8),
    PeerGone(u8),
    Record(u128, Vec<u8>),
    RecordGone(u128),
    Guest(u8),
    GuestGone(u8),
    Exit(usize, i32),
    /// The operation under way at this place ends, well or not.
    End(usize, bool),
    Resync,
    Wait,
}

fn happening() -> impl Strategy<Value = Happening> {
    let desired = prop_oneof![
        Just(TaskState::Ready),
        Just(TaskState::Running),
        Just(TaskState::Shutdown),
        Just(TaskState::Remove)
    ];
    prop_oneof![
        4 => (1u128..6, desired).prop_map(|(id, desired)| Happening::Assign(id, desired)),
        1 => (1u128..6).prop_map(Happening::Unassign),
        1 => proptest::collection::vec(1u8..6, 0..3).prop_map(Happening::Endpoint),
        1 => Just(Happening::Network),
        1 => (1u8..3).prop_map(Happening::Overlay),
        4 => (10u8..20, 1u8..4).prop_map(|(last, host)| Happening::Peer(last, host)),
        2 => (10u8..20).prop_map(Happening::PeerGone),
        2 => (1u128..4, proptest::collection::vec(1u8..6, 0..3)).prop_map(|(id, tasks)| Happening::Record(id, tasks)),
        1 => (1u128..4).prop_map(Happening::RecordGone),
        1 => (1u8..4).prop_map(Happening::Guest),
        1 => (1u8..4).prop_map(Happening::GuestGone),
        1 => (any::<usize>(), 0i32..2).prop_map(|(place, code)| Happening::Exit(place, code)),
        8 => (any::<usize>(), proptest::bool::weighted(0.8)).prop_map(|(place, well)| Happening::End(place, well)),
        1 => Just(Happening::Resync),
        1 => Just(Happening::Wait),
    ]
}

/// What an operation is about; the agent has one under way for each at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Task(TaskId),
    /// Goes beside a stop where the task is taken away meanwhile.
    Drain(TaskId),
    Network(NetworkId),
    Endpoint(ServiceId),
}

/// The machine and the managers around an agent.
#[derive(Default)]
struct World {
    agent: Agent,
    now: u64,
    wake_at: Option<Time>,
    under_way: BTreeMap<Subject, Operation>,
    /// Containers, and whether they run.
    containers: BTreeMap<TaskId, bool>,
    watched: BTreeSet<TaskId>,
    duties: BTreeMap<DutyId, Duty>,
    /// The highest state that was reported.
    reported: BTreeMap<TaskId, TaskState>,
    served: Option<Vec<Ipv4Addr>>,
    /// Whether the last change of what is served failed.
    table_failed: bool,
    /// What was to be served as of each assignment, in order; they are numbered from 1.
    asked: Vec<Option<Vec<Ipv4Addr>>>,
    overlay: Option<Overlay>,
    /// While the network is up.
    peers: Option<BTreeMap<Ipv4Addr, IpAddr>>,
    records: Option<Records>,
}

impl World {
    fn step(&mut self, event: AgentEvent) {
        self.now += 1_000_000;
        let event = self.numbered(event);
        let output = self.agent.step(event, Time(self.now));
        self.wake_at = output.wake_at;
        assert!(output.wake_at.is_none_or(|at| at > Time(self.now)), "a timer lies ahead");
        for operation in output.operations {
            self.begin(operation);
        }
        for report in output.reports {
            let last = self.reported.insert(report.task, report.status.state);
            assert!(last.is_none_or(|last| last <= report.status.state), "{last:?} then {report:?}");
        }
        if let Some(number) = output.acknowledged.filter(|_| !self.table_failed) {
            let since = &self.asked[usize::try_from(number).expect("a small number") - 1..];
            assert!(
                since.contains(&self.served),
                "{number} is acknowledged, and {:?} is served",
                self.served
            );
        }
    }

    fn numbered(&mut self, event: AgentEvent) -> AgentEvent {
        let AgentEvent::Assigned { assignment, .. } = event else { return event };
        let wanted = match self.duties.get(&DutyId::Endpoint(WEB)) {
            Some(Duty::Endpoint(endpoint)) => Some(endpoint.backends.clone()),
            _ => None,
        };
        self.asked.push(wanted);
        assigned(self.asked.len() as u64, assignment)
    }

    fn begin(&mut self, operation: Operation) {
        let subject = match &operation {
            Operation::EnsureNetwork(network, _) => Subject::Network(network.id),
            Operation::UpdatePeers { network, .. } | Operation::UpdateRecords { network, .. } => {
                Subject::Network(*network)
            }
            Operation::RemoveNetwork(network) => {
                assert!(self.containers.is_empty(), "the network is in use");
                Subject::Network(*network)
            }
            Operation::SetTunnel { .. } => unreachable!("no network is encrypted"),
            Operation::ServeEndpoint(endpoint) => Subject::Endpoint(endpoint.service),
            Operation::RemoveEndpoint(service) => Subject::Endpoint(*service),
            Operation::Prepare { task, .. } => {
                assert!(!self.containers.contains_key(&task.id), "the container exists");
                Subject::Task(task.id)
            }
            Operation::Start { task, .. } => {
                assert_eq!(self.containers.get(task), Some(&false), "started when it does not run");
                Subject::Task(*task)
            }
            Operation::AwaitReady { task, .. } => {
                return self.step(AgentEvent::Ready { task: *task, result: Ok(()) });
            }
            Operation::Watch { task, .. } => {
                assert!(self.watched.insert(*task), "watched once");
                return;
            }
            Operation::Drain { task, .. } => Subject::Drain(*task),
            Operation::Stop { task, .. } | Operation::Remove { task, .. } => Subject::Task(*task),
        };
        assert!(self.under_way.insert(subject, operation).is_none(), "two operations for {subject:?}");
    }

    fn unassign(&mut self, id: DutyId) {
        if self.duties.remove(&id).is_some() {
            self.step(remove([id]));
        }
    }

    /// A change that fails has happened in part.
    fn update_peers(&mut self, change: PeerChange, well: bool) {
        let peers = self.peers.as_mut().expect("peers belong to a network that is up");
        let half = |count: usize| if well { count } else { count / 2 };
        match change {
            PeerChange::All(all) => {
                peers.clear();
                let count = half(all.len());
                peers.extend(all.into_iter().take(count));
            }
            PeerChange::Changed { update, remove } => {
                assert!(!update.is_empty() || !remove.is_empty(), "it changes something");
                for address in &remove {
                    peers.remove(address);
                }
                let count = half(update.len());
                peers.extend(update.into_iter().take(count));
            }
        }
    }

    /// A change that fails has happened in part.
    fn update_records(&mut self, change: RecordChange, well: bool) {
        let records = self.records.as_mut().expect("names belong to a network that is up");
        match change {
            RecordChange::All(all) => *records = if well { all } else { Records::default() },
            RecordChange::Changed { update, services, guests } => {
                let changes = update != Records::default() || !services.is_empty() || !guests.is_empty();
                assert!(changes, "it changes something");
                records.services.retain(|id, _| !services.contains(id));
                records.guests.retain(|id, _| !guests.contains(id));
                if well {
                    records.services.extend(update.services);
                    records.guests.extend(update.guests);
                }
            }
        }
    }

    /// Ends one of the operations under way.
    fn end(&mut self, place: usize, well: bool) {
        let Some(subject) = self.under_way.keys().nth(place % self.under_way.len().max(1)).copied() else {
            return;
        };
        let operation = self.under_way.remove(&subject).expect("it was just there");
        let refused = || "refused".to_owned();
        let plain = || if well { Ok(()) } else { Err(refused()) };
        let event = match operation {
            Operation::EnsureNetwork(network, overlay) => {
                if well {
                    self.overlay = overlay;
                    self.peers.get_or_insert_default();
                    self.records.get_or_insert_default();
                }
                AgentEvent::NetworkEnsured { network: network.id, result: plain() }
            }
            Operation::RemoveNetwork(network) => {
                if well {
                    self.peers = None;
                    self.records = None;
                }
                AgentEvent::NetworkRemoved { network, result: plain() }
            }
            Operation::UpdatePeers { network, change } => {
                self.update_peers(change, well);
                AgentEvent::PeersUpdated { network, result: plain() }
            }
            Operation::UpdateRecords { network, change } => {
                self.update_records(change, well);
                AgentEvent::RecordsUpdated { network, result: plain() }
            }
            Operation::SetTunnel { .. } => unreachable!("no network is encrypted"),
            Operation::ServeEndpoint(endpoint) => {
                self.served = well.then_some(endpoint.backends);
                self.table_failed = !well;
                AgentEvent::EndpointApplied { service: endpoint.service, result: plain() }
            }
            Operation::RemoveEndpoint(service) => {
                self.served = None;
                self.table_failed = !well;
                AgentEvent::EndpointApplied { service, result: plain() }
            }
            Operation::Prepare { task, .. } if well => {
                self.containers.insert(task.id, false);
                AgentEvent::Prepared { task: task.id, result: Ok(container(task.id.0)) }
            }
            Operation::Prepare { task, .. } => AgentEvent::Prepared { task: task.id, result: Err(refused()) },
            Operation::Start { task, .. } if well => {
                self.containers.insert(task, true);
                AgentEvent::Started { task, result: Ok(Launched { pid: 1, health: Watched::No }) }
            }
            Operation::Start { task, .. } => AgentEvent::Started { task, result: Err(refused()) },
            Operation::Drain { task, .. } => AgentEvent::Drained { task },
            Operation::Stop { task, .. } if well => {
                self.containers.insert(task, false);
                AgentEvent::Stopped { task, result: Ok(Some(0)) }
            }
            Operation::Stop { task, .. } => AgentEvent::Stopped { task, result: Err(refused()) },
            Operation::Remove { task, .. } => {
                if well {
                    assert_eq!(
                        self.containers.remove(&task),
                        Some(false),
                        "removed once, when it does not run"
                    );
                }
                AgentEvent::Removed { task, result: plain() }
            }
            Operation::AwaitReady { .. } | Operation::Watch { .. } => unreachable!("kept apart"),
        };
        self.step(event);
        self.end_watches();
    }

    /// Containers that stopped are seen to have stopped.
    fn end_watches(&mut self) {
        let running = |task: &TaskId| self.containers.get(task) == Some(&true);
        let ended: Vec<TaskId> = self.watched.iter().filter(|task| !running(task)).copied().collect();
        for task in ended {
            self.watched.remove(&task);
            self.step(AgentEvent::Exited { task, result: Ok(0) });
        }
    }

    fn assign(&mut self, id: DutyId, duty: Duty) {
        self.duties.insert(id, duty.clone());
        self.step(update([duty]));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Assign(id, desired) => {
                let id = TaskId(id);
                // As managers do: what is desired never falls, and an id is never used twice.
                let last = match self.duties.get(&DutyId::Task(id)) {
                    Some(Duty::Task(task)) => Some(task.desired),
                    _ => None,
                };
                let used = last.is_none() && self.reported.contains_key(&id);
                if !used && last.is_none_or(|last| last <= desired) {
                    self.assign(DutyId::Task(id), attached(id.0, desired));
                }
            }
            Happening::Unassign(id) => {
                let id = DutyId::Task(TaskId(id));
                if self.duties.remove(&id).is_some() {
                    self.step(remove([id]));
                }
            }
            Happening::Endpoint(backends) => self.assign(DutyId::Endpoint(WEB), endpoint(&backends)),
            Happening::Network => self.assign(DutyId::Network(INGRESS), ingress()),
            Happening::Overlay(host) => self.assign(DutyId::Overlay(INGRESS), place(host)),
            Happening::Peer(last, host) => {
                self.assign(DutyId::Peer(INGRESS, [10, 0, 0, last].into()), peer(last, host));
            }
            Happening::PeerGone(last) => self.unassign(DutyId::Peer(INGRESS, [10, 0, 0, last].into())),
            Happening::Record(id, tasks) => {
                self.assign(DutyId::Record(ServiceId(id), INGRESS), record(id, &tasks))
            }
            Happening::RecordGone(id) => self.unassign(DutyId::Record(ServiceId(id), INGRESS)),
            Happening::Guest(id) => {
                let id = u128::from(id);
                let guest = Guest {
                    container: container(id),
                    node: NodeId(1),
                    network: INGRESS,
                    address: [10, 0, 0, 100].into(),
                    names: vec![id.to_string()],
                };
                self.assign(DutyId::Guest(container(id), INGRESS), Duty::Guest(guest));
            }
            Happening::GuestGone(id) => self.unassign(DutyId::Guest(container(u128::from(id)), INGRESS)),
            Happening::Exit(place, code) => {
                let running: Vec<TaskId> = self.watched.iter().copied().collect();
                if let Some(task) = running.get(place % running.len().max(1)).copied() {
                    self.watched.remove(&task);
                    self.containers.insert(task, false);
                    self.step(AgentEvent::Exited { task, result: Ok(code) });
                }
            }
            Happening::End(place, well) => self.end(place, well),
            Happening::Resync => self.step(complete(self.duties.clone().into_values())),
            Happening::Wait => self.wait(),
        }
    }

    fn wait(&mut self) {
        self.now += 2_000_000_000;
        self.step(AgentEvent::Tick);
    }

    /// Lets everything succeed until nothing more happens.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.under_way.is_empty() {
                self.end(0, true);
            } else if self.wake_at.is_some() {
                self.wait();
            } else {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.under_way);
    }

    fn check_rest(&self) {
        for (id, duty) in &self.duties {
            let Duty::Task(task) = duty else { continue };
            let state = self.reported.get(&task.id).copied();
            let running = self.containers.get(&task.id) == Some(&true);
            match task.desired {
                TaskState::Ready | TaskState::Running => {
                    let there = state.is_some_and(|state| state.is_terminal() || state == task.desired);
                    // It may have run before it was wanted only ready.
                    assert!(there, "{id:?} is {state:?}, wanted {:?}", task.desired);
                    assert_eq!(running, state == Some(TaskState::Running), "{id:?}");
                }
                _ => {
                    assert!(state.is_some_and(TaskState::is_terminal), "{id:?} is {state:?}");
                    assert!(!running, "{id:?} runs");
                    let removed =
                        task.desired != TaskState::Remove || !self.containers.contains_key(&task.id);
                    assert!(removed, "{id:?} has a container");
                }
            }
        }
        for task in self.containers.keys() {
            assert!(self.duties.contains_key(&DutyId::Task(*task)), "{task} is nobody's");
        }
        let wanted = match self.duties.get(&DutyId::Endpoint(WEB)) {
            Some(Duty::Endpoint(endpoint)) => Some(endpoint.backends.clone()),
            _ => None,
        };
        assert_eq!(self.served, wanted);
        if self.duties.contains_key(&DutyId::Network(INGRESS)) {
            let overlay = self.duties.values().find_map(|duty| match duty {
                Duty::Overlay(overlay) => Some(*overlay),
                _ => None,
            });
            assert_eq!(self.overlay, overlay);
            let peers = self.duties.values().filter_map(|duty| match duty {
                Duty::Peer(peer) => Some((peer.address, peer.host)),
                _ => None,
            });
            assert_eq!(self.peers, Some(peers.collect()));
            let mut records = Records::default();
            for duty in self.duties.values().cloned() {
                match duty {
                    Duty::Record(record) => drop(records.services.insert(record.service, record)),
                    Duty::Guest(guest) => drop(records.guests.insert(guest.container, guest)),
                    _ => {}
                }
            }
            let told = self.records.clone().unwrap_or_default();
            assert_eq!(told, records);
        } else {
            assert_eq!(self.peers, None, "the network is gone with its peers");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_comes_to_rest_as_wanted(happenings in proptest::collection::vec(happening(), 1..80)) {
        let mut world = World::default();
        world.step(complete([]));
        for happening in happenings {
            world.happen(happening);
        }
        world.settle();
        world.check_rest();
        // Nothing is left when nothing is wanted.
        world.duties.clear();
        world.step(complete([]));
        world.settle();
        world.check_rest();
        prop_assert!(world.containers.is_empty() && world.watched.is_empty());
    }
}
