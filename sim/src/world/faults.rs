//! What strikes, and how it heals.

use std::collections::BTreeSet;

use skep_agent::AgentEvent;
use skep_cluster::{Force, Request};
use skep_types::node::{Availability, NodeRole};
use skep_types::service::Service;

use super::{Happening, Verdict, World};
use crate::checks;
use crate::user::{schedule, unscheduled};

impl World {
    /// Something breaks.
    pub(super) fn fault(&mut self) -> Verdict {
        if !self.unsafe_phase {
            return Ok(());
        }
        self.after(500, 9000, Happening::Fault);
        let node = self.some_machine();
        let manager = self.some_manager();
        let leader = self.consensus.leader.unwrap_or(manager);
        let manager = if self.chance.happens(400) { leader } else { manager };
        let vanish = self.character.nodes_vanish;
        if self.is_small() && self.chance.happens(150) {
            return self.change_role(node);
        }
        match self.chance.below(if self.character.skew > 0 { 14 } else { 12 }) {
            0 | 1 => self.crash_manager(manager),
            2 if vanish => self.kill_daemon(node),
            3 if vanish => self.lose_power(node),
            4 if vanish => self.pause_machine(node),
            5 if vanish => self.remove_node(node),
            6 => self.pause_manager(manager),
            7 | 8 => self.partition(manager),
            12 | 13 => self.set_clock(manager),
            9 if vanish && !self.is_small() => self.lose_rack(node),
            _ => self.cut(node),
        }
    }

    /// The network falls apart in one of many ways, and heals.
    fn partition(&mut self, manager: usize) -> Verdict {
        let machines = self.machines.len();
        let side: BTreeSet<usize> = match self.chance.below(4) {
            // One manager alone.
            0 => BTreeSet::from([manager]),
            // Any part of the nodes, managers or not.
            1 => (0..machines).filter(|_| self.chance.happens(300)).collect(),
            // Some managers, with or without their majority.
            2 => self.managers.keys().copied().filter(|_| self.chance.happens(500)).collect(),
            // One manager and half of the nodes.
            _ => (0..machines)
                .filter(|node| {
                    *node == manager || !self.managers.contains_key(node) && self.chance.happens(500)
                })
                .collect(),
        };
        let bridge = self.chance.happens(200).then(|| self.some_manager());
        let (out, back) = match self.chance.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let managers = self.managers.keys().copied().collect::<BTreeSet<usize>>();
        for one in side.iter().copied().filter(|one| Some(*one) != bridge) {
            // Workers talk to managers only.
            let others = if managers.contains(&one) {
                (0..machines).collect::<BTreeSet<usize>>()
            } else {
                managers.clone()
            };
            for other in others.into_iter().filter(|other| !side.contains(other) && Some(*other) != bridge) {
                if out {
                    self.links.cut(one, other);
                }
                if back {
                    self.links.cut(other, one);
                }
            }
        }
        let shown: Vec<&usize> = side.iter().take(10).collect();
        let count = side.len();
        self.tell_fault(|| {
            format!("{count} nodes {shown:?} are cut off, out {out}, back {back}, but {bridge:?}")
        });
        self.notice_cuts();
        let longest = if self.character.nodes_vanish { 20_000 } else { 1500 };
        self.after(200, longest, Happening::HealLinks);
        Ok(())
    }

    pub(super) fn heal_links(&mut self) -> Verdict {
        if !self.links.is_whole() {
            self.tell_fault(|| "the links heal".to_owned());
            self.links.heal();
        }
        Ok(())
    }

    /// Somebody removes a worker by force, whether it is there or not.
    fn remove_node(&mut self, node: usize) -> Verdict {
        let id = self.machine(node).id;
        if self.is_manager(node) || self.truth.node(id).is_none() {
            return Ok(());
        }
        if self.truth.node(id).is_some_and(|node| node.spec.role == NodeRole::Manager) {
            return Ok(());
        }
        self.tell_fault(|| format!("node {node} ({id}) is removed"));
        if self.chance.happens(500) {
            self.cut(node)?;
        }
        self.machine(node).stays_away = self.chance_of_staying_away();
        self.ask_leader(Request::RemoveNode { id, force: Force::Yes })?;
        if let Some(session) = self.machine(node).session {
            // A node that is removed is told to hold nothing, and its session ends.
            self.after(3000, 6000, Happening::Broken { node, session: session.number });
        }
        Ok(())
    }

    /// Most nodes that are removed come back.
    fn chance_of_staying_away(&mut self) -> bool {
        self.is_small() && self.chance.happens(300)
    }

    /// The whole machine stands still; its kernel's containers, too.
    fn pause_machine(&mut self, node: usize) -> Verdict {
        let pause = self.chance.millis(100, 9000);
        self.tell_fault(|| format!("node {node} stands still for {pause:?}"));
        self.machine(node).paused_until = self.now + pause;
        if let Some(session) = self.machine(node).session.filter(|_| pause.as_secs() >= 2) {
            let (manager, session) = (session.manager, session.number);
            self.at(self.now + super::GRACE, Happening::Lost { node, manager, session });
            self.at(self.now + pause, Happening::Broken { node, session });
        }
        Ok(())
    }

