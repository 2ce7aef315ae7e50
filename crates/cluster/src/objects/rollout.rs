//! How far a rolling update is, and how often a slot was restarted: what a new leader must not forget.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skep_types::service::RestartPolicy;
use skep_types::{TaskId, Time, Version};

/// A rolling update that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Slots that were out of date when it began.
    pub slots: u64,
    /// Tasks of its making that ended too early.
    pub failures: u64,
    /// Tasks of its making that hold one of its parallel places: not running yet, or within the delay.
    pub holding: BTreeSet<TaskId>,
    /// Tasks of its making that have not proven themselves.
    pub watched: BTreeMap<TaskId, Watch>,
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
    /// A rolling update over so many slots.
    pub fn over(slots: u64) -> Rollout {
        Rollout { slots, ..Rollout::default() }
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
