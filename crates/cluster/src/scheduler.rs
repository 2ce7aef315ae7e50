//! Choosing nodes: first who can, then who carries least.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::iter::Peekable;

use skep_types::node::{Availability, Node, NodeState};
use skep_types::port::Protocol;
use skep_types::resources::Resources;
use skep_types::service::{PortSpec, TaskSpec};
use skep_types::{NodeId, ServiceId, TaskId, TaskState};

use crate::objects::{Group, Load};
use crate::plan::{Draft, Full, Plan};
use crate::{Change, Objects};

/// Why a node cannot take a task, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unfit {
    /// Does not answer, or takes no new tasks.
    NotAvailable,
    /// Lacks CPU or memory.
    Resources,
    /// Is not what the constraints ask for.
    Constraints,
    /// Is of another platform than the image.
    Platform,
    /// Has a port that the task would publish there.
    HostPort,
}

impl Unfit {
    /// SwarmKit's words.
    fn explain(self, nodes: u64) -> String {
        let one = nodes == 1;
        match self {
            Unfit::NotAvailable if one => "1 node not available for new tasks".to_owned(),
            Unfit::NotAvailable => format!("{nodes} nodes not available for new tasks"),
            Unfit::Resources if one => "insufficient resources on 1 node".to_owned(),
            Unfit::Resources => format!("insufficient resources on {nodes} nodes"),
            Unfit::Constraints if one => "scheduling constraints not satisfied on 1 node".to_owned(),
            Unfit::Constraints => format!("scheduling constraints not satisfied on {nodes} nodes"),
            Unfit::Platform if one => "unsupported platform on 1 node".to_owned(),
            Unfit::Platform => format!("unsupported platform on {nodes} nodes"),
            Unfit::HostPort if one => "host-mode port already in use on 1 node".to_owned(),
            Unfit::HostPort => format!("host-mode port already in use on {nodes} nodes"),
        }
    }
}

/// What the batch itself has placed so far.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    loads: BTreeMap<NodeId, Load>,
    spread: BTreeMap<(ServiceId, NodeId), u64>,
    ports: BTreeSet<(NodeId, Protocol, u16)>,
}

/// The nodes that fit one group of tasks, the least loaded first: by the service's tasks there, then by
/// all tasks, then by id.
pub(crate) struct Candidates<'a> {
    objects: &'a Objects,
    service: ServiceId,
    spec: &'a TaskSpec,
    /// Ports that each task publishes on its node, where it asks for certain ones.
    ports: Vec<(Protocol, u16)>,
    order: BinaryHeap<Reverse<(u64, u64, NodeId)>>,
    unfit: BTreeMap<Unfit, u64>,
}

