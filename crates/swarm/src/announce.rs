//! Events of the swarm's scope: what `docker events` shows of committed changes. Moby's
//! daemon/events.go (`logNodeEvent`, `logServiceEvent`, `logNetworkEvent`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use skep_cluster::{Change, Objects};
use skep_types::events::{Event, EventKind, Scope};
use skep_types::node::{Availability, Node, NodeState};
use skep_types::service::{Service, ServiceMode};
use skep_types::{NodeId, ServiceId, Time};
use tokio::sync::broadcast;

/// Events that are remembered for those who ask for the past. Moby's `eventsLimit`.
const MEMORY: usize = 256;

/// Tells subscribers what changed. Clones share subscribers and memory.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    past: VecDeque<Event>,
    future: broadcast::Sender<Event>,
}

/// The objects that a proposal touches, as they were.
#[derive(Debug, Default)]
pub(crate) struct Before {
    services: BTreeMap<ServiceId, Option<Service>>,
    nodes: BTreeMap<NodeId, Option<Node>>,
    networks: BTreeMap<skep_types::NetworkId, Option<String>>,
}

impl Announcer {
    /// One without subscribers.
    pub(crate) fn new() -> Announcer {
        let (future, _) = broadcast::channel(MEMORY);
        Announcer { shared: Arc::new(Mutex::new(Shared { past: VecDeque::new(), future })) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics while it holds the events")
    }

    /// What is remembered since `since` (nothing for `None`), and what comes.
    pub(crate) fn subscribe(&self, since: Option<Time>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let shared = self.lock();
        let wanted = |event: &&Event| since.is_some_and(|since| event.time >= since);
        let past = shared.past.iter().filter(wanted).cloned().collect();
        (past, shared.future.subscribe())
    }

    /// Notes what `changes` are about to change.
    pub(crate) fn before(&self, objects: &Objects, changes: &[Change]) -> Before {
        let mut before = Before::default();
        for change in changes {
            if let Some(id) = service_of(change) {
                before.services.entry(id).or_insert_with(|| objects.service(id).cloned());
            }
            match change {
                Change::PutNode(node) => {
                    before.nodes.entry(node.id).or_insert_with(|| objects.node(node.id).cloned());
                }
                Change::RemoveNode(id) => {
                    before.nodes.entry(*id).or_insert_with(|| objects.node(*id).cloned());
                }
                Change::PutNetwork(network) => {
                    let name = || objects.network(network.id).map(|network| network.name.clone());
                    before.networks.entry(network.id).or_insert_with(name);
                }
                Change::RemoveNetwork(id) => {
                    let name = || objects.network(*id).map(|network| network.name.clone());
                    before.networks.entry(*id).or_insert_with(name);
                }
                Change::PutCluster(_)
                | Change::PutService(_)
                | Change::RemoveService(_)
                | Change::Update { .. }
                | Change::Scale { .. }
                | Change::CreateTask(_)
                | Change::Allocate { .. }
                | Change::Assign { .. }
                | Change::SetDesired { .. }
                | Change::SetStatus { .. }
                | Change::RemoveTask(_)
                | Change::Move { .. }
                | Change::PutGuest(_)
                | Change::RemoveGuests(_) => {}
            }
        }
        before
    }

    /// Tells what a committed proposal changed.
    pub(crate) fn announce(&self, before: Before, objects: &Objects, now: Time) {
        for (id, network) in before.networks {
            let after = objects.network(id).map(|network| network.name.clone());
            let action = match (&network, &after) {
                (None, Some(_)) => "create",
                (Some(_), None) => "remove",
                (Some(_), Some(_)) => "update",
                (None, None) => continue,
            };
            let name = after.or(network).unwrap_or_default();
            let attributes = BTreeMap::from([("name".to_owned(), name)]);
            self.tell(EventKind::Network, action, id.to_string(), attributes, now);
        }
        for (id, node) in before.nodes {
            if let Some((action, attributes)) = node_event(node.as_ref(), objects.node(id)) {
                self.tell(EventKind::Node, action, id.to_string(), attributes, now);
            }
        }
        for (id, service) in before.services {
            if let Some((action, attributes)) = service_event(service.as_ref(), objects.service(id)) {
                self.tell(EventKind::Service, action, id.to_string(), attributes, now);
            }
        }
    }

    fn tell(
        &self,
        kind: EventKind,
        action: &str,
        id: String,
        attributes: BTreeMap<String, String>,
        time: Time,
    ) {
        let event = Event { kind, action: action.to_owned(), id, attributes, scope: Scope::Swarm, time };
        let mut shared = self.lock();
        if shared.past.len() == MEMORY {
            shared.past.pop_front();
        }
        shared.past.push_back(event.clone());
        // Nobody may listen.
        let _ = shared.future.send(event);
    }
}

fn service_of(change: &Change) -> Option<ServiceId> {
    match change {
        Change::PutService(service) => Some(service.id),
        Change::RemoveService(id) => Some(*id),
        Change::Update { service, .. } | Change::Scale { service, .. } => Some(*service),
        Change::PutCluster(_)
        | Change::PutNode(_)
        | Change::RemoveNode(_)
        | Change::PutNetwork(_)
        | Change::RemoveNetwork(_)
        | Change::CreateTask(_)
        | Change::Allocate { .. }
        | Change::Assign { .. }
        | Change::SetDesired { .. }
        | Change::SetStatus { .. }
        | Change::RemoveTask(_)
        | Change::Move { .. }
        | Change::PutGuest(_)
        | Change::RemoveGuests(_) => None,
    }
}

type Told = (&'static str, BTreeMap<String, String>);

/// Notes `key.old` and `key.new` when the two differ.
fn note(attributes: &mut BTreeMap<String, String>, key: &str, old: &str, new: &str) {
    if old != new {
        attributes.insert(format!("{key}.old"), old.to_owned());
        attributes.insert(format!("{key}.new"), new.to_owned());
    }
}

fn service_event(before: Option<&Service>, after: Option<&Service>) -> Option<Told> {
    let name = |service: &Service| BTreeMap::from([("name".to_owned(), service.spec.name.clone())]);
    match (before, after) {
        (None, Some(service)) => Some(("create", name(service))),
        (Some(service), None) => Some(("remove", name(service))),
        (Some(old), Some(new)) => {
            let mut attributes = name(new);
            if let (
                ServiceMode::Replicated { replicas: replicas_old },
                ServiceMode::Replicated { replicas: replicas_new },
            ) = (old.spec.mode, new.spec.mode)
            {
                note(&mut attributes, "replicas", &replicas_old.to_string(), &replicas_new.to_string());
            }
            if let Some(scaled) = new.scaled.as_ref().filter(|_| old.scaled != new.scaled) {
                attributes.insert("autoscale".to_owned(), scaled.reason.clone());
            }
            let state = |service: &Service| {
                service.update_status.as_ref().map(|status| status.state.name()).unwrap_or_default()
            };
            note(&mut attributes, "updatestate", state(old), state(new));
            // Progress of an update that a user would not see is not told.
            let same_spec = old.spec == new.spec;
            let told = !same_spec || attributes.len() > 1;
            told.then_some(("update", attributes))
        }
        (None, None) => None,
    }
}

fn node_event(before: Option<&Node>, after: Option<&Node>) -> Option<Told> {
    let name = |node: &Node| BTreeMap::from([("name".to_owned(), node.description.hostname.clone())]);
    match (before, after) {
        (None, Some(node)) => Some(("create", name(node))),
        (Some(node), None) => Some(("remove", name(node))),
        (Some(old), Some(new)) => {
            let mut attributes = name(new);
            let state = |node: &Node| match node.state {
                NodeState::Unknown => "unknown",
                NodeState::Down => "down",
                NodeState::Ready => "ready",
            };
            let availability = |node: &Node| match node.spec.availability {
                Availability::Active => "active",
                Availability::Pause => "pause",
                Availability::Drain => "drain",
            };
            note(&mut attributes, "state", state(old), state(new));
            note(&mut attributes, "availability", availability(old), availability(new));
            let told = old.spec != new.spec || attributes.len() > 1;
            told.then_some(("update", attributes))
        }
        (None, None) => None,
    }
}
