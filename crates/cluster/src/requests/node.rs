//! Nodes that join, change and leave.

use std::collections::BTreeSet;

use skep_types::node::{Member, Node, NodeRole, NodeSpec, NodeState};
use skep_types::{Meta, NodeId, Version};

use super::{out_of_sequence, refuse};
use crate::plan::Plan;
use crate::seats;
use crate::{Answer, Change, Force, Refusal, RefusalKind};

fn not_found<T>(id: NodeId) -> Result<T, Refusal> {
    refuse(RefusalKind::NotFound, format!("node {id} not found"))
}

fn known<'a>(plan: &Plan<'a>, id: NodeId) -> Option<&'a Node> {
    plan.objects.node(id).filter(|_| !plan.removed_nodes.contains(&id))
}

/// In SwarmKit's words.
fn refuse_taken_name(plan: &Plan, id: NodeId, name: &str) -> Result<(), Refusal> {
    let first = (name.to_owned(), NodeId(u128::MIN));
    let last = (name.to_owned(), NodeId(u128::MAX));
    let holders = plan.objects.index().node_names.range(first..=last).map(|(_, holder)| *holder);
    // What the batch changes has the name that it will have.
    let staying = |holder: &NodeId| !plan.nodes.contains_key(holder) && !plan.removed_nodes.contains(holder);
    let changed = plan.nodes.values().filter(|node| node.spec.name == name).map(|node| node.id);
    if !name.is_empty() && holders.filter(staying).chain(changed).any(|holder| holder != id) {
        return refuse(RefusalKind::Conflict, "name conflicts with an existing object");
    }
    Ok(())
}

/// Lets a node in. One that is in already keeps what is wanted of it: joining may be repeated.
pub(super) fn add(plan: &mut Plan, mut node: Node) -> Result<Answer, Refusal> {
    if plan.removed_nodes.contains(&node.id) {
        return out_of_sequence();
    }
    refuse_taken_name(plan, node.id, &node.spec.name)?;
    if plan.objects.node(node.id).is_none() {
        node.meta = Meta { version: Version(0), created_at: plan.now, updated_at: plan.now };
        plan.nodes.entry(node.id).or_insert(node);
    }
    Ok(Answer::Done)
}

pub(super) fn update(
    plan: &mut Plan,
    reachable: Option<&BTreeSet<u64>>,
    id: NodeId,
    version: Version,
    spec: NodeSpec,
) -> Result<Answer, Refusal> {
    let Some(node) = known(plan, id) else { return not_found(id) };
    if node.meta.version != version || plan.nodes.contains_key(&id) {
        return out_of_sequence();
    }
    let demoted = node.spec.role == NodeRole::Manager && spec.role == NodeRole::Worker;
    if demoted && managers(plan) <= 1 {
        let message = "attempting to demote the last manager of the swarm";
        return refuse(RefusalKind::Precondition, message);
    }
    let seat = node.manager.as_ref().filter(|_| demoted);
    if seat.is_some_and(|seat| !seats::can_remove(plan.objects, reachable, seat.raft)) {
        let message = "can't remove member from the raft: this would result in a loss of quorum";
        return refuse(RefusalKind::Precondition, message);
    }
    refuse_taken_name(plan, id, &spec.name)?;
    let meta = Meta { updated_at: plan.now, ..node.meta };
    plan.nodes.insert(id, Node { meta, spec, ..node.clone() });
    Ok(Answer::Done)
}

/// Records a manager's seat in the consensus.
pub(super) fn set_seat(plan: &mut Plan, id: NodeId, seat: Option<Member>) -> Result<Answer, Refusal> {
    let Some(known) = known(plan, id) else { return not_found(id) };
    let mut node = plan.nodes.get(&id).unwrap_or(known).clone();
    if let Some(seat) = &seat {
        if node.spec.role != NodeRole::Manager {
            return refuse(RefusalKind::Precondition, format!("node {id} is not a manager"));
        }
        if node.manager.as_ref().is_some_and(|held| held.raft != seat.raft) {
            return refuse(RefusalKind::Conflict, format!("node {id} has another seat among the managers"));
        }
    }
    if node.manager != seat {
        node.manager = seat;
        node.meta.updated_at = plan.now;
        plan.nodes.insert(id, node);
    }
    Ok(Answer::Done)
}

pub(super) fn remove(plan: &mut Plan, id: NodeId, force: Force) -> Result<Answer, Refusal> {
    let Some(node) = known(plan, id) else { return not_found(id) };
    if plan.nodes.contains_key(&id) {
        return out_of_sequence();
    }
    // As in SwarmKit, a manager that never took its seat is no obstacle.
    if node.manager.is_some() || node.spec.role == NodeRole::Manager && managers(plan) <= 1 {
        let message = format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker \
             before removal"
        );
        return refuse(RefusalKind::Precondition, message);
    }
    if force == Force::No && node.state == NodeState::Ready {
        let message = format!("node {id} is not down and can't be removed");
        return refuse(RefusalKind::Precondition, message);
    }
    plan.removed_nodes.insert(id);
    plan.changes.push(Change::RemoveNode(id));
    Ok(Answer::Done)
}

/// Those that are to be managers as they will be after this batch.
fn managers(plan: &Plan) -> usize {
    let known = plan.objects.index().managers.iter().filter_map(|id| plan.objects.node(*id));
    let staying = known.filter(|node| !plan.nodes.contains_key(&node.id));
    staying.chain(plan.nodes.values()).filter(|node| node.spec.role == NodeRole::Manager).count()
}
