//! What strikes, and how it heals.

use skep_agent::AgentEvent;
use skep_cluster::Request;
use skep_types::node::Availability;

use super::{Flaw, GRACE, Happening, Verdict, World};

impl World {
    /// Something breaks.
    pub(super) fn fault(&mut self) -> Verdict {
        if !self.unsafe_phase {
            return Ok(());
        }
        self.after(500, 9000, Happening::Fault);
        let node = usize::try_from(self.chance.below(self.machines.len() as u64)).unwrap_or(0);
        match self.chance.below(5) {
            0 | 1 => self.crash_manager(),
            2 if self.nodes_vanish => self.kill_daemon(node),
            3 if self.nodes_vanish => self.lose_power(node),
            _ => self.cut(node),
        }
    }

    pub(super) fn crash_manager(&mut self) -> Verdict {
        let Some(cluster) = self.manager.cluster.take() else { return Ok(()) };
        self.tell(|| "the manager dies".to_owned());
        self.manager.life += 1;
        self.manager.wake_at = None;
        let mut last = cluster.objects().clone();
        if self.options.flaw == Flaw::LogForgets {
            self.log.forget_youngest();
        }
        if let Some(changes) = self.manager.in_flight.take()
            && self.chance.happens(500)
        {
            let index = self.append(&changes);
            last.apply(index, &changes);
        }
        if self.options.flaw == Flaw::None && self.log.replay() != last {
            return Err("replaying the log gives other objects than applying its entries did".to_owned());
        }
        self.user.unanswered();
        self.manager.sessions.clear();
        for node in 0..self.machines.len() {
            self.machine(node).session = None;
            self.after(100, 2000, Happening::Reconnect { node });
        }
        self.after(50, 4000, Happening::ManagerUp);
        Ok(())
    }

    /// Ends a node's session. What is on its way is lost.
    fn end_session(&mut self, node: usize) {
        self.machine(node).session = None;
        if let Some(session) = self.manager.sessions.get(&node).copied() {
            self.at(self.now + GRACE, Happening::Lost { node, session });
        }
    }

    fn cut(&mut self, node: usize) -> Verdict {
        self.tell(|| format!("the link of node {node} is cut"));
        self.end_session(node);
        let longest = if self.nodes_vanish { 15_000 } else { 1500 };
        self.after(10, longest, Happening::Reconnect { node });
        Ok(())
    }

    fn kill_daemon(&mut self, node: usize) -> Verdict {
        if self.machine(node).up {
            self.tell(|| format!("the daemon of node {node} dies"));
            self.end_session(node);
            self.machine(node).kill_daemon();
            self.after(50, 10_000, Happening::DaemonUp { node });
        }
        Ok(())
    }

    fn lose_power(&mut self, node: usize) -> Verdict {
        if self.machine(node).up {
            self.tell(|| format!("node {node} loses power"));
            self.end_session(node);
            let now = self.now;
            self.machine(node).lose_power(now);
            self.after(1000, 20_000, Happening::DaemonUp { node });
        }
        Ok(())
    }

    pub(super) fn start_daemon(&mut self, node: usize) -> Verdict {
        if self.machine(node).up {
            return Ok(());
        }
        self.tell(|| format!("the daemon of node {node} starts"));
        self.machine(node).up = true;
        let found = self.machine(node).found();
        self.agent(node, AgentEvent::Recovered(found))?;
        self.connect(node)
    }

    /// Faults and the user stop; all that is broken comes back, and every node takes tasks again.
    pub(super) fn heal(&mut self) -> Verdict {
        self.tell(|| "everything heals".to_owned());
        self.unsafe_phase = false;
        let Some(cluster) = &self.manager.cluster else {
            self.after(4500, 5000, Happening::Heal);
            return Ok(());
        };
        let wanted: Vec<Request> = cluster
            .objects()
            .nodes()
            .filter(|node| node.spec.availability != Availability::Active)
            .map(|node| {
                let mut spec = node.spec.clone();
                spec.availability = Availability::Active;
                Request::UpdateNode { id: node.id, version: node.meta.version, spec: Box::new(spec) }
            })
            .collect();
        if !wanted.is_empty() {
            // Again a little later: the versions may have moved on meanwhile.
            self.after(1000, 2000, Happening::Heal);
        }
        for request in wanted {
            self.ask(request)?;
        }
        Ok(())
    }
}
