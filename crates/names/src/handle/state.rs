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

/// What a server has come to that was told all changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) version: u64,
    /// Whether these were all there are. It belongs to the changes: a server that is told so later than them, and sooner than
    /// what came between, forgets that.
    pub(super) is_complete: bool,
    /// Whether it serves nobody.
    pub(super) is_idle: bool,
    /// Whether nothing else will come.
    pub(super) is_closing: bool,
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

    /// What to tell, and what the server has come to then, if that is all. At least one change, if there is one; more while
    /// they have fewer than `limit` records together.
    pub(super) fn take(&mut self, limit: usize) -> (Vec<Change>, Option<Reached>) {
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
        let reached = Reached {
            version: self.version,
            is_complete: self.is_complete,
            is_idle: self.sandboxes.is_empty(),
            is_closing: self.is_closing,
        };
        (changes, self.dirty.is_empty().then_some(reached))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::name::Name;
    use crate::tables::{Forwarding, Record};

    #[derive(Clone, Debug)]
    enum Step {
        SetZone(u8, bool),
        RemoveZone(u8),
        SetEntry(u8, u8, u8),
        RemoveEntry(u8, u8),
        SetSandbox(u8, u8),
        RemoveSandbox(u8),
        Tell(usize),
        /// Another server, or the same with another daemon.
        Begin,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8, any::<bool>()).prop_map(|(network, domain)| Step::SetZone(network, domain)),
            (0..3u8).prop_map(Step::RemoveZone),
            (0..3u8, 0..3u8, 0..3u8).prop_map(|(network, owner, what)| Step::SetEntry(network, owner, what)),
            (0..3u8, 0..3u8).prop_map(|(network, owner)| Step::RemoveEntry(network, owner)),
            (0..3u8, 0..3u8).prop_map(|(sandbox, what)| Step::SetSandbox(sandbox, what)),
            (0..3u8).prop_map(Step::RemoveSandbox),
            (1..4usize).prop_map(Step::Tell),
            Just(Step::Begin),
        ]
    }

    fn entry(what: u8) -> Entry {
        let name = Name::new(&format!("name-{what}")).expect("a name");
        Entry { records: vec![Record { name, addresses: Vec::new(), pointer: false }] }
    }

    fn view(what: u8) -> View {
        let netns = PathBuf::from(what.to_string());
        View {
            netns,
            networks: Vec::new(),
            search: None,
            own: Entry::default(),
            forwarding: Forwarding::Host,
        }
    }

    /// What a server makes of changes, the simplest way.
    #[derive(Debug, Default, PartialEq)]
    struct Told {
        zones: BTreeMap<String, ZoneConfig>,
        entries: BTreeMap<(String, String), Entry>,
        sandboxes: BTreeMap<String, View>,
    }

    impl Told {
        fn hear(&mut self, change: Change) {
            match change {
                Change::Zone(network, Some(config)) => drop(self.zones.insert(network, config)),
                Change::Zone(network, None) => {
                    self.entries.retain(|(of, _), _| *of != network);
                    self.zones.remove(&network);
                }
                Change::Entry(network, owner, Some(entry)) => {
                    self.entries.insert((network, owner), Arc::unwrap_or_clone(entry));
                }
                Change::Entry(network, owner, None) => drop(self.entries.remove(&(network, owner))),
                Change::Sandbox(sandbox, Some(view)) => drop(self.sandboxes.insert(sandbox, view)),
                Change::Sandbox(sandbox, None) => drop(self.sandboxes.remove(&sandbox)),
            }
        }
    }

    fn wanted(state: &State) -> Told {
        let mut told = Told::default();
        for (network, zone) in &state.zones {
            told.zones.insert(network.clone(), zone.config.clone());
            for (owner, entry) in &zone.entries {
                told.entries.insert((network.clone(), owner.clone()), Entry::clone(entry));
            }
        }
        told.sandboxes = state.sandboxes.clone();
        told
    }

    proptest! {
        /// However changes and telling interleave, a server that was told all knows all, and nothing else.
        #[test]
        fn what_is_told_is_what_is(steps in prop::collection::vec(step(), 0..60)) {
            let (mut state, mut told) = (State::default(), Told::default());
            let text = |number: u8| number.to_string();
            for step in steps {
                match step {
                    Step::SetZone(network, domain) => {
                        let domain = domain.then(|| Name::new("shop")).flatten();
                        state.set_zone(&text(network), ZoneConfig { domain, subnets: Vec::new() });
                    }
                    Step::RemoveZone(network) => state.remove_zone(&text(network)),
                    Step::SetEntry(network, owner, what) => state.set_entry(&text(network), &text(owner), entry(what)),
                    Step::RemoveEntry(network, owner) => state.remove_entry(&text(network), &text(owner)),
                    Step::SetSandbox(sandbox, what) => state.set_sandbox(&text(sandbox), view(what)),
                    Step::RemoveSandbox(sandbox) => state.remove_sandbox(&text(sandbox)),
                    Step::Tell(limit) => state.take(limit).0.into_iter().for_each(|change| told.hear(change)),
                    Step::Begin => {
                        told = Told::default();
                        state.touch_all();
                    }
                }
            }
            loop {
                let (changes, reached) = state.take(2);
                changes.into_iter().for_each(|change| told.hear(change));
                if let Some(reached) = reached {
                    prop_assert_eq!(reached.version, state.version());
                    break;
                }
            }
            prop_assert_eq!(told, wanted(&state));
        }
    }
}
