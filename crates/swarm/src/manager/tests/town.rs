//! Managers that reach each other in memory, each with an agent at its side. Links can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use skep_agent::{Agent, AgentEvent, Launched, Operation, Watched};
use skep_cluster::{Answer, Request};
use skep_consensus::{Config, LogKey, RaftId, Transport, TransportError};
use skep_types::node::{Availability, Member, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::swarm::{ClusterObject, ClusterSpec};
use skep_types::{ClusterId, Ids, Meta, NodeId};

use crate::announce::Announcer;
use crate::clock::Clock;
use crate::manager::remote::Called;
use crate::manager::{Manager, Remote, Setup};
use crate::session::{FromAgent, Hello, Link, ToAgent};
use crate::wire::{Barrier, CallError, SeatCall};

/// Where the manager with this number is reached.
pub(super) fn address(number: u64) -> String {
    format!("manager-{number}")
}

fn number(address: &str) -> Option<u64> {
    address.strip_prefix("manager-")?.parse().ok()
}

pub(super) fn id(number: u64) -> NodeId {
    NodeId(u128::from(number))
}

pub(super) fn config(dir: &Path, number: u64) -> Config {
    Config::new(dir.to_owned(), number, LogKey::new([7; 32]))
}

/// The first manager's request, number 1.
pub(super) fn cluster(snapshot_interval: u64) -> Request {
    let cluster = ClusterObject {
        id: ClusterId(1),
        meta: Meta::default(),
        spec: ClusterSpec { snapshot_interval, ..Default::default() },
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix: 24,
        data_path_port: 4789,
        authority: Default::default(),
        unlock_key: None,
        worker_token: "worker".to_owned(),
        manager_token: "manager".to_owned(),
        network_keys: Vec::new(),
        network_keys_at: Default::default(),
    };
    let seat = Some(Member { raft: 1, address: address(1) });
    Request::CreateCluster { cluster: Box::new(cluster), node: Box::new(Node { manager: seat, ..node(1) }) }
}

fn node(number: u64) -> Node {
    Node {
        id: id(number),
        meta: Meta::default(),
        spec: NodeSpec {
            name: String::new(),
            labels: BTreeMap::new(),
            role: NodeRole::Manager,
            availability: Availability::Active,
        },
        description: description(number),
        state: NodeState::Ready,
        message: String::new(),
        address: [192, 0, 2, 1].into(),
        manager: None,
        data_path: None,
        ingress_address: None,
        down_since: None,
    }
}

fn description(number: u64) -> NodeDescription {
    let hostname = if number == 1 { "here".to_owned() } else { format!("here-{number}") };
    NodeDescription { hostname, os: "linux".to_owned(), ..Default::default() }
}

#[derive(Clone, Default)]
pub(super) struct Town {
    /// What managers reach each other by holds this weakly: a test keeps its town.
    streets: Arc<Mutex<Streets>>,
}

#[derive(Default)]
struct Streets {
    managers: BTreeMap<u64, Manager>,
    cut: BTreeSet<u64>,
}

impl Streets {
    fn manager(&self, from: u64, to: u64) -> Option<Manager> {
        let cut = from != to && (self.cut.contains(&from) || self.cut.contains(&to));
        self.managers.get(&to).filter(|_| !cut).cloned()
    }
}

impl Town {
    /// Opens the log of a manager, and its agent.
    pub(super) async fn open(&self, dir: &Path, number: u64) -> (Manager, Announcer) {
        let announcer = Announcer::new();
        let street = Arc::new(Street { from: number, streets: Arc::downgrade(&self.streets) });
        let setup = Setup {
            consensus: config(dir, number),
            transport: street.clone(),
            remote: street.clone(),
            announcer: announcer.clone(),
        };
        let manager = Manager::start(setup).await.unwrap();
        self.streets.lock().unwrap().managers.insert(number, manager.clone());
        tokio::spawn(agent(street));
        (manager, announcer)
    }

    /// Founds a cluster of managers 1 to `count`, whose logs are in folders of these names.
    pub(super) async fn found(&self, dir: &Path, count: u64) -> Vec<Manager> {
        let (first, _) = self.open(&dir.join("1"), 1).await;
        first.found(address(1), cluster(10_000)).await.unwrap();
        let mut managers = vec![first];
        for number in 2..=count {
            managers.push(self.join(dir, number).await);
        }
        managers
    }

    /// Lets a manager join.
    pub(super) async fn join(&self, dir: &Path, number: u64) -> Manager {
        let leader = self.leader().await;
        leader.request(Request::AddNode(Box::new(node(number)))).await.unwrap();
        let (manager, _) = self.open(&dir.join(number.to_string()), number).await;
        let call = SeatCall { raft: number, address: address(number) };
        leader.give_seat(id(number), call).await.unwrap();
        manager
    }

    /// The manager that leads and reaches the others.
    pub(super) async fn leader(&self) -> Manager {
        let found = async {
            loop {
                let managers: Vec<(u64, Manager)> = {
                    let streets = self.streets.lock().unwrap();
                    let reached = streets.managers.iter().filter(|(number, _)| !streets.cut.contains(number));
                    reached.map(|(number, manager)| (*number, manager.clone())).collect()
                };
                for (_, manager) in managers {
                    if manager.leads() && manager.give_barrier().await.is_ok() {
                        return manager;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::PATIENCE, found).await.expect("a manager leads")
    }

    /// Cuts a manager off from the others.
    pub(super) fn cut(&self, number: u64) {
        self.streets.lock().unwrap().cut.insert(number);
    }

    /// Ends a manager. Nobody is told before it happens.
    pub(super) async fn stop(&self, number: u64) {
        let stopped = self.streets.lock().unwrap().managers.remove(&number).unwrap();
        stopped.stop().await;
    }
}

/// What a manager reaches others by.
pub(super) struct Street {
    from: u64,
    streets: Weak<Mutex<Streets>>,
}

impl Street {
    /// One that leads nowhere.
    pub(super) fn nowhere() -> Arc<Street> {
        Arc::new(Street { from: 0, streets: Weak::new() })
    }

    fn to(&self, number: Option<u64>) -> Option<Manager> {
        self.streets.upgrade()?.lock().unwrap().manager(self.from, number?)
    }

    fn at(&self, address: &str) -> Result<Manager, CallError> {
        self.to(number(address)).ok_or_else(|| CallError::Unreachable("cut off".to_owned()))
    }
}

impl Transport for Street {
    fn send(
        &self,
        to: RaftId,
        _address: &str,
        message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>> {
        let found = self.to(Some(to));
        Box::pin(async move {
            let failed = |reason: String| TransportError { reason };
            let manager = found.ok_or_else(|| failed("cut off".to_owned()))?;
            manager.receive(message).await.map_err(|error| failed(error.to_string()))
        })
    }
}

impl Remote for Street {
    fn forward<'a>(&'a self, address: &'a str, request: &'a Request) -> Called<'a, Answer> {
        Box::pin(async move { self.at(address)?.handle(request.clone()).await })
    }

    fn barrier<'a>(&'a self, address: &'a str) -> Called<'a, Barrier> {
        Box::pin(async move { self.at(address)?.give_barrier().await })
    }
}

/// The agent of a node: keeps a session with whoever leads, and has an engine that always succeeds.
async fn agent(street: Arc<Street>) {
    let mut agent = (Agent::new(), Ids::new(9 + u128::from(street.from)));
    let hello =
        Hello { description: description(street.from), address: [192, 0, 2, 1].into(), data_path: None };
    while let Some(streets) = street.streets.upgrade() {
        let known: Vec<u64> = streets.lock().unwrap().managers.keys().copied().collect();
        drop(streets);
        for manager in known.into_iter().filter_map(|number| street.to(Some(number))) {
            if let Ok(link) = manager.open_session(id(street.from), hello.clone()).await {
                serve(link, &mut agent).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(mut link: Link, (agent, ids): &mut (Agent, Ids)) {
    let clock = Clock::default();
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    loop {
        let said = tokio::select! {
            said = link.from_manager.recv() => said,
            _ = beat.tick() => {
                if link.to_manager.send(FromAgent::Beat).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let assignment = match said {
            Some(ToAgent::Assignment { number, assignment }) => AgentEvent::Assigned { number, assignment },
            Some(ToAgent::News(_) | ToAgent::Measure(_) | ToAgent::Beat(_)) => continue,
            None => return,
        };
        let mut events = vec![assignment];
        while let Some(event) = events.pop() {
            let output = agent.step(event, clock.now());
            events.extend(output.operations.into_iter().filter_map(|operation| succeed(operation, ids)));
            let reports = Some(output.reports).filter(|reports| !reports.is_empty());
            let acknowledged = output.acknowledged.map(FromAgent::Acknowledged);
            for said in reports.map(FromAgent::Reports).into_iter().chain(acknowledged) {
                if link.to_manager.send(said).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What an engine without failures answers.
fn succeed(operation: Operation, ids: &mut Ids) -> Option<AgentEvent> {
    Some(match operation {
        Operation::EnsureNetwork(network, _) => {
            AgentEvent::NetworkEnsured { network: network.id, result: Ok(()) }
        }
        Operation::UpdatePeers { network, .. } => AgentEvent::PeersUpdated { network, result: Ok(()) },
        Operation::UpdateRecords { network, .. } => AgentEvent::RecordsUpdated { network, result: Ok(()) },
        Operation::SetTunnel { .. } => AgentEvent::TunnelSet { result: Ok(()) },
        Operation::RemoveNetwork(network) => AgentEvent::NetworkRemoved { network, result: Ok(()) },
        Operation::ServeEndpoint(endpoint) => {
            AgentEvent::EndpointApplied { service: endpoint.service, result: Ok(()) }
        }
        Operation::RemoveEndpoint(service) => AgentEvent::EndpointApplied { service, result: Ok(()) },
        Operation::Prepare { task, .. } => {
            AgentEvent::Prepared { task: task.id, result: Ok(ids.container()) }
        }
        Operation::Start { task, .. } => {
            AgentEvent::Started { task, result: Ok(Launched { pid: 42, health: Watched::No }) }
        }
        Operation::AwaitReady { task, .. } => AgentEvent::Ready { task, result: Ok(()) },
        Operation::Watch { .. } => return None,
        Operation::Drain { task, .. } => AgentEvent::Drained { task },
        Operation::Stop { task, .. } => AgentEvent::Stopped { task, result: Ok(Some(0)) },
        Operation::Remove { task, .. } => AgentEvent::Removed { task, result: Ok(()) },
    })
}
