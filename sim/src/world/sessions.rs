//! The sessions between agents and managers.

use skep_agent::AgentEvent;
use skep_cluster::Event;
use skep_types::NodeId;
use skep_types::assignment::{Assignment, StatusReport};

use super::{GRACE, Happening, Verdict, World, address};
use crate::machine::Session;
use crate::options::Flaw;

/// In a big cluster only each so many-th daemon remembers its duties.
const SPARSE_MEMORIES: usize = 50;

impl World {
    /// An agent without a session tries a manager.
    pub(super) fn connect(&mut self, node: usize) -> Verdict {
        if !self.machine(node).up || self.machine(node).session.is_some() {
            return Ok(());
        }
        let hint = self.consensus.leader.filter(|_| self.chance.happens(700));
        let manager = hint.unwrap_or_else(|| self.some_manager());
        self.sequence += 1;
        let number = self.sequence;
        let session =
            Session { number, manager, down_is_cut: false, up_is_cut: false, has_acknowledged: false };
        let now = self.now;
        let machine = self.machine(node);
        machine.session = Some(session);
        (machine.down_link, machine.up_link) = (now, now);
        self.after(0, 10, Happening::Hello { node, session: number });
        Ok(())
    }

    /// The session that a node holds, if it is this one.
    fn session(&self, node: usize, number: u64) -> Option<Session> {
        self.machines.get(node)?.session.filter(|session| session.number == number)
    }

    pub(super) fn hello(&mut self, node: usize, number: u64) -> Verdict {
        let Some(Session { manager, .. }) = self.session(node, number) else { return Ok(()) };
        // A manager opens sessions while it believes to lead, and once a quorum confirmed that.
        let leads = self.manager(manager).leads.is_some() && self.runs(manager);
        let confirmed = self.is_confirmed(manager) || self.options.flaw == Flaw::StaleAssignments;
        let awake = !self.stands_still(node);
        if !(leads && confirmed && awake && self.links.both(node, manager)) {
            self.machine(node).session = None;
            self.after(50, 500, Happening::Reconnect { node });
            return Ok(());
        }
        let id = self.machine(node).id;
        let known = self.manager(manager).objects().is_some_and(|objects| objects.node(id).is_some());
        self.tell(|| format!("node {node} opens session {number} with manager {manager}"));
        self.manager(manager).sessions.insert(node, number);
        let description = Box::new(self.description(node));
        let address = address(node);
        self.step(manager, Event::NodeReady { node: id, description, address, data_path: None })?;
        self.after(0, 100, Happening::Keep { node, session: number });
        if !known {
            self.guests_end(node);
            // It was told to hold nothing. It comes again, as another node once it has left.
            self.manager(manager).sessions.remove(&node);
            self.after(2000, 4000, Happening::Rejoin { node });
            self.after(1000, 2000, Happening::Broken { node, session: number });
        }
        Ok(())
    }

    /// A manager's brain sends a node its duties, as of a position of the log.
    pub(super) fn send(&mut self, manager: usize, id: NodeId, index: u64, assignment: Assignment) {
        let Some(node) = self.numbers.get(&id).copied() else { return };
        let Some(session) = self.manager(manager).sessions.get(&node).copied() else { return };
        let late = if self.unsafe_phase && self.chance.happens(20) { 1500 } else { 10 };
        let arrival = (self.now + self.chance.millis(0, late)).max(self.machine(node).down_link);
        self.machine(node).down_link = arrival;
        self.at(arrival, Happening::Deliver { node, manager, session, index, assignment });
    }