    fn cut(&mut self, node: usize) -> Verdict {
        self.tell_fault(|| format!("the link of node {node} is cut"));
        self.end_session(node);
        let longest = if self.character.nodes_vanish { 15_000 } else { 1500 };
        self.after(10, longest, Happening::Reconnect { node });
        Ok(())
    }

    fn kill_daemon(&mut self, node: usize) -> Verdict {
        if self.machine(node).up {
            self.tell_fault(|| format!("the daemon of node {node} dies"));
            self.end_session(node);
            self.machine(node).kill_daemon();
            let id = self.machine(node).id;
            self.user.forget_guests(id);
            self.after(50, 10_000, Happening::DaemonUp { node });
            if self.managers.contains_key(&node) {
                return self.crash_manager(node);
            }
        }
        Ok(())
    }

    fn lose_power(&mut self, node: usize) -> Verdict {
        if self.machine(node).up {
            self.tell_fault(|| format!("node {node} loses power"));
            self.end_session(node);
            let now = self.now;
            self.machine(node).lose_power(now);
            self.guests_end(node);
            self.book.all_end(node, self.now);
            self.after(1000, 20_000, Happening::DaemonUp { node });
            if self.managers.contains_key(&node) {
                return self.crash_manager(node);
            }
        }
        Ok(())
    }

    /// Some neighbours lose power together.
    fn lose_rack(&mut self, first: usize) -> Verdict {
        let end = (first + self.machines.len() / 20).min(self.machines.len());
        (first..end).try_for_each(|node| self.lose_power(node))
    }

    pub(super) fn start_daemon(&mut self, node: usize) -> Verdict {
        if self.machine(node).up {
            return Ok(());
        }
        self.tell_fault(|| format!("the daemon of node {node} starts"));
        self.machine(node).up = true;
        let found = self.machine(node).found();
        self.agent(node, AgentEvent::Recovered(found))?;
        let torn = self.chance.happens(200);
        let memory = self.machine(node).memory.take().filter(|_| !torn);
        if let Some(memory) = memory {
            self.machine(node).memory = Some(memory.clone());
            self.agent(node, AgentEvent::Remembered(memory.into_values().collect()))?;
        }
        self.connect(node)
    }

    /// Users are content, and every node takes tasks again.
    pub(super) fn rest(&mut self) -> Verdict {
        self.busy = false;
        self.at_rest_since = Some(self.now);
        self.commits_at_rest = self.commits;
        self.set_clocks_right();
        self.heal()
    }

    /// Users take the schedules of all jobs away, once those were kept for a while.
    pub(super) fn unschedule(&mut self) -> Verdict {
        let Some(objects) = self.leaders_objects() else {
            self.after(500, 1000, Happening::Unschedule);
            return Ok(());
        };
        let scheduled: Vec<_> =
            objects.services().filter(|service| schedule(&service.spec.labels).is_some()).cloned().collect();
        if scheduled.is_empty() {
            return Ok(());
        }
        checks::scheduled(self)?;
        // Again a little later: the versions may have moved on meanwhile.
        self.after(1000, 2000, Happening::Unschedule);
        for Service { id, meta, mut spec, .. } in scheduled {
            spec.labels = unscheduled(&spec.labels);
            self.ask_leader(Request::UpdateService { id, version: meta.version, spec: Box::new(spec) })?;
        }
        Ok(())
    }

    /// In half of the runs in which clocks are wrong, all are set right in the end: what was recorded by one that was
    /// ahead is in the future then. In the others they stay wrong.
    fn set_clocks_right(&mut self) {
        if self.character.skew > 0 && self.chance.happens(500) {
            self.tell_fault(|| "all clocks are set right".to_owned());
            self.managers.values_mut().for_each(|manager| manager.skew = 0);
        }
    }

    /// Faults stop, and all that is broken comes back.
    pub(super) fn heal(&mut self) -> Verdict {
        if self.unsafe_phase {
            self.tell_fault(|| "everything heals".to_owned());
        }
        self.unsafe_phase = false;
        self.heal_links()?;
        if self.busy {
            return Ok(());
        }
        let Some(objects) = self.leaders_objects() else {
            self.after(4500, 5000, Happening::Heal);
            return Ok(());
        };
        let drained = self.character.drained.and_then(|number| self.machines.get(number));
        let drained = drained.map(|machine| machine.id);
        let last = |id| if Some(id) == drained { Availability::Drain } else { Availability::Active };
        let wanted: Vec<Request> = objects
            .nodes()
            .filter(|node| node.spec.availability != last(node.id))
            .map(|node| {
                let mut spec = node.spec.clone();
                spec.availability = last(node.id);
                Request::UpdateNode { id: node.id, version: node.meta.version, spec: Box::new(spec) }
            })
            .collect();
        if !wanted.is_empty() {
            // Again a little later: the versions may have moved on meanwhile.
            self.after(1000, 2000, Happening::Heal);
        }
        for request in wanted {
            self.ask_leader(request)?;
        }
        Ok(())
    }
}
