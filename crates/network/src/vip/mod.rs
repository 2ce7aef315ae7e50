//! Virtual addresses of services: in each sandbox a table for each of its bridges rewrites the destination of what its
//! processes send. `docs/adr/0013-virtual-addresses.md` explains the layout and gives its measures.
//!
//! Every sandbox on a bridge has the same table, so it is planned once. A sandbox's processes may have the right to change
//! tables: each transaction says which generation of the namespace's rules it builds on, and when somebody else has
//! changed any since, all of ours are written anew.

mod rules;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::conntrack;
use crate::model::{Bridge, VirtualServices};
use crate::netlink::Socket;
use crate::rules::encode;
use table::{Edit, Table};

/// How often a whole table is tried to be written while others change theirs.
const ATTEMPTS: u32 = 10;

/// What is known of all bridges' services, and the ways into sandboxes.
#[derive(Debug)]
pub(crate) struct Virtual {
    instance: String,
    /// The services of bridges; of those that are not here nothing is known yet.
    tables: BTreeMap<String, Table>,
    /// An IPv6 address of each bridge that has one.
    subnets6: BTreeMap<String, Ipv6Addr>,
    doors: BTreeMap<String, Door>,
}

/// A sandbox whose namespace has tables of ours.
#[derive(Debug)]
struct Door {
    /// It keeps the namespace in being, so it must go with the sandbox.
    socket: Socket,
    /// The rules' generation after our last change.
    generation: u32,
    /// The bridges that have a table here, with its families.
    present: BTreeMap<String, BTreeSet<u8>>,
    /// Those of them whose tables are as they should be.
    laid: BTreeSet<String>,
}

/// A change of one bridge's services, planned.
#[derive(Debug)]
pub(crate) struct Change {
    edits: Vec<Edit>,
    /// Virtual addresses some of whose flows may go astray now, with who answers there.
    strays: VirtualServices,
}

impl Virtual {
    pub(crate) fn new(instance: &str) -> Virtual {
        Virtual {
            instance: instance.to_owned(),
            tables: BTreeMap::new(),
            subnets6: BTreeMap::new(),
            doors: BTreeMap::new(),
        }
    }