    pub(super) fn deliver(
        &mut self,
        node: usize,
        manager: usize,
        number: u64,
        index: u64,
        assignment: Assignment,
    ) -> Verdict {
        let paused = self.machine(node).paused_until;
        if paused > self.now {
            self.at(paused, Happening::Deliver { node, manager, session: number, index, assignment });
            return Ok(());
        }
        let open = self.session(node, number).is_some_and(|session| !session.down_is_cut);
        let late = self.options.flaw == Flaw::StaleAssignments && self.machine(node).up;
        if !open && !late {
            return Ok(());
        }
        if !self.links.carries(manager, node) && !late {
            if let Some(session) = &mut self.machine(node).session {
                session.down_is_cut = true;
            }
            return Ok(());
        }
        let newest = self.machine(node).duties_at;
        if index < newest {
            return Err(format!(
                "node {node} ({}) is given its duties as of entry {index} after those of entry {newest}",
                self.machine(node).id
            ));
        }
        self.machine(node).duties_at = index;
        // A thousand memories of a thousand peers are more than one machine has.
        if self.is_small() || node.is_multiple_of(SPARSE_MEMORIES) {
            self.machine(node).remember(&assignment);
        }
        self.agent(node, AgentEvent::Assigned { number: index, assignment })
    }

    /// An agent reports to the manager that it has a session with.
    pub(super) fn report(&mut self, node: usize, reports: Vec<StatusReport>) {
        let Some(session) = self.machine(node).session else { return };
        if self.options.flaw == Flaw::ReportsVanish && self.chance.happens(50) {
            return;
        }
        let late = if self.unsafe_phase && self.chance.happens(50) { 300 } else { 10 };
        let arrival = (self.now + self.chance.millis(0, late)).max(self.machine(node).up_link);
        self.machine(node).up_link = arrival;
        let Session { number, manager, .. } = session;
        if self.unsafe_phase && self.chance.happens(30) {
            let reports = reports.clone();
            self.at(arrival, Happening::Reports { node, manager, session: number, reports });
        }
        self.at(arrival, Happening::Reports { node, manager, session: number, reports });
    }

    pub(super) fn reported(
        &mut self,
        node: usize,
        manager: usize,
        number: u64,
        reports: Vec<StatusReport>,
    ) -> Verdict {
        let paused = self.manager(manager).paused_until;
        if paused > self.now {
            self.at(paused, Happening::Reports { node, manager, session: number, reports });
            return Ok(());
        }
        if !self.hears(manager, node, number) {
            return Ok(());
        }
        let id = self.machine(node).id;
        for StatusReport { task, status } in &reports {
            let (state, error) = (status.state, &status.error);
            self.tell(|| format!("node {node} reports {task} {state} {error} to manager {manager}"));
        }
        self.step(manager, Event::Reports(id, reports))
    }

    /// An agent's tables are as its assignment of this number says.
    pub(super) fn acknowledge(&mut self, node: usize, number: u64) {
        let Some(known) = &mut self.machine(node).session else { return };
        known.has_acknowledged = true;
        let (session, manager) = (known.number, known.manager);
        // Both ways together take no longer than managers are willing to wait.
        let late = if self.unsafe_phase && self.chance.happens(50) { 200 } else { 10 };
        let arrival = (self.now + self.chance.millis(0, late)).max(self.machine(node).up_link);
        self.machine(node).up_link = arrival;
        self.at(arrival, Happening::Acknowledged { node, manager, session, number });
    }

    pub(super) fn acknowledged(&mut self, node: usize, manager: usize, session: u64, number: u64) -> Verdict {
        let paused = self.manager(manager).paused_until;
        if paused > self.now {
            self.at(paused, Happening::Acknowledged { node, manager, session, number });
            return Ok(());
        }
        // It may be late: what it says is so whoever hears it.
        let late = self.unsafe_phase && self.chance.happens(30);
        if late || self.hears(manager, node, session) {
            let id = self.machine(node).id;
            return self.step(manager, Event::Acknowledged { node: id, number });
        }
        Ok(())
    }

