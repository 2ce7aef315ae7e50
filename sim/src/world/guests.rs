//! Containers that are no tasks, on networks of the cluster: they come and go, and their nodes tell the managers.
//!
//! As the real daemon: one is let in before it runs, and given up after it has ended; what could not be told is told
//! again while the daemon lives, and with each session a node says which guests it has.

use std::net::Ipv4Addr;

use skep_cluster::{Objects, Request};
use skep_types::network::Network;
use skep_types::{ContainerId, NetworkId, NodeId};

use super::{Happening, Verdict, World};
use crate::checks::{self, Who};
use crate::user::Granted;

/// Between two things that guests do.
const PAUSE_MS: u64 = 3000;
/// Guests of one node.
const MOST: usize = 4;

impl World {
    /// A guest comes or goes somewhere.
    pub(super) fn guest_acts(&mut self) -> Verdict {
        if !self.busy {
            return Ok(());
        }
        self.after(0, PAUSE_MS, Happening::Guest);
        let node = self.some_machine();
        // Nobody arrives while the managers are told who is there.
        let id = self.machine(node).id;
        if !self.machine(node).up || self.stands_still(node) || self.user.asks_of_guests(id) {
            return Ok(());
        }
        let here: Vec<(ContainerId, NetworkId)> = self.machine(node).guests.keys().copied().collect();
        let leaves = here.len() >= MOST || self.chance.happens(400);
        match self.chance.pick(&here).copied() {
            Some(key) if leaves => self.guest_leaves(node, key),
            one => self.guest_arrives(node, one.map(|(container, _)| container)),
        }
    }

    /// A new container, or one that is a guest already, asks to be let onto a network.
    fn guest_arrives(&mut self, node: usize, known: Option<ContainerId>) -> Verdict {
        let Some(session) = self.machine(node).session else { return Ok(()) };
        let objects = self.managers.get(&session.manager).and_then(|manager| manager.objects());
        let all: Vec<Network> = objects.into_iter().flat_map(Objects::networks).cloned().collect();
        let open: Vec<&Network> = all.iter().filter(|network| network.attachable).collect();
        // Now and then it asks for one that takes no guests.
        let found = if self.chance.happens(900) {
            self.chance.pick(&open).copied()
        } else {
            self.chance.pick(&all.iter().collect::<Vec<_>>()).copied()
        };
        let Some(network) = found else { return Ok(()) };
        let container = known.filter(|_| self.chance.happens(400)).unwrap_or_else(|| self.ids.container());
        let (from, size) = (u32::from(network.subnet.network()), 1 << (32 - network.subnet.prefix()));
        let address = self.chance.happens(200).then(|| {
            Ipv4Addr::from(from.saturating_add(u32::try_from(self.chance.below(size)).unwrap_or(0)))
        });
        let names = vec![format!("guest{}", self.chance.below(3))];
        let id = self.machine(node).id;
        self.machine(node).leaving.remove(&(container, network.id));
        let request = Request::Attach { node: id, container, network: network.id, names, address };
        self.ask(session.manager, request)
    }

    /// A guest's container has ended, or is disconnected.
    fn guest_leaves(&mut self, node: usize, key: (ContainerId, NetworkId)) -> Verdict {
        let (container, network) = key;
        self.tell(|| format!("guest {} on node {node} leaves network {network}", container.short()));
        if let Some((address, _)) = self.machine(node).guests.remove(&key) {
            self.book.frees((network, address), (node, Who::Guest(container)), self.now);
        }
        self.machine(node).leaving.insert(key);
        let life = self.machine(node).life;
        self.see_out(node, life, key)
    }

    /// The managers are told that a guest has left, again and again until they hear it.
    pub(super) fn see_out(&mut self, node: usize, life: u64, key: (ContainerId, NetworkId)) -> Verdict {
        let machine = self.machine(node);
        if machine.life != life || !machine.leaving.contains(&key) {
            return Ok(());
        }
        let id = machine.id;
        self.after(500, 2000, Happening::SeeOut { node, life, key });
        let Some(session) = self.machine(node).session else { return Ok(()) };
        if self.stands_still(node) || !self.is_linked(node, session.manager) || self.user.asks_of_guests(id) {
            return Ok(());
        }
        self.ask(session.manager, Request::Detach { node: id, container: key.0, network: key.1 })
    }

    /// A node whose session has begun says which guests it has.
    pub(super) fn keep_guests(&mut self, node: usize, number: u64) -> Verdict {
        let Some(session) = self.machine(node).session.filter(|session| session.number == number) else {
            return Ok(());
        };
        let id = self.machine(node).id;
        if self.user.asks_of_guests(id) || self.stands_still(node) {
            self.after(20, 100, Happening::Keep { node, session: number });
            return Ok(());
        }
        // Until it is heard.
        self.after(500, 1500, Happening::Keep { node, session: number });
        if self.machine(node).kept_in == number || !self.is_linked(node, session.manager) {
            return Ok(());
        }
        let guests = self.machine(node).stays();
        self.ask(session.manager, Request::KeepGuests { node: id, guests })
    }

    /// What the managers answered a node about its guests.
    pub(super) fn guest_answered(&mut self, granted: &Granted) -> Verdict {
        match *granted {
            Granted::Attached { node, container, network, address } => {
                let Some(number) = self.numbers.get(&node).copied() else { return Ok(()) };
                self.guest_is_in(number, container, (network, address))
            }
            Granted::Detached { node, container, network } => {
                if let Some(machine) = self.machine_of(node) {
                    machine.leaving.remove(&(container, network));
                }
                Ok(())
            }
            Granted::Kept { node } => {
                if let Some(machine) = self.machine_of(node) {
                    machine.kept_in = machine.session.map_or(0, |session| session.number);
                }
                Ok(())
            }
            Granted::Spec(..) | Granted::Removal(_) | Granted::Network(_) | Granted::NetworkRemoval(_) => {
                Ok(())
            }
        }
    }

    fn machine_of(&mut self, id: NodeId) -> Option<&mut crate::machine::Machine> {
        let number = self.numbers.get(&id).copied()?;
        self.machines.get_mut(number)
    }

    fn guest_is_in(&mut self, node: usize, container: ContainerId, place: (NetworkId, Ipv4Addr)) -> Verdict {
        let (network, address) = place;
        if let Some((had, _)) = self.machine(node).guests.get(&(container, network)).copied() {
            self.book.frees((network, had), (node, Who::Guest(container)), self.now);
        }
        checks::arriving(self, node, container, place)?;
        let now = self.now;
        self.book.holds(place, (node, Who::Guest(container)), now);
        self.machine(node).guests.insert((container, network), (address, now));
        self.tell(|| format!("guest {} runs on node {node} at {address}", container.short()));
        Ok(())
    }

    /// All guests of a node end.
    pub(super) fn guests_end(&mut self, node: usize) {
        for ((container, network), (address, _)) in std::mem::take(&mut self.machine(node).guests) {
            self.book.frees((network, address), (node, Who::Guest(container)), self.now);
        }
        let id = self.machine(node).id;
        self.user.forget_guests(id);
    }
}
