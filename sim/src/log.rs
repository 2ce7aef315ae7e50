//! The manager's log, as its contract says: ordered, durable once acknowledged; what was in flight at a
//! crash may have become durable or not.

use skep_cluster::{Change, Objects, Snapshot};

/// Entries between snapshots.
const SNAPSHOT_EVERY: usize = 200;

/// What is on the manager's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    snapshot: Option<Vec<u8>>,
    entries: Vec<(u64, Vec<u8>)>,
    last: u64,
}

impl Log {
    /// Makes an entry durable, and gives its position. Positions rise but have gaps, as a real log's
    /// own entries leave them.
    pub fn append(&mut self, changes: &[Change], gap: u64) -> u64 {
        self.last += 1 + gap;
        let bytes = rmp_serde::to_vec_named(changes).expect("changes are plain data");
        self.entries.push((self.last, bytes));
        self.last
    }

    /// Forgets the youngest entries, which no log may do once they are acknowledged. Several: the loss of
    /// a status alone is made good by the agents, who tell it again.
    pub fn forget_youngest(&mut self) {
        self.entries.truncate(self.entries.len().saturating_sub(10));
    }

    /// Replaces the entries by a snapshot of what they gave, now and then.
    pub fn compact(&mut self, objects: &Objects) {
        if self.entries.len() >= SNAPSHOT_EVERY {
            let bytes = rmp_serde::to_vec_named(&objects.snapshot()).expect("objects are plain data");
            self.snapshot = Some(bytes);
            self.entries.clear();
        }
    }

    /// What a manager finds after a restart.
    pub fn replay(&self) -> Objects {
        let mut objects = match &self.snapshot {
            None => Objects::default(),
            Some(bytes) => {
                let snapshot: Snapshot = rmp_serde::from_slice(bytes).expect("what was written is read");
                Objects::restore(snapshot).expect("a snapshot does not contradict itself")
            }
        };
        for (index, bytes) in &self.entries {
            let changes: Vec<Change> = rmp_serde::from_slice(bytes).expect("what was written is read");
            objects.apply(*index, &changes);
        }
        objects
    }
}