    /// Whether what an agent says in a session arrives.
    pub(super) fn hears(&mut self, manager: usize, node: usize, number: u64) -> bool {
        let held = self.session(node, number);
        if held.is_some_and(|session| session.up_is_cut)
            || self.manager(manager).sessions.get(&node) != Some(&number)
        {
            return false;
        }
        let carries = self.links.carries(node, manager);
        if !carries
            && let Some(session) =
                self.machine(node).session.as_mut().filter(|session| session.number == number)
        {
            session.up_is_cut = true;
        }
        carries
    }

    /// The manager's time of grace for a session is over.
    pub(super) fn lost(&mut self, node: usize, manager: usize, number: u64) -> Verdict {
        let paused = self.manager(manager).paused_until;
        if paused > self.now {
            self.at(paused, Happening::Lost { node, manager, session: number });
            return Ok(());
        }
        if self.manager(manager).sessions.get(&node) != Some(&number) {
            return Ok(());
        }
        self.tell(|| format!("manager {manager} gives up node {node}"));
        self.manager(manager).sessions.remove(&node);
        let id = self.machine(node).id;
        self.step(manager, Event::NodeLost { node: id, reason: "heartbeat failure".to_owned() })
    }

    /// An agent finds its session broken.
    pub(super) fn broken(&mut self, node: usize, number: u64) -> Verdict {
        if self.session(node, number).is_some() {
            self.end_session(node);
            self.after(10, 300, Happening::Reconnect { node });
        }
        Ok(())
    }

    /// Ends a node's session. What is on its way is lost.
    pub(super) fn end_session(&mut self, node: usize) {
        let Some(Session { number, manager, .. }) = self.machine(node).session.take() else { return };
        let life = self.machine(node).life;
        self.at(self.now, Happening::Alone { node, life });
        if self.manager(manager).sessions.get(&node) == Some(&number) {
            self.at(self.now + GRACE, Happening::Lost { node, manager, session: number });
        }
    }

    /// A manager holds no sessions any more; its agents find out at once, or after a while.
    pub(super) fn end_sessions_with(&mut self, manager: usize) {
        self.manager(manager).sessions.clear();
        for node in 0..self.machines.len() {
            let Some(session) = self.machine(node).session.filter(|session| session.manager == manager)
            else {
                continue;
            };
            let longest = if self.links.both(node, manager) { 300 } else { 3000 };
            self.after(20, longest, Happening::Broken { node, session: session.number });
        }
    }

    /// After links changed: sessions over links that are cut will be found broken by both ends.
    pub(super) fn notice_cuts(&mut self) {
        for node in 0..self.machines.len() {
            let Some(session) = self.machine(node).session else { continue };
            let Session { number, manager, .. } = session;
            let (down, up) = (self.links.carries(manager, node), self.links.carries(node, manager));
            if down && up {
                continue;
            }
            self.after(1000, 3000, Happening::Broken { node, session: number });
            if !up && self.manager(manager).sessions.get(&node) == Some(&number) {
                self.at(self.now + GRACE, Happening::Lost { node, manager, session: number });
            }
        }
    }

    /// A node that the managers removed comes back as another one, once nothing of the old one runs.
    pub(super) fn rejoin(&mut self, node: usize) -> Verdict {
        let machine = self.machine(node);
        let old = machine.id;
        let stays = self.machine(node).stays_away || self.is_manager(node);
        if self.truth.node(old).is_some() || !self.machine(node).up || stays {
            return Ok(());
        }
        if !self.machine(node).containers.is_empty() {
            return Ok(());
        }
        let id = NodeId(self.ids.next_u128());
        self.tell_fault(|| format!("node {node} leaves as {old} and comes back as {id}"));
        self.end_session(node);
        self.machine(node).id = id;
        self.guests_end(node);
        self.machine(node).duties_at = 0;
        self.machine(node).memory = None;
        self.numbers.remove(&old);
        self.numbers.insert(id, node);
        self.join(node)?;
        self.after(100, 300, Happening::Reconnect { node });
        Ok(())
    }
}