    /// Notes the bridges' IPv6 addresses: services have the ones there that go with theirs.
    pub(crate) fn note_subnets6<'b>(&mut self, bridges: impl Iterator<Item = &'b Bridge>) {
        let six = bridges.filter_map(|bridge| Some((bridge.name.clone(), bridge.gateway6?.address)));
        self.subnets6 = six.collect();
    }

    /// Notes that a bridge has these services and no others.
    pub(crate) fn set(&mut self, bridge: &str, services: &VirtualServices) -> Change {
        let known = self.tables.entry(bridge.to_owned()).or_default();
        let remove = known.addresses().filter(|address| !services.contains_key(address)).collect();
        self.change(bridge, services, &remove)
    }

    /// Notes a change of a bridge's services.
    pub(crate) fn change(
        &mut self,
        bridge: &str,
        update: &VirtualServices,
        remove: &BTreeSet<Ipv4Addr>,
    ) -> Change {
        let table = self.tables.entry(bridge.to_owned()).or_default();
        let loses = |address: &Ipv4Addr, backends: &[Ipv4Addr]| match table.backends(*address) {
            Some(before) => before.iter().any(|backend| !backends.contains(backend)),
            // Flows may have begun before the service.
            None => true,
        };
        let updated = update.iter().filter(|(address, backends)| loses(address, backends));
        let mut strays: VirtualServices = updated.map(|(it, backends)| (*it, backends.clone())).collect();
        let gone = remove.iter().filter(|it| !update.contains_key(it) && table.backends(**it).is_some());
        strays.extend(gone.map(|address| (*address, Vec::new())));
        Change { edits: table.change(update, remove), strays }
    }

    /// Whether a sandbox on the bridge needs a table for it: one is there until the sandbox leaves the bridge, since a
    /// namespace without any no longer rewrites the packets of connections that go on.
    pub(crate) fn concerns(&self, bridge: &str, sandbox: &str) -> bool {
        let is_present = || self.doors.get(sandbox).is_some_and(|door| door.present.contains_key(bridge));
        self.tables.get(bridge).is_some_and(|table| !table.is_empty() || is_present())
    }

    /// Brings a change about in a sandbox. `bridges` are all that it is on, `open` gives a netfilter socket of its namespace.
    pub(crate) fn apply(
        &mut self,
        (sandbox, bridges): (&str, &BTreeSet<String>),
        bridge: &str,
        change: &Change,
        open: impl FnOnce() -> io::Result<Socket>,
    ) -> io::Result<()> {
        let name = rules::table_name(&self.instance, bridge);
        let subnet6 = self.subnets6.get(bridge).copied();
        let changed = match self.doors.get_mut(sandbox).filter(|door| door.laid.contains(bridge)) {
            Some(door) if change.edits.is_empty() => {
                encode::generation(&mut door.socket).is_ok_and(|generation| generation == door.generation)
            }
            Some(door) => {
                door.transact(|generation| rules::change(generation, &name, subnet6, &change.edits)).is_ok()
            }
            None => false,
        };
        if !changed {
            if let Some(door) = self.doors.get_mut(sandbox) {
                door.laid.remove(bridge);
            }
            self.lay(sandbox, bridges, open)?;
        }
        let Some(door) = self.doors.get_mut(sandbox) else { return Ok(()) };
        if !change.strays.is_empty() {
            conntrack::forget_strays(&mut door.socket, &change.strays, subnet6)?;
        }
        door.socket.rest();
        Ok(())
    }

    /// Writes all tables of a sandbox that are not as they should be, or may not be.
    pub(crate) fn lay(
        &mut self,
        sandbox: &str,
        bridges: &BTreeSet<String>,
        open: impl FnOnce() -> io::Result<Socket>,
    ) -> io::Result<()> {
        if !self.doors.contains_key(sandbox) {
            self.doors.insert(sandbox.to_owned(), Door::new(open()?)?);
        }
        let Some(door) = self.doors.get_mut(sandbox) else { return Ok(()) };
        for _ in 0..ATTEMPTS {
            let generation = encode::generation(&mut door.socket)?;
            if generation != door.generation {
                door.generation = generation;
                door.laid.clear();
            }
            let mut wanted = self.tables.iter().filter(|(bridge, _)| bridges.contains(*bridge));
            let written = wanted.try_for_each(|(bridge, table)| {
                door.lay(&self.instance, (bridge, self.subnets6.get(bridge).copied()), table)
            });
            match written {
                Err(error) if error.raw_os_error() == Some(libc::ERESTART) => {}
                other => {
                    door.socket.rest();
                    return other;
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::ERESTART))
    }

    /// Removes what a sandbox has for a bridge that it leaves.
    pub(crate) fn leave(&mut self, sandbox: &str, bridge: &str) -> io::Result<()> {
        let Some(door) = self.doors.get_mut(sandbox) else { return Ok(()) };
        door.laid.remove(bridge);
        let Some(families) = door.present.remove(bridge) else { return Ok(()) };
        let name = rules::table_name(&self.instance, bridge);
        let removed = match door.transact(|generation| rules::remove(generation, &name, &families)) {
            Err(error) if error.raw_os_error() == Some(libc::ERESTART) => {
                // The next change finds the same and writes all others anew.
                let generation = encode::generation(&mut door.socket)?;
                door.socket.transact(rules::remove(generation, &name, &families))
            }
            other => other,
        };
        door.socket.rest();
        removed
    }

    /// One change of rules in a sandbox was made beside ours by this process. It is no reason to write ours anew, unless there
    /// were others.
    pub(crate) fn note_own_rules(&mut self, sandbox: &str) -> io::Result<()> {
        let Some(door) = self.doors.get_mut(sandbox) else { return Ok(()) };
        let generation = encode::generation(&mut door.socket)?;
        door.socket.rest();
        if generation == encode::next_generation(door.generation) {
            door.generation = generation;
        }
        Ok(())
    }

    /// Forgets a sandbox that is about to go.
    pub(crate) fn close(&mut self, sandbox: &str) {
        self.doors.remove(sandbox);
    }

    /// Begins anew with what is known of bridges.
    pub(crate) fn reset(&mut self, services: &BTreeMap<String, VirtualServices>) {
        self.doors.clear();
        self.tables = services.iter().map(|(bridge, it)| (bridge.clone(), Table::of(it))).collect();
    }

    /// Looks into a sandbox that is on `bridges`, at the start: what it has for other bridges is removed, and named.
    pub(crate) fn adopt(
        &mut self,
        sandbox: &str,
        bridges: &BTreeSet<String>,
        socket: Socket,
    ) -> io::Result<Vec<String>> {
        let mut door = Door::new(socket)?;
        let prefix = rules::table_prefix(&self.instance);
        let tables = encode::tables(&mut door.socket)?;
        for (family, bridge) in tables.iter().filter_map(|(it, name)| Some((it, name.strip_prefix(&prefix)?)))
        {
            door.present.entry(bridge.to_owned()).or_default().insert(*family);
        }
        let unwanted = door.present.keys().filter(|bridge| !bridges.contains(*bridge)).cloned();
        let unwanted: Vec<String> = unwanted.collect();
        self.doors.insert(sandbox.to_owned(), door);
        unwanted.iter().try_for_each(|bridge| self.leave(sandbox, bridge))?;
        Ok(unwanted)
    }

    /// Bridges of a sandbox that should have a table there, and have none or one that may be wrong.
    pub(crate) fn lacks(&self, sandbox: &str, bridges: &BTreeSet<String>) -> Vec<String> {
        let has =
            |bridge: &&String| self.doors.get(sandbox).is_some_and(|it| it.present.contains_key(*bridge));
        let wanted = bridges.iter().filter(|it| self.tables.get(*it).is_some_and(|table| !table.is_empty()));
        wanted.filter(|bridge| !has(bridge)).cloned().collect()
    }

    /// Writes what an adopted sandbox should have, and forgets its flows that went astray meanwhile.
    pub(crate) fn restore(
        &mut self,
        sandbox: &str,
        bridges: &BTreeSet<String>,
        strays: &VirtualServices,
    ) -> io::Result<()> {
        self.lay(sandbox, bridges, || Err(io::ErrorKind::NotFound.into()))?;
        let Some(door) = self.doors.get_mut(sandbox) else { return Ok(()) };
        let mut forgotten = Ok(());
        if !strays.is_empty() {
            let subnets6 = bridges.iter().filter_map(|bridge| self.subnets6.get(bridge).copied()).map(Some);
            for subnet6 in subnets6.chain([None]) {
                forgotten = forgotten.and(conntrack::forget_strays(&mut door.socket, strays, subnet6));
            }
        }
        door.socket.rest();
        forgotten
    }

    /// Closes the door to a sandbox that has no table.
    pub(crate) fn close_unused(&mut self, sandbox: &str) {
        if self.doors.get(sandbox).is_some_and(|door| door.present.is_empty()) {
            self.doors.remove(sandbox);
        }
    }
}

impl Door {
    fn new(mut socket: Socket) -> io::Result<Door> {
        let generation = encode::generation(&mut socket)?;
        Ok(Door { socket, generation, present: BTreeMap::new(), laid: BTreeSet::new() })
    }

    /// Writes a table unless it is as it should be; an empty one only in the place of another.
    fn lay(
        &mut self,
        instance: &str,
        (bridge, subnet6): (&str, Option<Ipv6Addr>),
        table: &Table,
    ) -> io::Result<()> {
        if self.laid.contains(bridge) || (table.is_empty() && !self.present.contains_key(bridge)) {
            return Ok(());
        }
        let (name, whole) = (rules::table_name(instance, bridge), table.whole());
        self.transact(|generation| rules::replace(generation, &name, subnet6, &whole))?;
        self.present.insert(bridge.to_owned(), rules::families(subnet6));
        self.laid.insert(bridge.to_owned());
        Ok(())
    }

    /// Makes one change that builds on the last.
    fn transact(&mut self, batch: impl FnOnce(u32) -> crate::netlink::Messages) -> io::Result<()> {
        self.socket.transact(batch(self.generation))?;
        self.generation = encode::next_generation(self.generation);
        Ok(())
    }
}
