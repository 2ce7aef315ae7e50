//! What the server is to know, and what of it it has not been told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::protocol::Change;
use crate::tables::{Entry, View, ZoneConfig};

/// What the server is to know, and what of it it has not been told.
#[derive(Debug, Default)]
pub(super) struct State {
    zones: BTreeMap<String, Zone>,
    sandboxes: BTreeMap<String, View>,
    dirty: BTreeSet<Item>,
    /// Counts changes.
    version: u64,
    is_complete: bool,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Zone {
    config: ZoneConfig,
    entries: BTreeMap<String, Arc<Entry>>,
}

/// Something that may be told. In the order in which it is: a sandbox comes after what it sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Zone(String),
    Entry(String, String),
    Sandbox(String),
}

impl State {
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
        self.version += 1;
    }

    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    pub(super) fn set_zone(&mut self, network: &str, config: ZoneConfig) {
        let known = self.zones.get(network).is_some_and(|zone| zone.config == config);
        if !known {
            self.zones.entry(network.to_owned()).or_default().config = config;
            self.touch(Item::Zone(network.to_owned()));
        }
    }

    pub(super) fn remove_zone(&mut self, network: &str) {
        let Some(zone) = self.zones.remove(network) else { return };
        // One by one, for a network of that key may come back before the server has heard that it was gone.
        for owner in zone.entries.into_keys() {
            self.touch(Item::Entry(network.to_owned(), owner));
        }
        self.touch(Item::Zone(network.to_owned()));
    }

    pub(super) fn set_entry(&mut self, network: &str, owner: &str, entry: Entry) {
        let Some(zone) = self.zones.get_mut(network) else { return };
        if zone.entries.get(owner).is_some_and(|known| **known == entry) {
            return;
        }
        zone.entries.insert(owner.to_owned(), Arc::new(entry));
        self.touch(Item::Entry(network.to_owned(), owner.to_owned()));
    }

    pub(super) fn remove_entry(&mut self, network: &str, owner: &str) {
        if self.zones.get_mut(network).and_then(|zone| zone.entries.remove(owner)).is_some() {
            self.touch(Item::Entry(network.to_owned(), owner.to_owned()));
        }
    }

    pub(super) fn set_sandbox(&mut self, sandbox: &str, view: View) {
        // Told again even if it is the same: its namespace may be another.
        self.sandboxes.insert(sandbox.to_owned(), view);
        self.touch(Item::Sandbox(sandbox.to_owned()));
    }

    pub(super) fn remove_sandbox(&mut self, sandbox: &str) {
        if self.sandboxes.remove(sandbox).is_some() {
            self.touch(Item::Sandbox(sandbox.to_owned()));
        }
    }

    /// A sandbox that could not be served is told once more.
    pub(super) fn retry(&mut self, sandbox: &str) {
        if self.sandboxes.contains_key(sandbox) {
            self.dirty.insert(Item::Sandbox(sandbox.to_owned()));
        }
    }

    /// A server knows nothing: everything is to be told.
    pub(super) fn touch_all(&mut self) {
        self.dirty.clear();
        for (network, zone) in &self.zones {
            self.dirty.insert(Item::Zone(network.clone()));
            let entry = |owner: &String| Item::Entry(network.clone(), owner.clone());
            self.dirty.extend(zone.entries.keys().map(entry));
        }
        self.dirty.extend(self.sandboxes.keys().cloned().map(Item::Sandbox));
    }

    /// What to tell, and which version the server has then, if that is all. At least one change, if there is one; more while
    /// they have fewer than `limit` records together.
    pub(super) fn take(&mut self, limit: usize) -> (Vec<Change>, Option<u64>) {
        let (mut changes, mut records) = (Vec::new(), 0);
        while records < limit
            && let Some(item) = self.dirty.pop_first()
        {
            let change = self.change(item);
            records += match &change {
                Change::Entry(.., Some(entry)) => entry.records.len().max(1),
                _ => 1,
            };
            changes.push(change);
        }
        (changes, self.dirty.is_empty().then_some(self.version))
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether no server is needed.
    pub(super) fn is_idle(&self) -> bool {
        self.sandboxes.is_empty()
    }

    fn change(&self, item: Item) -> Change {
        match item {
            Item::Zone(network) => {
                let config = self.zones.get(&network).map(|zone| zone.config.clone());
                Change::Zone(network, config)
            }
            Item::Entry(network, owner) => {
                let entry = self.zones.get(&network).and_then(|zone| zone.entries.get(&owner)).cloned();
                Change::Entry(network, owner, entry)
            }
            Item::Sandbox(sandbox) => {
                let view = self.sandboxes.get(&sandbox).cloned();
                Change::Sandbox(sandbox, view)
            }
        }
    }

    fn touch(&mut self, item: Item) {
        self.version += 1;
        self.dirty.insert(item);
    }
}
