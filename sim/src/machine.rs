//! One node: the real agent over modelled containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_agent::{Agent, Observed, PeerChange, Recovered};
use skep_types::assignment::{Assignment, Duty, DutyId, Endpoint, Overlay};
use skep_types::network::{Network, Stay};
use skep_types::records::{RecordChange, Records};
use skep_types::tunnel::{Tunnel, TunnelPeer};
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, Task, TaskId, Time};

/// An address of a network.
pub(crate) type Place = (NetworkId, Ipv4Addr);

/// A container as its kernel knows it.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub id: ContainerId,
    /// The task that it was made for.
    pub task: Task,
    pub state: Life,
    /// Whether someone waits for its end.
    pub watched: bool,
    /// Until when those who connected to it stay.
    pub clients: Vec<Time>,
    /// Until when its last clients were to be waited for.
    pub drains_until: Option<Time>,
    /// Whether its health check failed: its agent stops it at once, whoever is sent to it.
    pub sick: bool,
}

/// The life of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Created,
    Running,
    Ended { code: i32, at: Time, asked: bool },
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == Life::Running
    }

    /// Whether it never ran.
    pub fn is_new(&self) -> bool {
        self.state == Life::Created
    }

    /// Whether its clients had their time to leave.
    pub fn had_time(&self, now: Time) -> bool {
        self.drains_until.is_some_and(|until| until <= now)
    }

    /// Its addresses on cluster-wide networks.
    pub fn addresses(&self) -> impl Iterator<Item = Place> {
        self.task.attachments.iter().map(|attachment| (attachment.network, attachment.address))
    }
}

/// A session as its node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// Numbers are never used again.
    pub number: u64,
    /// The machine of the manager that it is held with.
    pub manager: usize,
    /// Something that was said in this session is lost: nothing said later in that direction arrives either.
    pub down_is_cut: bool,
    pub up_is_cut: bool,
    /// Whether the node's tables have become what the manager told in it first.
    pub has_acknowledged: bool,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Machine {
    pub id: NodeId,
    pub agent: Agent,
    /// Raised when the daemon dies: results of its operations find nobody then.
    pub life: u64,
    /// Whether the daemon runs.
    pub up: bool,
    /// The session with a manager, if one is open.
    pub session: Option<Session>,
    /// Messages in each direction arrive in order: not before these.
    pub down_link: Time,
    pub up_link: Time,
    pub containers: BTreeMap<TaskId, Container>,
    pub served: BTreeMap<ServiceId, Endpoint>,
    /// The networks that are brought up here, with its own place on each.
    pub networks: BTreeMap<NetworkId, (Network, Option<Overlay>)>,
    /// Where its kernel sends what is for other nodes' addresses.
    pub peers: BTreeMap<Place, IpAddr>,
    /// What its server of names answers.
    pub records: BTreeMap<NetworkId, Records>,
    /// Its part in encrypted networks, and whom it knows there.
    pub tunnel: (Option<Tunnel>, BTreeMap<IpAddr, TunnelPeer>),
    /// Containers that are no tasks, with their addresses and when they were let in.
    pub guests: BTreeMap<(ContainerId, NetworkId), (Ipv4Addr, Time)>,
    /// Guests that have left, which the managers have not heard.
    pub leaving: BTreeSet<(ContainerId, NetworkId)>,
    /// The session in which the managers heard which guests are here.
    pub kept_in: u64,
    /// When the agent wants to be woken.
    pub wake_at: Option<Time>,
    /// Until when the whole machine stands still.
    pub paused_until: Time,
    /// The position of the log that its newest duties are from.
    pub duties_at: u64,
    /// What its daemon wrote down of its duties, whole or not at all.
    pub memory: Option<BTreeMap<DutyId, Duty>>,
    /// Whether it does not come back when it is removed.
    pub stays_away: bool,
    /// When the managers last gave it up: what they gave it earlier may run elsewhere too.
    pub given_up: Option<Time>,
}

impl Machine {
    pub fn new(id: NodeId) -> Machine {
        Machine {
            id,
            agent: Agent::new(),
            life: 0,
            up: true,
            session: None,
            down_link: Time(0),
            up_link: Time(0),
            containers: BTreeMap::new(),
            served: BTreeMap::new(),
            networks: BTreeMap::new(),
            peers: BTreeMap::new(),
            records: BTreeMap::new(),
            tunnel: Default::default(),
            guests: BTreeMap::new(),
            leaving: BTreeSet::new(),
            kept_in: 0,
            wake_at: None,
            paused_until: Time(0),
            duties_at: 0,
            memory: None,
            stays_away: false,
            given_up: None,
        }
    }

    /// The daemon dies; containers go on.
    pub fn kill_daemon(&mut self) {
        self.life += 1;
        self.up = false;
        self.session = None;
        self.wake_at = None;
        self.agent = Agent::new();
        self.leaving.clear();
        for container in self.containers.values_mut() {
            container.watched = false;
        }
    }

