//! The nodes that fit one group of tasks, the best first.
//!
//! As SwarmKit: what preferences ask for comes first; among nodes that they do not tell apart, those on which the
//! service's tasks failed often come last, then counts the service's tasks there, then all tasks. Ties, which SwarmKit
//! leaves to chance, go to the node with the most free: its free thousandths of CPUs and its free MiB together.

use std::cmp::Reverse;
use std::iter::Peekable;

use skep_types::generic::GenericResources;
use skep_types::node::Node;
use skep_types::service::{PortSpec, TaskSpec};
use skep_types::{NodeId, ServiceId, Time, Version};

use super::fit::{Demand, Reasons, Unfit};
use super::placed::{Placed, Standing};
use super::tree::{Rank, Saplings, Tree};
use crate::objects::Failures;
use crate::{Objects, dependencies};

/// What a task is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub node: NodeId,
    pub generic: GenericResources,
}

/// See the module.
pub(crate) struct Candidates<'a> {
    group: Asks<'a>,
    /// Made when a node is first asked for.
    tree: Option<Tree>,
    reasons: Reasons,
    /// What the service waits for before any of its tasks is given a node.
    held: Option<String>,
}

/// Who asks, and for what.
struct Asks<'a> {
    objects: &'a Objects,
    service: ServiceId,
    demand: Demand<'a>,
    failures: Option<&'a Failures>,
    now: Time,
}

impl<'a> Candidates<'a> {
    pub fn new<'p>(
        objects: &'a Objects,
        service: ServiceId,
        (spec, version): (&'a TaskSpec, Version),
        host_ports: impl Iterator<Item = &'p PortSpec>,
        now: Time,
    ) -> Self {
        let failures = objects.failures_of(service, version);
        let group = Asks { objects, service, demand: Demand::new(spec, host_ports), failures, now };
        let held = dependencies::missing(objects, service);
        Candidates { group, tree: None, reasons: Reasons::default(), held }
    }

    /// Whether the service's tasks are given no node, whichever there are: it waits for another service.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Seats a task: on the best node, or on the one that it is pinned to. The error says why there is none, in
    /// SwarmKit's words, which are other ones for a task that only one node may have.
    pub fn seat(&mut self, placed: &mut Placed, pinned: Option<NodeId>) -> Result<Seat, String> {
        if let Some(held) = &self.held {
            return Err(held.clone());
        }
        match pinned {
            Some(node) => self.take_on(placed, node),
            None => self.take(placed).ok_or_else(|| self.reasons.explain()),
        }
    }

    /// The best node, which from now on carries one task more.
    fn take(&mut self, placed: &mut Placed) -> Option<Seat> {
        let Candidates { group, tree, reasons, .. } = self;
        let tree = tree.get_or_insert_with(|| group.tree(placed, reasons));
        let mut generic = GenericResources::default();
        let node = tree.take(&mut |id| {
            let node = group.objects.node(id).expect("candidates are nodes of the cluster");
            generic = group.place(placed, node);
            group.rank(node, &group.standing(placed, node), reasons)
        })?;
        Some(Seat { node, generic })
    }

    /// What is to be said of each node: how it stands, and why it cannot take a task, if it cannot.
    pub fn survey(&self, placed: &Placed) -> Vec<(&'a Node, Standing, Option<Unfit>)> {
        let look = |node: &'a Node| {
            let standing = self.group.standing(placed, node);
            let unfit = self.group.demand.unfit(node, &standing);
            (node, standing, unfit)
        };
        self.group.objects.nodes().map(look).collect()
    }

    /// How often the service's tasks failed on a node of late, where that deters from it.
    pub fn failures(&self, node: NodeId) -> u64 {
        self.group.failures.map_or(0, |failures| failures.deterrent(node, self.group.now))
    }

    /// A certain node, if it fits.
    fn take_on(&mut self, placed: &mut Placed, id: NodeId) -> Result<Seat, String> {
        let group = &self.group;
        let mut reasons = Reasons::default();
        let Some(node) = group.objects.node(id) else {
            reasons.count(Unfit::NotAvailable);
            return Err(reasons.list());
        };
        if let Some(reason) = group.demand.unfit(node, &group.standing(placed, node)) {
            reasons.count(reason);
            return Err(reasons.list());
        }
        let generic = group.place(placed, node);
        // Its place in the order is another one now.
        self.tree = None;
        Ok(Seat { node: id, generic })
    }
}

impl<'a> Asks<'a> {
    fn tree(&self, placed: &Placed, reasons: &mut Reasons) -> Tree {
        *reasons = Reasons::default();
        let objects = self.objects;
        let preferences = &self.demand.spec.placement.preferences;
        // Everything is ordered by the nodes' ids: read side by side instead of looked up for each node.
        let mut loads = objects.index().loads.iter().peekable();
        let mut spread = objects.index().spread.get(&self.service).into_iter().flatten().peekable();
        let mut saplings = Saplings::default();
        for node in objects.nodes() {
            let load = beside(&mut loads, node.id).copied().unwrap_or_default();
            let of_service = beside(&mut spread, node.id).copied().unwrap_or_default();
            let standing = placed.standing(objects, self.service, &self.demand, node, load, of_service);
            let rank = self.rank(node, &standing, reasons);
            let values = preferences.iter().filter_map(|preference| preference.value(node));
            saplings.add(values, standing.of_service, rank);
        }
        saplings.grow()
    }

    fn standing(&self, placed: &Placed, node: &Node) -> Standing {
        let index = self.objects.index();
        let load = index.loads.get(&node.id).copied().unwrap_or_default();
        let of_service = index.spread.get(&self.service).and_then(|nodes| nodes.get(&node.id)).copied();
        placed.standing(self.objects, self.service, &self.demand, node, load, of_service.unwrap_or_default())
    }

    /// A node's place in the order; none for one that does not fit, and the reason is counted.
    fn rank(&self, node: &Node, standing: &Standing, reasons: &mut Reasons) -> Option<Rank> {
        if let Some(reason) = self.demand.unfit(node, standing) {
            reasons.count(reason);
            return None;
        }
        let free = (node.description.nano_cpus - standing.nano_cpus) / 1_000_000
            + ((node.description.memory_bytes - standing.memory_bytes) >> 20);
        Some(Rank {
            failures: self.failures.map_or(0, |failures| failures.deterrent(node.id, self.now)),
            of_service: standing.of_service,
            tasks: standing.tasks,
            free: Reverse(free),
            node: node.id,
        })
    }

    /// Puts a task on a node that fits.
    fn place(&self, placed: &mut Placed, node: &Node) -> GenericResources {
        let wanted = &self.demand.spec.generic;
        let generic = if wanted.is_empty() {
            GenericResources::default()
        } else {
            let used = self.standing(placed, node).generic;
            node.description.generic.claim(&used, wanted).expect("a node that fits has what is asked for")
        };
        placed.add(self.service, &self.demand, node.id, &generic);
        generic
    }
}

/// What an ordered sequence says of `id`, when asked for rising ids.
fn beside<'v, V>(
    values: &mut Peekable<impl Iterator<Item = (&'v NodeId, &'v V)>>,
    id: NodeId,
) -> Option<&'v V> {
    while values.next_if(|(other, _)| **other < id).is_some() {}
    values.next_if(|(other, _)| **other == id).map(|(_, value)| value)
}
