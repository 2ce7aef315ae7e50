//! What the simulator writes down to judge by: it knows what no part of a cluster knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_types::service::ServiceSpec;
use skep_types::{NodeId, ServiceId, Task, TaskId, Time};

/// A container that runs: where, and of which task.
type Place = (usize, TaskId);

/// The notes.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Entries of the log so far.
    pub entries: u64,
    /// To whom a task was given, and when.
    owners: BTreeMap<TaskId, (NodeId, Time)>,
    /// All specifications that a service ever had.
    specs: BTreeMap<ServiceId, Vec<ServiceSpec>>,
    /// What runs, by what it holds.
    slots: BTreeMap<(ServiceId, u64), BTreeSet<Place>>,
    addresses: BTreeMap<Ipv4Addr, BTreeSet<Place>>,
    /// What was stopped because the managers wanted it, by its addresses, until something runs there again.
    stopped: BTreeMap<Ipv4Addr, Place>,
    running: BTreeMap<Place, ((ServiceId, u64), Vec<Ipv4Addr>)>,
}

impl Book {
    pub fn assigned(&mut self, task: TaskId, node: NodeId, now: Time) {
        self.owners.insert(task, (node, now));
    }

    pub fn forget(&mut self, task: TaskId) {
        self.owners.remove(&task);
    }

    pub fn owner(&self, task: TaskId) -> Option<(NodeId, Time)> {
        self.owners.get(&task).copied()
    }

    pub fn history(&mut self, service: ServiceId) -> &mut Vec<ServiceSpec> {
        self.specs.entry(service).or_default()
    }

    /// Where in its history a service had a specification last.
    pub fn position(&self, service: ServiceId, spec: &ServiceSpec) -> Option<usize> {
        self.specs.get(&service)?.iter().rposition(|had| had == spec)
    }

    pub fn starts(&mut self, node: usize, task: &Task) {
        let place = (node, task.id);
        let slot = (task.service, task.slot);
        let addresses: Vec<Ipv4Addr> = task.attachments.iter().map(|held| held.address).collect();
        self.slots.entry(slot).or_default().insert(place);
        for address in &addresses {
            self.addresses.entry(*address).or_default().insert(place);
            self.stopped.remove(address);
        }
        self.running.insert(place, (slot, addresses));
    }

    pub fn ends(&mut self, node: usize, task: TaskId) {
        let place = (node, task);
        let Some((slot, addresses)) = self.running.remove(&place) else { return };
        if let Some(places) = self.slots.get_mut(&slot) {
            places.remove(&place);
        }
        for address in addresses {
            if let Some(places) = self.addresses.get_mut(&address) {
                places.remove(&place);
            }
        }
    }

    /// A container that ran is stopped because the managers want that.
    pub fn stops(&mut self, node: usize, task: &Task) {
        let addresses = task.attachments.iter().map(|held| held.address);
        self.stopped.extend(addresses.map(|address| (address, (node, task.id))));
    }

    /// What was stopped at an address where nothing ran since.
    pub fn stopped_at(&self, address: Ipv4Addr) -> Option<Place> {
        self.stopped.get(&address).copied()
    }

    /// All containers of a node end.
    pub fn all_end(&mut self, node: usize) {
        let places = self.running.keys().filter(|(place, _)| *place == node);
        for (_, task) in places.copied().collect::<Vec<_>>() {
            self.ends(node, task);
        }
    }

    pub fn in_slot(&self, service: ServiceId, slot: u64) -> impl Iterator<Item = Place> {
        self.slots.get(&(service, slot)).into_iter().flatten().copied()
    }

    pub fn at_address(&self, address: Ipv4Addr) -> impl Iterator<Item = Place> {
        self.addresses.get(&address).into_iter().flatten().copied()
    }
}