impl<'a> Candidates<'a> {
    pub fn new<'p>(
        objects: &'a Objects,
        placed: &Placed,
        service: ServiceId,
        spec: &'a TaskSpec,
        host_ports: impl Iterator<Item = &'p PortSpec>,
    ) -> Self {
        let order = BinaryHeap::new();
        let ports = host_ports.filter(|port| port.published_port != 0);
        let ports = ports.map(|port| (port.protocol, port.published_port)).collect();
        let mut candidates = Candidates { objects, service, spec, ports, order, unfit: BTreeMap::new() };
        // Everything is ordered by the nodes' ids: read side by side instead of looked up for each node.
        let mut loads = objects.index().loads.iter().peekable();
        let mut spread = objects.index().spread.get(&service).into_iter().flatten().peekable();
        let order = objects.nodes().filter_map(|node| {
            let load = beside(&mut loads, node.id).copied().unwrap_or_default();
            let of_service = beside(&mut spread, node.id).copied().unwrap_or_default();
            candidates.consider(node, load, of_service, placed)
        });
        let order: Vec<_> = order.collect();
        // A heap is made of all at once in less time than one by one.
        candidates.order = BinaryHeap::from(order);
        candidates
    }

    /// A node's place in the order; none for one that does not fit, and the reason is counted. `load` and
    /// `of_service` are what it carries before this batch.
    fn consider(
        &mut self,
        node: &Node,
        mut load: Load,
        mut of_service: u64,
        placed: &Placed,
    ) -> Option<Reverse<(u64, u64, NodeId)>> {
        if let Some(added) = placed.loads.get(&node.id) {
            load.nano_cpus += added.nano_cpus;
            load.memory_bytes += added.memory_bytes;
            load.tasks += added.tasks;
            of_service += placed.spread.get(&(self.service, node.id)).copied().unwrap_or_default();
        }
        let reason = unfit(node, self.spec, load);
        let reason = reason.or_else(|| self.lacks_port(node.id, placed).then_some(Unfit::HostPort));
        if let Some(reason) = reason {
            *self.unfit.entry(reason).or_default() += 1;
            return None;
        }
        Some(Reverse((of_service, load.tasks, node.id)))
    }

    fn lacks_port(&self, node: NodeId, placed: &Placed) -> bool {
        if self.ports.is_empty() {
            return false;
        }
        let held = self.objects.index().ports_of_node.get(&node);
        self.ports.iter().any(|(protocol, port)| {
            held.is_some_and(|held| held.contains_key(&(*protocol, *port)))
                || placed.ports.contains(&(node, *protocol, *port))
        })
    }

    /// The best node, which from now on carries one task more.
    pub fn take(&mut self, placed: &mut Placed) -> Option<NodeId> {
        let Reverse((_, _, id)) = self.order.pop()?;
        let added = placed.loads.entry(id).or_default();
        added.nano_cpus += self.spec.reservations.nano_cpus;
        added.memory_bytes += self.spec.reservations.memory_bytes;
        added.tasks += 1;
        *placed.spread.entry((self.service, id)).or_default() += 1;
        placed.ports.extend(self.ports.iter().map(|(protocol, port)| (id, *protocol, *port)));
        let node = self.objects.node(id).expect("candidates are nodes of the cluster");
        let index = self.objects.index();
        let load = index.loads.get(&id).copied().unwrap_or_default();
        let of_service = index.spread.get(&self.service).and_then(|nodes| nodes.get(&id)).copied();
        let place = self.consider(node, load, of_service.unwrap_or_default(), placed);
        self.order.extend(place);
        Some(id)
    }

    /// Why there is none: `no suitable node (2 nodes not available for new tasks; ...)`.
    pub fn explanation(&self) -> String {
        let mut reasons: Vec<(Unfit, u64)> =
            self.unfit.iter().map(|(unfit, nodes)| (*unfit, *nodes)).collect();
        reasons.sort_by_key(|(unfit, nodes)| (Reverse(*nodes), *unfit));
        let reasons: Vec<String> = reasons.into_iter().map(|(unfit, nodes)| unfit.explain(nodes)).collect();
        if reasons.is_empty() {
            "no suitable node".to_owned()
        } else {
            format!("no suitable node ({})", reasons.join("; "))
        }
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

fn unfit(node: &Node, spec: &TaskSpec, load: Load) -> Option<Unfit> {
    if node.state != NodeState::Ready || node.spec.availability != Availability::Active {
        return Some(Unfit::NotAvailable);
    }
    let lacks = |wanted: i64, total: i64, used: i64| wanted > 0 && wanted > total - used;
    let Resources { nano_cpus, memory_bytes, .. } = spec.reservations;
    let lacking = lacks(nano_cpus, node.description.nano_cpus, load.nano_cpus)
        || lacks(memory_bytes, node.description.memory_bytes, load.memory_bytes);
    if lacking {
        return Some(Unfit::Resources);
    }
    if !spec.placement.allows(node) {
        return Some(Unfit::Constraints);
    }
    (!spec.placement.fits_platform(node)).then_some(Unfit::Platform)
}

/// Tries again for tasks that wait for a node. `explained` holds what was last said of each group, so
/// that a long queue is not read again while nothing changed for it.
pub(crate) fn retry(
    plan: &mut Plan,
    placed: &mut Placed,
    explained: &mut BTreeMap<Group, String>,
) -> Result<(), Full> {
    let objects = plan.objects;
    explained.retain(|group, _| objects.index().unassigned.contains_key(group));
    for (group, waiting) in &objects.index().unassigned {
        let Some(first) = waiting.first().and_then(|id| objects.task(*id)) else { continue };
        let mut candidates = Candidates::new(objects, placed, group.0, &first.spec, first.host_ports.iter());
        let mut waiting = waiting.iter();
        for task in waiting.by_ref() {
            plan.reserve(1)?;
            if !assign(plan, placed, &mut candidates, *task) {
                let explanation = candidates.explanation();
                if explained.get(group) != Some(&explanation) {
                    explain(plan, std::iter::once(task).chain(waiting), &explanation)?;
                    explained.insert(*group, explanation);
                }
                break;
            }
        }
    }
    Ok(())
}

fn assign(plan: &mut Plan, placed: &mut Placed, candidates: &mut Candidates, task: TaskId) -> bool {
    let Some(node) = candidates.take(placed) else { return false };
    let status = Box::new(plan.status(TaskState::Assigned, "scheduler assigned task to node", String::new()));
    plan.changes.push(Change::Assign { task, node, status, generic: Default::default() });
    true
}

fn explain<'t>(
    plan: &mut Plan,
    tasks: impl Iterator<Item = &'t TaskId>,
    explanation: &str,
) -> Result<(), Full> {
    for id in tasks {
        let Some(task) = plan.objects.task(*id) else { continue };
        if task.status.error != explanation {
            plan.reserve(1)?;
            let status = plan.status(TaskState::Pending, "pending task scheduling", explanation.to_owned());
            plan.changes.push(Change::SetStatus { task: *id, status: Box::new(status), at: plan.now });
        }
    }
    Ok(())
}

/// Orders drafts so that those of one service follow each other.
pub(crate) fn by_service(drafts: &mut [Draft]) {
    drafts.sort_by_key(|draft| (draft.service, draft.slot));
}
