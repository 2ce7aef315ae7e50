//! Managers that are made and unmade. A seat among the consensus' members is taken before the state names it, and
//! given up before the state forgets it; each half may get lost and is done again.

use skep_cluster::{Request, SeatStep};
use skep_types::node::NodeRole;
use skep_types::{Ids, NodeId};

use super::{Happening, Verdict, World};
use crate::manager::Manager;

impl World {
    /// Whether a machine has a manager's process, or had one that comes back.
    pub fn is_manager(&self, node: usize) -> bool {
        self.managers.get(&node).is_some_and(|manager| !manager.retired)
    }

    /// Machines see whether they are to be managers.
    pub(super) fn look_at_seats(&mut self) -> Verdict {
        self.after(300, 1500, Happening::Seats);
        if !self.is_small() {
            return Ok(());
        }
        (0..self.machines.len()).try_for_each(|node| self.look_at_seat(node))
    }

    fn look_at_seat(&mut self, node: usize) -> Verdict {
        let reached = |leader: &usize| self.is_confirmed(*leader) && self.links.both(node, *leader);
        let Some(leader) = self.consensus.leader.filter(reached) else { return Ok(()) };
        if !self.machine(node).up || self.stands_still(node) || !self.leads_newest(leader) {
            return Ok(());
        }
        let id = self.machine(node).id;
        let known = self.leaders_objects().and_then(|objects| objects.node(id));
        let role = known.map(|known| known.spec.role);
        let seat = known.and_then(|known| known.manager.clone());
        match role {
            Some(NodeRole::Manager) => {
                if !self.is_manager(node) {
                    self.begin_manager(node);
                }
                let wanted = Some(self.member(node));
                let runs = self.runs(node);
                // Also one that finds that it lost its seat, promoted anew while that was taken away: the real one asks
                // when its process starts.
                let lacks = seat != wanted || !self.consensus.voters.contains(&node);
                if runs && lacks {
                    self.consensus.voters.insert(node);
                    // Now and then the second half gets lost.
                    if self.chance.happens(100) {
                        return Ok(());
                    }
                    self.tell_fault(|| format!("manager {node} takes its seat"));
                    return self.ask(leader, Request::SetSeat { node: id, seat: wanted });
                }
                Ok(())
            }
            Some(NodeRole::Worker) | None if seat.is_none() && self.is_manager(node) => {
                // A seat that the state never named is taken back by who gave it.
                if !self.consensus.voters.contains(&node) || self.unseat_member(leader, node) {
                    self.end_manager(node);
                }
                Ok(())
            }
            Some(NodeRole::Worker) | None => Ok(()),
        }
    }

    /// A worker becomes a manager, with an empty log.
    fn begin_manager(&mut self, node: usize) {
        self.tell_fault(|| format!("node {node} becomes a manager"));
        let mut manager = Manager::new(Ids::new(self.ids.next_u128()));
        manager.life = self.managers.get(&node).map_or(0, |former| former.life) + 1;
        manager.cluster = Some(skep_cluster::Cluster::new(skep_cluster::Objects::default()));
        self.managers.insert(node, manager);
    }

    /// A manager whose seat is gone forgets its log, and is a worker.
    fn end_manager(&mut self, node: usize) {
        self.tell_fault(|| format!("node {node} is a manager no longer"));
        let manager = self.manager(node);
        manager.die();
        manager.retired = true;
        self.user.unanswered(node);
        self.end_sessions_with(node);
    }

    /// A manager's brain asks for a change of the consensus' members.
    pub(super) fn change_seat(&mut self, manager: usize, step: SeatStep) {
        let SeatStep::Remove { node, raft } = step;
        self.after(5, 300, Happening::Unseat { manager, node, raft });
    }

    pub(super) fn unseat(&mut self, manager: usize, id: NodeId, raft: u64) -> Verdict {
        let Some(node) = self.numbers.get(&id).copied() else { return Ok(()) };
        let same = self.managers.get(&node).is_some_and(|manager| manager.seat == raft);
        if !self.is_confirmed(manager) || !same {
            return Ok(());
        }
        if self.consensus.voters.contains(&node) {
            if !self.unseat_member(manager, node) {
                return Ok(());
            }
            if node == manager {
                // Who gave up its own seat leads no longer: the next one tells of it.
                return self.depose(manager);
            }
        }
        if self.chance.happens(100) {
            return Ok(());
        }
        self.ask(manager, Request::SetSeat { node: id, seat: None })
    }

    /// Takes a seat away, if the others are a quorum that the leader reaches: the consensus refuses otherwise.
    fn unseat_member(&mut self, leader: usize, node: usize) -> bool {
        let staying = || self.consensus.voters.iter().copied().filter(|other| *other != node);
        let reached = staying().filter(|other| self.runs(*other) && self.links.both(leader, *other)).count();
        if reached * 2 <= staying().count() {
            return false;
        }
        self.consensus.voters.remove(&node);
        self.tell_fault(|| format!("the seat of manager {node} is taken away"));
        true
    }

    /// Somebody promotes a worker, or demotes a manager.
    pub(super) fn change_role(&mut self, node: usize) -> Verdict {
        let id = self.machine(node).id;
        let Some(known) = self.leaders_objects().and_then(|objects| objects.node(id)) else { return Ok(()) };
        let (version, mut spec) = (known.meta.version, known.spec.clone());
        spec.role = match spec.role {
            NodeRole::Manager => NodeRole::Worker,
            NodeRole::Worker => NodeRole::Manager,
        };
        self.tell_fault(|| format!("node {node} is to be a {:?}", spec.role));
        self.ask_leader(Request::UpdateNode { id, version, spec: Box::new(spec) })
    }
}
