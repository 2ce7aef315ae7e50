//! Telling agents what they are responsible for: everything once, then differences.
//!
//! An endpoint's change is ordered before the changes of the tasks behind it, so that no node sends
//! connections to a task that was told to stop.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::assignment::{Assignment, Duty, DutyId};
use skep_types::{NodeId, TaskId};

use crate::Objects;
use crate::objects::Touched;

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
        let endpoints =
            objects.services().filter_map(|service| objects.endpoint(service.id)).map(Duty::Endpoint);
        let tasks = objects.tasks_on(node).map(|task| Duty::Task(Box::new(task.clone())));
        Assignment::Complete(networks.chain(endpoints).chain(tasks).collect())
    }

    /// Ends a session: the node is sent nothing until it opens another.
    pub fn close(&mut self, node: NodeId) {
        self.sessions.remove(&node);
    }

    /// What an applied entry means for the nodes.
    pub fn differences(&self, objects: &Objects, touched: &Touched) -> Vec<(NodeId, Assignment)> {
        let mut everyone: Vec<Duty> = Vec::new();
        if touched.networks {
            everyone.extend(objects.networks().cloned().map(Duty::Network));
        }
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
        let concerned =
            |node: &&NodeId| !everyone.is_empty() || !gone.is_empty() || of_node.contains_key(node);
        let nodes: Vec<NodeId> = self.sessions.iter().filter(concerned).copied().collect();
        for node in &nodes {
            if !gone.is_empty() {
                // On its own and first: an assignment's removals come after its updates.
                sends.push((*node, Assignment::Incremental { update: Vec::new(), remove: gone.clone() }));
            }
            let (tasks, remove) = of_node.remove(node).unwrap_or_default();
            let tasks = tasks.into_iter().filter_map(|id| objects.task(id));
            let tasks = tasks.map(|task| Duty::Task(Box::new(task.clone())));
            let update: Vec<Duty> = everyone.iter().cloned().chain(tasks).collect();
            if !update.is_empty() || !remove.is_empty() {
                sends.push((*node, Assignment::Incremental { update, remove }));
            }
        }
        sends
    }
}
