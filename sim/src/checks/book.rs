//! What the simulator writes down to judge by: it knows what no part of a cluster knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use skep_types::service::{ServiceSpec, UpdateOrder};
use skep_types::{ContainerId, NodeId, ServiceId, Task, TaskId, Time};

use super::jobs::Ledger;
use super::scaling::Scales;
use crate::machine::Place;

/// Whose a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Task(TaskId),
    Guest(ContainerId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Task(task) => write!(f, "{task}"),
            Who::Guest(container) => write!(f, "guest {}", container.short()),
        }
    }
}

/// A container that runs: where, and whose.
pub(crate) type Holder = (usize, Who);

/// What a container of a task holds: its slot and its addresses.
type Held = ((ServiceId, u64), Vec<Place>);

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
    slots: BTreeMap<(ServiceId, u64), BTreeSet<(usize, TaskId)>>,
    /// With the time since when.
    addresses: BTreeMap<Place, BTreeMap<Holder, Time>>,
    /// What was stopped because the managers wanted it, by its addresses, until something runs there again.
    stopped: BTreeMap<Place, (usize, TaskId)>,
    running: BTreeMap<(usize, TaskId), Held>,
    /// When something last ended that ran at an address.
    left: BTreeMap<Place, Time>,
    /// How many tasks a service's update was replacing before the present entry.
    pub replacing: BTreeMap<ServiceId, usize>,
    /// How services are scaled by their load.
    pub scales: BTreeMap<ServiceId, Scales>,
    /// What jobs have done.
    pub jobs: Ledger,
}

impl Book {
    pub fn assigned(&mut self, task: TaskId, node: NodeId, now: Time) {
        self.owners.insert(task, (node, now));
    }

    pub fn forget(&mut self, task: TaskId) {
        self.owners.remove(&task);
        self.jobs.forget(task);
    }

    pub fn owner(&self, task: TaskId) -> Option<(NodeId, Time)> {
        self.owners.get(&task).copied()
    }

    pub fn history(&mut self, service: ServiceId) -> &mut Vec<ServiceSpec> {
        self.specs.entry(service).or_default()
    }

    /// The same, to read.
    pub fn specs_of(&self, service: ServiceId) -> &[ServiceSpec] {
        self.specs.get(&service).map_or(&[], Vec::as_slice)
    }

    /// Where in its history a service had a specification last.
    pub fn position(&self, service: ServiceId, spec: &ServiceSpec) -> Option<usize> {
        self.specs.get(&service)?.iter().rposition(|had| had == spec)
    }

    /// Whether a service ever started a successor before its predecessor had ended.
    pub fn starts_first(&self, service: ServiceId) -> bool {
        let mut specs = self.specs.get(&service).into_iter().flatten();
        let orders = |spec: &ServiceSpec| [spec.update.order, spec.rollback.order];
        specs.any(|spec| !spec.mode.is_job() && orders(spec).contains(&UpdateOrder::StartFirst))
    }

    pub fn starts(&mut self, node: usize, task: &Task, now: Time) {
        let place = (node, task.id);
        let slot = (task.service, task.slot);
        let addresses: Vec<Place> =
            task.attachments.iter().map(|held| (held.network, held.address)).collect();
        self.slots.entry(slot).or_default().insert(place);
        for address in &addresses {
            self.holds(*address, (node, Who::Task(task.id)), now);
        }
        self.running.insert(place, (slot, addresses));
    }

    /// Something runs at an address from now on.
    pub fn holds(&mut self, address: Place, holder: Holder, now: Time) {
        self.addresses.entry(address).or_default().insert(holder, now);
        self.stopped.remove(&address);
    }

    /// It does no longer.
    pub fn frees(&mut self, address: Place, holder: Holder, now: Time) {
        self.left.insert(address, now);
        if let Some(holders) = self.addresses.get_mut(&address) {
            holders.remove(&holder);
        }
    }

    /// When something last ended at an address.
    pub fn left_at(&self, address: Place) -> Option<Time> {
        self.left.get(&address).copied()
    }

    pub fn ends(&mut self, node: usize, task: TaskId, now: Time) {
        let place = (node, task);
        let Some((slot, addresses)) = self.running.remove(&place) else { return };
        if let Some(places) = self.slots.get_mut(&slot) {
            places.remove(&place);
        }
        for address in addresses {
            self.frees(address, (node, Who::Task(task)), now);
        }
    }

    /// A container that ran is stopped because the managers want that.
    pub fn stops(&mut self, node: usize, task: &Task) {
        let addresses = task.attachments.iter().map(|held| (held.network, held.address));
        self.stopped.extend(addresses.map(|address| (address, (node, task.id))));
    }

    /// What was stopped at an address where nothing ran since.
    pub fn stopped_at(&self, address: Place) -> Option<(usize, TaskId)> {
        self.stopped.get(&address).copied()
    }

    /// All containers of a node end.
    pub fn all_end(&mut self, node: usize, now: Time) {
        let places = self.running.keys().filter(|(place, _)| *place == node);
        for (_, task) in places.copied().collect::<Vec<_>>() {
            self.ends(node, task, now);
        }
    }

    pub fn in_slot(&self, service: ServiceId, slot: u64) -> impl Iterator<Item = (usize, TaskId)> {
        self.slots.get(&(service, slot)).into_iter().flatten().copied()
    }

    /// The containers of a service that run.
    pub fn in_service(&self, service: ServiceId) -> impl Iterator<Item = (usize, TaskId)> {
        self.slots.range((service, 0)..=(service, u64::MAX)).flat_map(|(_, places)| places).copied()
    }

    /// What runs at an address, and since when.
    pub fn at_address(&self, address: Place) -> impl Iterator<Item = (Holder, Time)> {
        self.addresses.get(&address).into_iter().flatten().map(|(holder, since)| (*holder, *since))
    }
}
