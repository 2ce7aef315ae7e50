//! Users: each asks some manager, leader or not, and that one passes it on to whoever leads.

use skep_cluster::{Event, Request};
use skep_types::ServiceId;
use skep_types::node::{Availability, Node, NodeSpec};

use super::{Happening, Verdict, World};
use crate::story::brief_request;

impl World {
    pub(super) fn user_acts(&mut self) -> Verdict {
        if !self.busy {
            return Ok(());
        }
        // Now and then in quick succession, while an earlier request is on its way into the log.
        let pause = if self.chance.happens(300) { 5 } else { 4000 };
        self.after(0, pause, Happening::User);
        let manager = self.some_manager();
        let small = self.is_small();
        let Some(objects) = self.managers.get(&manager).and_then(|manager| manager.objects()) else {
            return Ok(());
        };
        let request = self.user.think(&mut self.chance, objects, small);
        request.map_or(Ok(()), |request| self.ask(manager, request))
    }

    /// Somebody changes what makes no new tasks.
    pub(super) fn deploy(&mut self, service: ServiceId) -> Verdict {
        let service = self.leaders_objects().and_then(|objects| objects.service(service)).cloned();
        let Some(service) = service.filter(|_| self.busy) else { return Ok(()) };
        let mut spec = service.spec;
        spec.labels.insert("deployed".to_owned(), self.now.to_string());
        let version = service.meta.version;
        self.ask_leader(Request::UpdateService { id: service.id, version, spec: Box::new(spec) })
    }

    /// Somebody drains a node, until somebody else needs it again.
    pub(super) fn drain(&mut self, node: usize) -> Verdict {
        let id = self.machine(node).id;
        let known = self.leaders_objects().and_then(|objects| objects.node(id));
        let Some(Node { meta, spec, .. }) = known.filter(|_| self.busy).cloned() else { return Ok(()) };
        let spec = Box::new(NodeSpec { availability: Availability::Drain, ..spec });
        self.ask_leader(Request::UpdateNode { id, version: meta.version, spec })
    }

    /// Asks a manager for something.
    pub(super) fn ask(&mut self, asked: usize, request: Request) -> Verdict {
        let believed =
            self.managers.iter().filter(|(_, manager)| manager.leads.is_some()).map(|(number, _)| *number);
        let reached: Vec<usize> =
            believed.filter(|leader| self.links.both(asked, *leader) && self.runs(*leader)).collect();
        let leader = if reached.contains(&asked) { Some(asked) } else { self.chance.pick(&reached).copied() };
        let Some(leader) = leader.filter(|_| self.runs(asked)) else {
            self.tell(|| format!("manager {asked} knows no leader for: {}", brief_request(&request)));
            return Ok(());
        };
        let (id, request) = self.user.ask(leader, request);
        self.tell(|| format!("request {} by {asked} to {leader}: {}", id.0, brief_request(&request)));
        self.step(leader, Event::Request(id, request))
    }

    /// Asks whoever leads in truth.
    pub(super) fn ask_leader(&mut self, request: Request) -> Verdict {
        match self.consensus.leader.filter(|leader| self.is_confirmed(*leader)) {
            Some(leader) => self.ask(leader, request),
            None => Ok(()),
        }
    }
}
