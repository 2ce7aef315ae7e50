//! How far a rolling update is, how often a slot was restarted, and where tasks failed: what a new leader must not
//! forget.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_types::service::RestartPolicy;
use skep_types::{NodeId, TaskId, Time, Version};

/// A rolling update that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Slots that were out of date, or still being renewed, when it began; 0 until then.
    pub slots: u64,
    /// Tasks of its making that ended too early.
    pub failures: u64,
    /// Tasks of its making that hold one of its parallel places: not running yet, or within the delay.
    pub holding: BTreeSet<TaskId>,
    /// Tasks of its making that have not proven themselves.
    pub watched: BTreeMap<TaskId, Watch>,
    /// The task whose failure was one too many: the service is to go back to what it was.
    #[serde(default)]
    pub given_up: Option<TaskId>,
}

/// What is known of a task that a rolling update made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watch {
    /// It does not run yet.
    Starting,
    /// It came to run at this time.
    Ran(Time),
    /// It ended too early, at this time; only its place is still held.
    Failed(Time),
}

impl Rollout {
    /// What is left of it when another specification supersedes it: the tasks that are to run still and are
    /// `current` in the new one too. Their places stay taken, and the next update watches them as its own.
    pub fn superseded(&self, current: impl Fn(TaskId) -> bool) -> Option<Rollout> {
        let starting = self.watched.iter().filter(|(_, watch)| **watch == Watch::Starting);
        let mut left = Rollout::default();
        starting.map(|(task, _)| *task).filter(|task| current(*task)).for_each(|task| left.watch(task));
        (!left.is_idle()).then_some(left)
    }

    /// Whether it has begun: until then it only holds what an earlier one left.
    pub fn has_begun(&self) -> bool {
        self.slots > 0
    }

    /// Whether it watches nothing and has not begun, so that nothing would be lost with it.
    pub fn is_idle(&self) -> bool {
        !self.has_begun() && self.watched.is_empty()
    }

    /// Begins to watch a task.
    pub fn watch(&mut self, task: TaskId) {
        self.holding.insert(task);
        self.watched.insert(task, Watch::Starting);
    }

    /// Stops watching a task.
    pub fn forget(&mut self, task: TaskId) {
        self.holding.remove(&task);
        self.watched.remove(&task);
    }
}

/// The restarts of one slot under one specification. Kept only where the policy bounds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartHistory {
    /// The specification; another one starts from nothing.
    pub spec_version: Version,
    /// All restarts.
    pub total: u64,
    /// Their times, if the policy has a window; older ones than it are dropped.
    pub times: Vec<Time>,
}

impl RestartHistory {
    /// Counts a restart of a task of `spec_version`.
    pub fn record(&mut self, spec_version: Version, policy: &RestartPolicy, at: Time) {
        if self.spec_version != spec_version {
            *self = RestartHistory { spec_version, ..RestartHistory::default() };
        }
        self.total += 1;
        if !policy.window.is_zero() {
            let oldest = at - policy.window;
            self.times.retain(|time| *time > oldest);
            // By another leader's clock some may lie ahead; they would count for longer than the window.
            self.times.iter_mut().for_each(|time| *time = (*time).min(at));
            self.times.push(at);
        }
    }

    /// Restarts that count at `now` under `policy`.
    pub fn counted(&self, policy: &RestartPolicy, now: Time) -> u64 {
        if policy.window.is_zero() {
            return self.total;
        }
        let oldest = now - policy.window;
        self.times.iter().filter(|time| **time > oldest).count() as u64
    }
}

/// Time over which a service's failures on a node deter from it: SwarmKit's.
const FAILURES_WINDOW: Duration = Duration::from_secs(5 * 60);
/// Failures within that time that deter: SwarmKit's.
const MANY_FAILURES: usize = 5;
/// Failures of a service on a node that are remembered: more deter no more than so many.
const MAX_FAILURES: usize = 32;

/// Where tasks of one service failed of late, under one specification. In SwarmKit only the leader knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// The specification; another one starts from nothing.
    pub spec_version: Version,
    /// The times of the failures on each node, rising.
    pub times: BTreeMap<NodeId, Vec<Time>>,
}

impl Failures {
    /// Counts the failure of a task.
    pub fn record(&mut self, spec_version: Version, node: NodeId, at: Time) {
        if spec_version < self.spec_version {
            return;
        }
        if spec_version > self.spec_version {
            *self = Failures { spec_version, ..Failures::default() };
        }
        let times = self.times.entry(node).or_default();
        let oldest = at - FAILURES_WINDOW;
        times.retain(|time| *time > oldest);
        // By another leader's clock some may lie ahead; they would count for longer than the window.
        times.iter_mut().for_each(|time| *time = (*time).min(at));
        times.push(at);
        let excess = times.len().saturating_sub(MAX_FAILURES);
        times.drain(..excess);
    }

    /// How many failures deter from a node; 0 where there were few.
    pub fn deterrent(&self, node: NodeId, now: Time) -> u64 {
        let Some(times) = self.times.get(&node) else { return 0 };
        let oldest = now - FAILURES_WINDOW;
        let recent = times.iter().filter(|time| **time > oldest).count();
        if recent >= MANY_FAILURES { recent as u64 } else { 0 }
    }
}
