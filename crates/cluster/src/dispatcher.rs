//! Telling agents what they are responsible for: everything once, then differences.
//!
//! A change of the tables that clients find tasks by comes before the ends of the tasks that it takes out, on the
//! tasks' nodes and on all others, so that no node sends connections to a task that was told to stop. Where a table's
//! backends are is ordered before the table.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::assignment::{Assignment, Duty, DutyId};
use skep_types::{NodeId, Task, TaskId, TaskState};

use crate::draining::{Draining, RoundId};
use crate::objects::{Touched, is_live, is_wanted};
use crate::{Objects, tables};

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
    /// Nodes that may have tables of a former leader's.
    unknown: BTreeSet<NodeId>,
    draining: Draining,
}

impl Dispatcher {
    /// A manager begins to lead. What the tables of these nodes are nobody knows: tasks whose end its predecessor may
    /// have held back wait for all of them.
    pub fn begin(&mut self, objects: &Objects, nodes: &BTreeSet<NodeId>) -> Option<RoundId> {
        let ends = objects.tasks().filter(|task| task.status.state == TaskState::Running && !is_wanted(task));
        let tasks = ends.filter(|task| is_worth_waiting(objects, task)).map(|task| task.id).collect();
        let number = objects.applied();
        self.unknown.clone_from(nodes);
        self.draining.hold(tasks, nodes.iter().map(|node| (*node, number)).collect())
    }

    /// Opens a session: the node is sent everything.
    pub fn open(&mut self, objects: &Objects, node: NodeId) -> Assignment {
        self.unknown.remove(&node);
        self.sessions.insert(node, Session { told: objects.applied(), acknowledged: 0 });
        let duties = tables::all(objects, node);
        let tasks = objects.tasks_on(node).map(|task| {
            let mut task = Box::new(task.clone());
            if self.draining.holds(task.id) {
                task.desired = task.goal();
            }
            Duty::Task(task)
        });
        Assignment::Complete(duties.into_iter().chain(tasks).collect())
    }

    /// Ends a session: the node is sent nothing until it opens another, and is not waited for.
    pub fn close(&mut self, node: NodeId) {
        self.unknown.remove(&node);
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
        let sessions = self.sessions.keys().copied();
        let mut of_node =
            tables::differences(objects, touched, |node| self.sessions.contains_key(&node), sessions);
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

    /// Holds back the ends of the tasks that an entry took out of tables, until all nodes' tables are as they were told.
    fn hold(&mut self, objects: &Objects, touched: &Touched) -> Option<RoundId> {
        let ended: Vec<TaskId> =
            self.draining.held().filter(|id| objects.task(*id).is_none_or(|task| !is_live(task))).collect();
        for task in ended {
            self.draining.release(task);
        }
        let left = touched.left.iter().filter_map(|id| objects.task(*id));
        let tasks: BTreeSet<TaskId> =
            left.filter(|task| is_worth_waiting(objects, task)).map(|task| task.id).collect();
        if tasks.is_empty() {
            return None;
        }
        let behind = self.sessions.iter().filter(|(_, session)| session.acknowledged < session.told);
        let behind = behind.map(|(node, session)| (*node, session.told));
        let unknown = self.unknown.iter().map(|node| (*node, objects.applied()));
        self.draining.hold(tasks, behind.chain(unknown).collect())
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
