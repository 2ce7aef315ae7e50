//! Managers' seats in their consensus: who may give one up. As SwarmKit's role manager, a seat is only taken
//! away while the others that the leader reaches still are a quorum.

use std::collections::BTreeSet;

use skep_types::NodeId;
use skep_types::node::NodeRole;

use crate::{Objects, SeatStep};

/// Whether the managers can do without a seat. `reachable` are those that the leader reaches; `None` is not
/// known yet, and all are taken to be reached.
pub(crate) fn can_remove(objects: &Objects, reachable: Option<&BTreeSet<u64>>, raft: u64) -> bool {
    is_quorum(&seats(objects), reachable, raft)
}

/// What is to be done about the seats of those that are managers no longer.
pub(crate) fn steps(objects: &Objects, reachable: &BTreeSet<u64>) -> Vec<SeatStep> {
    let mut seats = seats(objects);
    let mut steps = Vec::new();
    for (node, raft) in demoted(objects) {
        // What one step takes is not there for the next.
        if is_quorum(&seats, Some(reachable), raft) {
            seats.remove(&raft);
            steps.push(SeatStep::Remove { node, raft });
        }
    }
    steps
}

fn is_quorum(seats: &BTreeSet<u64>, reachable: Option<&BTreeSet<u64>>, without: u64) -> bool {
    let staying = seats.iter().filter(|seat| **seat != without);
    let members = staying.clone().count();
    let reached = staying.filter(|seat| reachable.is_none_or(|reachable| reachable.contains(seat))).count();
    members > 0 && reached > members / 2
}

fn seats(objects: &Objects) -> BTreeSet<u64> {
    let managers = objects.index().managers.iter().filter_map(|id| objects.node(*id));
    managers.filter_map(|node| node.manager.as_ref()).map(|seat| seat.raft).collect()
}

fn demoted(objects: &Objects) -> impl Iterator<Item = (NodeId, u64)> {
    let managers = objects.index().managers.iter().filter_map(|id| objects.node(*id));
    let demoted = managers.filter(|node| node.spec.role == NodeRole::Worker);
    demoted.filter_map(|node| Some((node.id, node.manager.as_ref()?.raft)))
}