    /// The machine loses power: every container ends too.
    pub fn lose_power(&mut self, now: Time) {
        self.kill_daemon();
        for container in self.containers.values_mut().filter(|container| container.is_running()) {
            container.state = Life::Ended { code: 255, at: now, asked: true };
        }
        self.networks.clear();
        self.peers.clear();
        self.records.clear();
        self.tunnel = Default::default();
        self.served.clear();
    }

    /// A network is brought up, or as it is wanted now. What was told of it before is forgotten.
    pub fn ensure_network(&mut self, network: Network, overlay: Option<Overlay>) {
        let id = network.id;
        self.forget_network(id);
        self.networks.insert(id, (network, overlay));
    }

    /// Nothing of a network is left.
    pub fn forget_network(&mut self, id: NetworkId) {
        self.networks.remove(&id);
        self.peers.retain(|(network, _), _| *network != id);
        self.records.remove(&id);
    }

    /// Whether something here is on a network, so that it cannot go.
    pub fn uses(&self, id: NetworkId) -> bool {
        let mut running = self.containers.values().filter(|container| container.is_running());
        let guest = self.guests.keys().any(|(_, network)| *network == id);
        guest || running.any(|container| container.addresses().any(|(network, _)| network == id))
    }

    /// Its server of names learns what to answer.
    pub fn learn_records(&mut self, network: NetworkId, change: RecordChange) {
        match change {
            RecordChange::All(all) => drop(self.records.insert(network, all)),
            RecordChange::Changed { update, services, guests } => {
                let known = self.records.entry(network).or_default();
                known.services.retain(|id, _| !services.contains(id));
                known.guests.retain(|id, _| !guests.contains(id));
                known.services.extend(update.services);
                known.guests.extend(update.guests);
            }
        }
    }

    /// Where clients on this node are sent when they ask for a service, by its published ports or its names.
    pub fn sends(&self, ingress: Option<NetworkId>) -> Vec<(ServiceId, Place)> {
        let ports = self.served.values().flat_map(|endpoint| {
            endpoint.backends.iter().filter_map(|address| Some((endpoint.service, (ingress?, *address))))
        });
        let records = self.records.iter().filter(|(network, _)| self.uses(**network));
        let records = records.flat_map(|(network, records)| {
            let places = move |task: &skep_types::assignment::TaskAddress| (*network, task.address);
            let of = move |(id, record): (&ServiceId, &skep_types::assignment::ServiceRecord)| {
                let id = *id;
                record.tasks.iter().map(move |task| (id, places(task))).collect::<Vec<_>>()
            };
            records.services.iter().flat_map(of)
        });
        ports.chain(records).collect()
    }

    /// Whether a service's published ports or names lead to one of these places.
    pub fn sends_to(&self, service: ServiceId, ingress: Option<NetworkId>, place: Place) -> bool {
        let published = || self.served.get(&service).is_some_and(|it| it.backends.contains(&place.1));
        let record = || self.records.get(&place.0).and_then(|records| records.services.get(&service));
        let leads = || record().is_some_and(|record| record.tasks.iter().any(|task| task.address == place.1));
        // Nobody asks on a network that nothing here is on.
        let named = || leads() && self.uses(place.0);
        if ingress == Some(place.0) { published() } else { named() }
    }

    /// What its daemon says of its guests.
    pub fn stays(&self) -> BTreeMap<ContainerId, Stay> {
        let mut on: BTreeMap<ContainerId, BTreeSet<NetworkId>> = BTreeMap::new();
        for (container, network) in self.guests.keys() {
            on.entry(*container).or_default().insert(*network);
        }
        on.into_iter().map(|(container, networks)| (container, Stay::On(networks))).collect()
    }

    /// Its kernel learns where addresses are.
    pub fn learn_peers(&mut self, network: NetworkId, change: PeerChange) {
        let (update, remove) = match change {
            PeerChange::All(all) => {
                self.peers.retain(|(of, _), _| *of != network);
                (all, Default::default())
            }
            PeerChange::Changed { update, remove } => (update, remove),
        };
        for address in remove {
            self.peers.remove(&(network, address));
        }
        self.peers.extend(update.into_iter().map(|(address, host)| ((network, address), host)));
    }

    /// The daemon writes down what it is told.
    pub fn remember(&mut self, assignment: &Assignment) {
        match assignment {
            Assignment::Complete(duties) => {
                self.memory = Some(duties.iter().map(|duty| (duty.id(), duty.clone())).collect());
            }
            Assignment::Incremental { update, remove } => {
                let Some(memory) = &mut self.memory else { return };
                memory.extend(update.iter().map(|duty| (duty.id(), duty.clone())));
                for id in remove {
                    memory.remove(id);
                }
            }
        }
    }

    /// What a new daemon finds.
    pub fn found(&self) -> Recovered {
        let containers = self.containers.values().map(|container| {
            let observed = match container.state {
                Life::Created => Observed::Created,
                Life::Running => Observed::Running(1),
                Life::Ended { code, .. } => Observed::Exited(code),
            };
            (container.task.id, container.id, observed)
        });
        Recovered {
            containers: containers.collect(),
            networks: self.networks.keys().copied().collect(),
            endpoints: self.served.keys().copied().collect(),
        }
    }
}
