//! Tables before tasks: a task that served is told to end only when no node sends new connections to it any more.
//!
//! That is so once every node that was told of the change of its tables has acknowledged it, or after a while: a node
//! that does not answer would keep the task for ever. What is held back is in nobody's log. A new leader cannot know
//! what its predecessor waited for, and waits for all nodes once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_types::{NodeId, TaskId};

/// How long a task's end waits for nodes that do not acknowledge.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Names a [`Round`].
pub(crate) type RoundId = u64;

/// Tasks that wait for the same nodes.
#[derive(Clone, Debug)]
struct Round {
    /// With the number of the assignment that each has to acknowledge.
    waits_for: BTreeMap<NodeId, u64>,
    tasks: BTreeSet<TaskId>,
}

/// The tasks whose end is held back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining {
    rounds: BTreeMap<RoundId, Round>,
    round_of: BTreeMap<TaskId, RoundId>,
    last: RoundId,
    /// Held back no longer, and not told yet.
    released: BTreeSet<TaskId>,
}

impl Draining {
    /// Holds tasks back until these nodes have acknowledged these assignments. Gives the round, if anything waits: it
    /// is to be ended after [`PATIENCE`].
    pub fn hold(&mut self, tasks: BTreeSet<TaskId>, waits_for: BTreeMap<NodeId, u64>) -> Option<RoundId> {
        if tasks.is_empty() || waits_for.is_empty() {
            return None;
        }
        self.last += 1;
        self.round_of.extend(tasks.iter().map(|task| (*task, self.last)));
        self.rounds.insert(self.last, Round { waits_for, tasks });
        Some(self.last)
    }

    /// Whether a task's node must not hear of its end yet.
    pub fn holds(&self, task: TaskId) -> bool {
        self.round_of.contains_key(&task)
    }

    /// The tasks that are held back.
    pub fn held(&self) -> impl Iterator<Item = TaskId> {
        self.round_of.keys().copied()
    }

    /// A node has acknowledged an assignment and all before it.
    pub fn acknowledge(&mut self, node: NodeId, number: u64) {
        self.settle(|round| {
            if round.waits_for.get(&node).is_some_and(|wanted| *wanted <= number) {
                round.waits_for.remove(&node);
            }
        });
    }

    /// A node is lost: what it sends to whom is not to be waited for.
    pub fn forget_node(&mut self, node: NodeId) {
        self.settle(|round| {
            round.waits_for.remove(&node);
        });
    }

    fn settle(&mut self, mut change: impl FnMut(&mut Round)) {
        self.rounds.values_mut().for_each(&mut change);
        let done = self.rounds.iter().filter(|(_, round)| round.waits_for.is_empty()).map(|(id, _)| *id);
        for id in done.collect::<Vec<_>>() {
            self.end(id);
        }
    }

    /// Nothing of a round is held back any longer.
    pub fn end(&mut self, id: RoundId) {
        let Some(round) = self.rounds.remove(&id) else { return };
        for task in round.tasks {
            self.round_of.remove(&task);
            self.released.insert(task);
        }
    }

    /// A task is held back no longer: it has ended, or is forgotten.
    pub fn release(&mut self, task: TaskId) {
        let Some(id) = self.round_of.remove(&task) else { return };
        self.released.insert(task);
        if let Some(round) = self.rounds.get_mut(&id) {
            round.tasks.remove(&task);
            if round.tasks.is_empty() {
                self.rounds.remove(&id);
            }
        }
    }

    /// Takes those that are to be told of their end now.
    pub fn take_released(&mut self) -> BTreeSet<TaskId> {
        std::mem::take(&mut self.released)
    }
}
