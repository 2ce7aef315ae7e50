//! Clients: each asks some node, takes a backend from the tables in its kernel, and connects. Some stay for long.

use std::time::Duration;

use skep_types::TaskId;

use super::{Happening, Verdict, World};
use crate::checks::{self, Who};

/// The longest time between two clients of a small cluster.
const PAUSE_MS: u64 = 150;

impl World {
    /// Somebody comes.
    pub(super) fn client(&mut self) -> Verdict {
        if !self.busy {
            return Ok(());
        }
        self.after(0, PAUSE_MS, Happening::Client);
        let node = self.some_machine();
        if self.stands_still(node) {
            return Ok(());
        }
        let ingress = self.truth.ingress().map(|network| network.id);
        let backends = self.machine(node).sends(ingress);
        let Some((service, address)) = self.chance.pick(&backends).copied() else { return Ok(()) };
        let Some(((host, who), since)) = self.book.at_address(address).next() else {
            return checks::refused(self, node, address);
        };
        checks::mistaken(self, node, service, (host, who), since)?;
        let Who::Task(task) = who else { return Ok(()) };
        checks::connecting(self, node, host, task)?;
        // Most ask one thing, and some come again and again on the same connection.
        let stays = if self.chance.happens(100) { 20_000 } else { 100 };
        let until = self.now + self.chance.millis(1, stays);
        let found = self.machine(host).containers.get_mut(&task);
        if let Some(container) = found.filter(|container| container.drains_until.is_none()) {
            container.clients.push(until);
        }
        Ok(())
    }

    /// How long it takes until nobody is connected to a container.
    pub(super) fn drains_in(&self, node: usize, task: TaskId, limit: Duration) -> Duration {
        let machine = self.machines.get(node);
        let container = machine.and_then(|machine| machine.containers.get(&task));
        let clients = container.into_iter().flat_map(|container| &container.clients);
        clients.map(|until| until.since(self.now)).max().unwrap_or_default().min(limit)
    }
}
