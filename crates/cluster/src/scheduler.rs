//! Choosing nodes: first who can, then who carries least.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skep_types::node::{Availability, Node, NodeState};
use skep_types::service::TaskSpec;
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
        }
    }
}

/// What the batch itself has placed so far.
#[derive(Debug, Default)]
pub(crate) struct Placed(BTreeMap<NodeId, Load>);

/// The nodes that fit one group of tasks, the least loaded first: by the service's tasks there, then by
/// all tasks, then by id.
pub(crate) struct Candidates<'a> {
    objects: &'a Objects,
    service: ServiceId,
    spec: &'a TaskSpec,
    order: BinaryHeap<Reverse<(u64, u64, NodeId)>>,
    unfit: BTreeMap<Unfit, u64>,
}

impl<'a> Candidates<'a> {
    pub fn new(objects: &'a Objects, placed: &Placed, service: ServiceId, spec: &'a TaskSpec) -> Self {
        let order = BinaryHeap::new();
        let mut candidates = Candidates { objects, service, spec, order, unfit: BTreeMap::new() };
        // A heap is made of all at once in less time than one by one.
        let order: Vec<_> = objects.nodes().filter_map(|node| candidates.consider(node, placed)).collect();
        candidates.order = BinaryHeap::from(order);
        candidates
    }

    /// A node's place in the order; none for one that does not fit, and the reason is counted.
    fn consider(&mut self, node: &Node, placed: &Placed) -> Option<Reverse<(u64, u64, NodeId)>> {
        let none = Load::default();
        let load = self.objects.index().loads.get(&node.id).unwrap_or(&none);
        let added = placed.0.get(&node.id).unwrap_or(&none);
        if let Some(reason) = unfit(node, self.spec, load, added) {
            *self.unfit.entry(reason).or_default() += 1;
            return None;
        }
        let of_service = |load: &Load| load.of_service.get(&self.service).copied().unwrap_or(0);
        Some(Reverse((of_service(load) + of_service(added), load.tasks + added.tasks, node.id)))
    }

    /// The best node, which from now on carries one task more.
    pub fn take(&mut self, placed: &mut Placed) -> Option<NodeId> {
        let Reverse((_, _, id)) = self.order.pop()?;
        let load = placed.0.entry(id).or_default();
        load.nano_cpus += self.spec.reservations.nano_cpus;
        load.memory_bytes += self.spec.reservations.memory_bytes;
        load.tasks += 1;
        *load.of_service.entry(self.service).or_default() += 1;
        let node = self.objects.node(id).expect("candidates are nodes of the cluster");
        let place = self.consider(node, placed);
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

fn unfit(node: &Node, spec: &TaskSpec, load: &Load, added: &Load) -> Option<Unfit> {
    if node.state != NodeState::Ready || node.spec.availability != Availability::Active {
        return Some(Unfit::NotAvailable);
    }
    let lacks = |wanted: i64, total: i64, used: i64| wanted > 0 && wanted > total - used;
    let cpus = (spec.reservations.nano_cpus, node.description.nano_cpus, load.nano_cpus + added.nano_cpus);
    let memory = (
        spec.reservations.memory_bytes,
        node.description.memory_bytes,
        load.memory_bytes + added.memory_bytes,
    );
    let lacking = lacks(cpus.0, cpus.1, cpus.2) || lacks(memory.0, memory.1, memory.2);
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
        let mut candidates = Candidates::new(objects, placed, group.0, &first.spec);
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
    plan.changes.push(Change::Assign { task, node, status });
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
