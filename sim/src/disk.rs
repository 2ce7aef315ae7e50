//! The managers' logs as their contract says: one order for all, durable once committed. Each manager's disk
//! holds a snapshot of its own and says how far it has come.

use std::collections::BTreeMap;
use std::rc::Rc;

use skep_cluster::{Change, Objects, Snapshot};

/// Entries between snapshots.
const SNAPSHOT_EVERY: u64 = 200;

/// The committed entries, encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    entries: BTreeMap<u64, Rc<[u8]>>,
    last: u64,
    /// Entries up to this position are forgotten.
    base: u64,
}

/// What one manager has on its disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    snapshot: Option<Rc<[u8]>>,
    /// The position of the snapshot.
    base: u64,
    /// The position of the last entry that is durable here.
    pub durable: u64,
}

pub(crate) fn encode<T: serde::Serialize>(value: &T) -> Rc<[u8]> {
    rmp_serde::to_vec_named(value).expect("plain data is written").into()
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    rmp_serde::from_slice(bytes).expect("what was written is read")
}

fn restore(bytes: &[u8]) -> Objects {
    Objects::restore(decode::<Snapshot>(bytes)).expect("a snapshot does not contradict itself")
}

impl Log {
    /// Commits an entry and gives its position. Positions rise but have gaps, as a real log's own entries
    /// leave them.
    pub fn append(&mut self, changes: &[Change], gap: u64) -> u64 {
        self.last += 1 + gap;
        self.entries.insert(self.last, encode(&changes));
        self.last
    }

    /// The position of the last committed entry.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The entries after a position, up to another one.
    pub fn between(&self, after: u64, until: u64) -> Vec<(u64, Vec<Change>)> {
        let range = self.entries.range((std::ops::Bound::Excluded(after), std::ops::Bound::Included(until)));
        range.map(|(index, bytes)| (*index, decode(bytes))).collect()
    }

    /// The position up to which only snapshots say what was.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// How many entries lie after a position.
    pub fn count_after(&self, after: u64) -> usize {
        self.entries.range(after + 1..).count()
    }

    /// Forgets the youngest entries, which no quorum of disks may do. Several: the loss of a status alone is
    /// made good by the agents, who tell it again.
    pub fn forget_youngest(&mut self) {
        let from = self.entries.keys().rev().nth(9).copied().unwrap_or(0);
        self.entries.split_off(&from);
    }

    /// Forgets what every disk has in its snapshot.
    pub fn compact<'d>(&mut self, disks: impl Iterator<Item = &'d Disk>) {
        let oldest = disks.map(|disk| disk.base).min().unwrap_or(0);
        self.entries = self.entries.split_off(&(oldest + 1));
        self.base = self.base.max(oldest);
    }
}

impl Disk {
    /// Writes what was applied, and a snapshot now and then. Says whether it wrote one.
    pub fn note(&mut self, objects: &Objects) -> bool {
        self.durable = self.durable.max(objects.applied());
        let due = objects.applied() >= self.base + SNAPSHOT_EVERY;
        if due {
            self.install(objects, &encode(&objects.snapshot()));
        }
        due
    }

    /// Takes the leader's snapshot for its own.
    pub fn install(&mut self, objects: &Objects, snapshot: &Rc<[u8]>) {
        self.snapshot = Some(Rc::clone(snapshot));
        self.base = objects.applied();
        self.durable = self.durable.max(self.base);
    }

    /// The position of the snapshot.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// What a manager finds after a restart, up to a position.
    pub fn replay(&self, log: &Log, until: u64) -> Objects {
        let mut objects = self.snapshot.as_ref().map_or_else(Objects::default, |bytes| restore(bytes));
        for (index, changes) in log.between(self.base, until.min(self.durable)) {
            objects.apply(index, &changes);
        }
        objects
    }
}

/// The objects that another manager's snapshot gives.
pub(crate) fn received(snapshot: &[u8]) -> Objects {
    restore(snapshot)
}
