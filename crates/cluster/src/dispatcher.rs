//! Telling agents what they are responsible for: everything once, then differences.
//!
//! A change of the tables that clients find tasks by comes before the ends of the tasks that it takes out, on the
//! tasks' nodes and on all others, so that no node sends connections to a task that was told to stop. Where a table's
//! backends are is ordered before the table.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::assignment::{Assignment, Duty, DutyId, Peer};
use skep_types::{NodeId, Task, TaskId, TaskState};

use crate::Objects;
use crate::draining::{Draining, RoundId};
use crate::objects::{AddressKey, Place, Touched, is_live, is_wanted};

/// What a node was told in its session.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    /// The number of the last assignment that may have changed tables.
    told: u64,
    /// That of the last one that was acknowledged.
    acknowledged: u64,
}

/// The open sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatcher {
    sessions: BTreeMap<NodeId, Session>,
    draining: Draining,
}

/// A node's part of an entry: new or changed duties, and those that are gone.
type Difference = (Vec<Duty>, Vec<DutyId>);

impl Dispatcher {
    /// A manager begins to lead. What the tables of these nodes are nobody knows: tasks whose end its predecessor may
    /// have held back wait for all of them.
    pub fn begin(&mut self, objects: &Objects, nodes: &BTreeSet<NodeId>) -> Option<RoundId> {
        let ends = objects.tasks().filter(|task| task.status.state == TaskState::Running && !is_wanted(task));
        let tasks = ends.filter(|task| is_worth_waiting(objects, task)).map(|task| task.id).collect();
        let number = objects.applied();
        self.draining.hold(tasks, nodes.iter().map(|node| (*node, number)).collect())
    }

    /// Opens a session: the node is sent everything.
    pub fn open(&mut self, objects: &Objects, node: NodeId) -> Assignment {
        self.sessions.insert(node, Session { told: objects.applied(), acknowledged: 0 });
        let networks = objects.networks().cloned().map(Duty::Network);
        let overlay = objects.overlay_of(node).map(Duty::Overlay);
        let peers = objects.peers_of(node).map(Duty::Peer);
        let endpoints =
            objects.services().filter_map(|service| objects.endpoint(service.id)).map(Duty::Endpoint);
        let tasks = objects.tasks_on(node).map(|task| {
            let mut task = Box::new(task.clone());
            if self.draining.holds(task.id) {
                task.desired = TaskState::Running;
            }
            Duty::Task(task)
        });
        Assignment::Complete(networks.chain(overlay).chain(peers).chain(endpoints).chain(tasks).collect())
    }

    /// Ends a session: the node is sent nothing until it opens another, and is not waited for.
    pub fn close(&mut self, node: NodeId) {
        self.sessions.remove(&node);
        self.draining.forget_node(node);
    }

    /// A node's tables are as that assignment says, or newer.
    pub fn acknowledge(&mut self, node: NodeId, number: u64) {
        if let Some(session) = self.sessions.get_mut(&node) {
            session.acknowledged = session.acknowledged.max(number);
        }
        self.draining.acknowledge(node, number);
    }

    /// Waits no longer for those who have not acknowledged.
    pub fn give_up(&mut self, round: RoundId) {
        self.draining.end(round);
    }

    /// What an applied entry means for the nodes. The ends of tasks that clients were sent to until now are held back;
    /// gives the round in which they are, if they have to wait.
    pub fn differences(
        &mut self,
        objects: &Objects,
        touched: &Touched,
    ) -> (Vec<(NodeId, Assignment)>, Option<RoundId>) {
        let mut of_node = self.tables(objects, touched);
        for (node, (update, remove)) in &of_node {
            let table = update.iter().any(|duty| duty.id().is_table()) || remove.iter().any(DutyId::is_table);
            if let Some(session) = self.sessions.get_mut(node).filter(|_| table) {
                session.told = objects.applied();
            }
        }
        let round = self.hold(objects, touched);
        for task in touched.duties.iter().filter_map(|id| objects.task(*id)) {
            let node = task.node.filter(|node| self.sessions.contains_key(node));
            if let Some(node) = node.filter(|_| !self.draining.holds(task.id)) {
                of_node.entry(node).or_default().0.push(Duty::Task(Box::new(task.clone())));
            }
        }
        for (node, task) in &touched.forgotten {
            if self.sessions.contains_key(node) {
                of_node.entry(*node).or_default().1.push(DutyId::Task(*task));
            }
        }
        let sends = of_node
            .into_iter()
            .map(|(node, (update, remove))| (node, Assignment::Incremental { update, remove }));
        (sends.collect(), round)
    }

    /// What an entry changed besides tasks.
    fn tables(&self, objects: &Objects, touched: &Touched) -> BTreeMap<NodeId, Difference> {
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
        // Most entries concern a few nodes only.
        let for_all = !networks.is_empty() || !everyone.is_empty() || !gone.is_empty() || !moves.is_empty();
        let concerned = |node: &&NodeId| for_all || touched.overlays.contains_key(node);
        let mut of_node = BTreeMap::new();
        for node in self.sessions.keys().filter(concerned) {
            let (mut update, mut remove) = (networks.clone(), gone.clone());
            // Where backends are comes before the endpoints that send to them.
            moves.tell(objects, touched, *node, &mut update, &mut remove);
            update.extend(everyone.iter().cloned());
            if !update.is_empty() || !remove.is_empty() {
                of_node.insert(*node, (update, remove));
            }
        }
        of_node
    }

    /// Holds back the ends of the tasks that an entry took out of tables, until all nodes' tables are as they were told.
    fn hold(&mut self, objects: &Objects, touched: &Touched) -> Option<RoundId> {
        let ended: Vec<TaskId> =
            self.draining.held().filter(|id| objects.task(*id).is_none_or(|task| !is_live(task))).collect();
        for task in ended {
            self.draining.release(task);
        }
        let left = touched.left.iter().filter_map(|id| objects.task(*id));
        let tasks = left.filter(|task| is_worth_waiting(objects, task)).map(|task| task.id).collect();
        let behind = self.sessions.iter().filter(|(_, session)| session.acknowledged < session.told);
        self.draining.hold(tasks, behind.map(|(node, session)| (*node, session.told)).collect())
    }

    /// The ends that are held back no longer.
    pub fn released(&mut self, objects: &Objects) -> Vec<(NodeId, Assignment)> {
        let mut of_node: BTreeMap<NodeId, Vec<Duty>> = BTreeMap::new();
        for task in self.draining.take_released().into_iter().filter_map(|id| objects.task(id)) {
            if let Some(node) = task.node.filter(|node| self.sessions.contains_key(node)) {
                of_node.entry(node).or_default().push(Duty::Task(Box::new(task.clone())));
            }
        }
        let remove = Vec::new;
        let told = |(node, update)| (node, Assignment::Incremental { update, remove: remove() });
        of_node.into_iter().map(told).collect()
    }
}

/// Whether clients lose something when a task ends that served until now. On a node that is lost nobody knows.
fn is_worth_waiting(objects: &Objects, task: &Task) -> bool {
    let lost = task.node.is_none_or(|node| objects.is_lost(node));
    is_live(task) && !task.attachments.is_empty() && !lost
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
