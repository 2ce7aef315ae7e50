//! When delays end, whoever's clock they began by.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_types::{ServiceId, Task, TaskId, Time};

/// What the leader remembers of moments that were recorded by a clock ahead of its own: another leader's, or its
/// own before it was set back. Each is taken to be when the leader first saw it, so that no delay lasts longer than
/// from then on anew. SwarmKit bounds the restart delays that a new leader finds in the same way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delays {
    seen: BTreeMap<(ServiceId, u64), BTreeMap<(TaskId, Time), Time>>,
}

impl Delays {
    /// When a delay ends that began at `recorded` with something that happened to a task.
    pub fn end(&mut self, task: &Task, recorded: Time, delay: Duration, now: Time) -> Time {
        let slot = (task.service, task.slot);
        let seen = self.seen.get(&slot).and_then(|seen| seen.get(&(task.id, recorded))).copied();
        let began = match seen {
            Some(seen) => seen.min(recorded),
            None if recorded <= now => recorded,
            None => {
                self.seen.entry(slot).or_default().insert((task.id, recorded), now);
                now
            }
        };
        began + delay
    }

    /// The end of a restart's delay, if the task has to wait for it still.
    pub fn restart(&mut self, task: &Task, now: Time) -> Option<Time> {
        // It began when the task was made.
        let begin = task.meta.created_at;
        let end = self.end(task, begin, task.not_before?.since(begin), now);
        (end > now).then_some(end)
    }

    /// Forgets a slot in which nothing waits.
    pub fn forget(&mut self, slot: (ServiceId, u64)) {
        self.seen.remove(&slot);
    }

    /// The clock was set back by so much.
    pub fn set_back(&mut self, by: Duration) {
        self.seen.values_mut().flat_map(BTreeMap::values_mut).for_each(|seen| *seen = *seen - by);
    }
}
