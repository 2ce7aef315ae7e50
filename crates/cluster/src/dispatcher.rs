//! Telling agents what they are responsible for: everything once, then differences.
//!
//! An endpoint's change is ordered before the changes of the tasks behind it, so that no node sends
//! connections to a task that was told to stop. Where its backends are is ordered before the endpoint.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::assignment::{Assignment, Duty, DutyId, Peer};
use skep_types::{NodeId, TaskId};

use crate::Objects;
use crate::objects::{AddressKey, Place, Touched};

/// The open sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatcher {
    sessions: BTreeSet<NodeId>,
}

impl Dispatcher {
    /// Opens a session: the node is sent everything.
    pub fn open(&mut self, objects: &Objects, node: NodeId) -> Assignment {
        self.sessions.insert(node);
        let networks = objects.networks().cloned().map(Duty::Network);
        let overlay = objects.overlay_of(node).map(Duty::Overlay);
        let peers = objects.peers_of(node).map(Duty::Peer);
        let endpoints =
            objects.services().filter_map(|service| objects.endpoint(service.id)).map(Duty::Endpoint);
        let tasks = objects.tasks_on(node).map(|task| Duty::Task(Box::new(task.clone())));
        Assignment::Complete(networks.chain(overlay).chain(peers).chain(endpoints).chain(tasks).collect())
    }

    /// Ends a session: the node is sent nothing until it opens another.
    pub fn close(&mut self, node: NodeId) {
        self.sessions.remove(&node);
    }

    /// What an applied entry means for the nodes.
    pub fn differences(&self, objects: &Objects, touched: &Touched) -> Vec<(NodeId, Assignment)> {
        let networks = || objects.networks().cloned().map(Duty::Network);
        let networks: Vec<Duty> = touched.networks.then(networks).into_iter().flatten().collect();
        let moves = Moves::of(objects, touched);
        let mut everyone: Vec<Duty> = Vec::new();
        let mut gone: Vec<DutyId> = Vec::new();
        for id in &touched.endpoints {
            match objects.endpoint(*id) {
                Some(endpoint) => everyone.push(Duty::Endpoint(endpoint)),
                None => gone.push(DutyId::Endpoint(*id)),
            }
        }
        let mut of_node: BTreeMap<NodeId, (Vec<TaskId>, Vec<DutyId>)> = BTreeMap::new();
        for task in touched.duties.iter().filter_map(|id| objects.task(*id)) {
            if let Some(node) = task.node {
                of_node.entry(node).or_default().0.push(task.id);
            }
        }
        for (node, task) in &touched.forgotten {
            of_node.entry(*node).or_default().1.push(DutyId::Task(*task));
        }
        let mut sends = Vec::new();
        // Most entries concern a few nodes only.
        let for_all = !networks.is_empty() || !everyone.is_empty() || !gone.is_empty() || !moves.is_empty();
        let concerned =
            |node: &&NodeId| for_all || of_node.contains_key(node) || touched.overlays.contains_key(node);
        let nodes: Vec<NodeId> = self.sessions.iter().filter(concerned).copied().collect();
        for node in &nodes {
            if !gone.is_empty() {
                // On its own and first: an assignment's removals come after its updates.
                sends.push((*node, Assignment::Incremental { update: Vec::new(), remove: gone.clone() }));
            }
            let mut update = networks.clone();
            let (tasks, mut remove) = of_node.remove(node).unwrap_or_default();
            // Where backends are comes before the endpoints that send to them.
            moves.tell(objects, touched, *node, &mut update, &mut remove);
            update.extend(everyone.iter().cloned());
            let tasks = tasks.into_iter().filter_map(|id| objects.task(id));
            update.extend(tasks.map(|task| Duty::Task(Box::new(task.clone()))));
            if !update.is_empty() || !remove.is_empty() {
                sends.push((*node, Assignment::Incremental { update, remove }));
            }
        }
        sends
    }
}

/// Addresses that an entry moved: where they were, and where they are.
struct Moves(Vec<(AddressKey, Option<Place>, Option<Place>)>);

impl Moves {
    fn of(objects: &Objects, touched: &Touched) -> Moves {
        let moves = touched.places.iter().map(|(key, before)| (*key, *before, objects.place(*key)));
        Moves(moves.filter(|(_, before, after)| before != after).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they mean for one node, which is told of addresses on other nodes alone, and of its own place. Every node
    /// serves the ports of all services, so each is told of all.
    fn tell(
        &self,
        objects: &Objects,
        touched: &Touched,
        node: NodeId,
        update: &mut Vec<Duty>,
        remove: &mut Vec<DutyId>,
    ) {
        if let Some(before) = touched.overlays.get(&node) {
            let after = objects.overlay_of(node);
            match (before, after) {
                (before, after) if *before == after => {}
                (_, Some(overlay)) => update.push(Duty::Overlay(overlay)),
                (Some(before), None) => remove.push(DutyId::Overlay(before.network)),
                (None, None) => {}
            }
        }
        let elsewhere = |place: &Option<Place>| {
            place.filter(|place| place.node != node).map(|place| (place.host, place.via))
        };
        for ((network, address), before, after) in &self.0 {
            let (network, address) = (*network, *address);
            match (elsewhere(before), elsewhere(after)) {
                (before, after) if before == after => {}
                (_, Some((host, via))) => update.push(Duty::Peer(Peer { network, address, host, via })),
                (_, None) => remove.push(DutyId::Peer(network, address)),
            }
        }
    }
}
