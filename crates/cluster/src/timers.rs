//! When to look at what again. The deadlines themselves are in the replicated objects; this is only the
//! order of those that lie ahead, found again by looking at everything once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_types::{NodeId, ServiceId, Time};

use crate::draining::RoundId;

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A slot: a restart's delay, an update's delay or monitoring.
    Slot(ServiceId, u64),
    /// A job's schedule.
    Schedule(ServiceId),
    /// A service whose load decides how many replicas it has.
    Autoscale(ServiceId),
    /// A node that was not heard of since this manager leads.
    Node(NodeId),
    /// A node that is down: nobody waits for its tasks after this.
    Orphans(NodeId),
    /// A manager's seat that was asked to be taken away: whether it was.
    Seat(NodeId),
    /// Tasks whose end waits for nodes that do not acknowledge.
    Tables(RoundId),
    /// The log refused a proposal.
    Retry,
}

/// The deadlines ahead.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Time, Timer)>,
    times: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Sets, moves or clears a deadline.
    pub fn set(&mut self, timer: Timer, time: Option<Time>) {
        let before = match time {
            Some(time) => self.times.insert(timer, time),
            None => self.times.remove(&timer),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, timer));
        }
        self.by_time.extend(time.map(|time| (time, timer)));
    }

    /// Whether a deadline lies ahead.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.times.contains_key(&timer)
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// The clock was set back by so much: nothing waits the longer for it.
    pub fn set_back(&mut self, by: Duration) {
        self.times.values_mut().for_each(|time| *time = *time - by);
        self.by_time = self.times.iter().map(|(timer, time)| (*time, *timer)).collect();
    }

    /// Takes one deadline that has come.
    pub fn take_due(&mut self, now: Time) -> Option<Timer> {
        let (time, timer) = *self.by_time.first()?;
        if time > now {
            return None;
        }
        self.set(timer, None);
        Some(timer)
    }
}
