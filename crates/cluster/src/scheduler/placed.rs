//! What nodes carry, the batch that is being made included.

use std::collections::{BTreeMap, BTreeSet};

use skep_types::generic::{GenericResources, GenericUse};
use skep_types::node::Node;
use skep_types::port::Protocol;
use skep_types::{NodeId, ServiceId, Task};

use super::fit::Demand;
use crate::Objects;
use crate::objects::Load;
use crate::plan::Plan;

/// What the batch itself has placed and sent away so far.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    added: BTreeMap<NodeId, Added>,
    /// More or fewer tasks of a service on a node.
    spread: BTreeMap<(ServiceId, NodeId), i64>,
    ports: BTreeSet<(NodeId, Protocol, u16)>,
    /// Ports that are taken to be free.
    freed: BTreeSet<(NodeId, Protocol, u16)>,
}

/// What a batch changes of a node's load.
#[derive(Clone, Debug, Default)]
struct Added {
    nano_cpus: i64,
    memory_bytes: i64,
    tasks: i64,
    generics: Vec<GenericResources>,
    returned: Vec<GenericResources>,
}

/// What a node carries for the one that asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    pub tasks: u64,
    /// Tasks of the service.
    pub of_service: u64,
    /// Only told where generic resources are asked for.
    pub generic: GenericUse,
    /// Whether it has a port that is asked for.
    pub lacks_port: bool,
}

impl Placed {
    /// A batch that placed nothing yet. What it tells to end no longer counts where tasks are spread, but holds
    /// what it holds until it has ended.
    pub fn of(plan: &Plan) -> Placed {
        let mut placed = Placed::default();
        for (service, node) in plan.leaving.values() {
            placed.added.entry(*node).or_default().tasks -= 1;
            *placed.spread.entry((*service, *node)).or_default() -= 1;
        }
        placed
    }

    /// As if these tasks were nowhere.
    pub fn without<'t>(tasks: impl Iterator<Item = &'t Task>) -> Placed {
        let mut placed = Placed::default();
        for (task, node) in tasks.filter_map(|task| Some((task, task.node?))) {
            let added = placed.added.entry(node).or_default();
            added.nano_cpus -= task.spec.reservations.nano_cpus;
            added.memory_bytes -= task.spec.reservations.memory_bytes;
            added.tasks -= 1;
            added.returned.push(task.generic.clone());
            *placed.spread.entry((task.service, node)).or_default() -= 1;
            placed
                .freed
                .extend(task.host_ports.iter().map(|port| (node, port.protocol, port.published_port)));
        }
        placed
    }

    /// How a node stands, of which `load` and `of_service` are committed.
    pub fn standing(
        &self,
        objects: &Objects,
        service: ServiceId,
        demand: &Demand,
        node: &Node,
        load: Load,
        of_service: u64,
    ) -> Standing {
        let mut standing = Standing {
            nano_cpus: load.nano_cpus,
            memory_bytes: load.memory_bytes,
            tasks: load.tasks,
            of_service,
            generic: GenericUse::default(),
            lacks_port: self.lacks_port(objects, demand, node.id),
        };
        if !demand.spec.generic.is_empty() {
            standing.generic = objects.index().generic.get(&node.id).cloned().unwrap_or_default();
        }
        if let Some(added) = self.added.get(&node.id) {
            standing.nano_cpus += added.nano_cpus;
            standing.memory_bytes += added.memory_bytes;
            standing.tasks = standing.tasks.saturating_add_signed(added.tasks);
            let more = self.spread.get(&(service, node.id)).copied().unwrap_or_default();
            standing.of_service = of_service.saturating_add_signed(more);
            if !demand.spec.generic.is_empty() {
                added.returned.iter().for_each(|given| standing.generic.remove(given));
                added.generics.iter().for_each(|given| standing.generic.add(given));
            }
        }
        standing
    }

    fn lacks_port(&self, objects: &Objects, demand: &Demand, node: NodeId) -> bool {
        if demand.ports.is_empty() {
            return false;
        }
        let held = objects.index().ports_of_node.get(&node);
        demand.ports.iter().any(|(protocol, port)| {
            let freed = self.freed.contains(&(node, *protocol, *port));
            held.is_some_and(|held| held.contains_key(&(*protocol, *port))) && !freed
                || self.ports.contains(&(node, *protocol, *port))
        })
    }

    /// Places a task on a node.
    pub fn add(&mut self, service: ServiceId, demand: &Demand, node: NodeId, generic: &GenericResources) {
        let added = self.added.entry(node).or_default();
        added.nano_cpus += demand.spec.reservations.nano_cpus;
        added.memory_bytes += demand.spec.reservations.memory_bytes;
        added.tasks += 1;
        if !generic.is_empty() {
            added.generics.push(generic.clone());
        }
        *self.spread.entry((service, node)).or_default() += 1;
        self.ports.extend(demand.ports.iter().map(|(protocol, port)| (node, *protocol, *port)));
    }
}
