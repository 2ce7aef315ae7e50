//! What sandboxes on one bridge know of its services, laid out as the kernel holds it. Pure.
//!
//! Backends stand in groups of [`GROUP_LEN`], each one element of a map: an element's own cost is a few times an
//! address's, so groups need an eighth of the memory that an element for each backend would. Rules and chains belong to no
//! service: a service is data, and a change touches its groups alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::VirtualServices;

/// Backends in a group: as many as the registers hold that nft looks a value up into.
pub(crate) const GROUP_LEN: usize = 16;
/// Services of one size that each have a counter of their own, so that their backends take exact turns. A counter that
/// two services shared would send one who asks them alternately to the same backends for ever; so the others draw lots.
const COUNTERS: u8 = 8;

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// There is none: refuse at once.
    Refuse,
    /// There is one.
    Single,
    /// The service with that counter: one of so many after the other.
    Turn { of: u32, counter: u8 },
    /// Any of so many.
    Random { of: u32 },
}

impl Class {
    /// The number under which rules find the class.
    pub(crate) fn number(self) -> u32 {
        match self {
            Class::Refuse => 0,
            Class::Single => 1 << 8,
            Class::Turn { of, counter } => of << 8 | u32::from(counter),
            Class::Random { of } => of << 8 | 0xff,
        }
    }
}

/// One step of a change. The order in which [`Table`] gives them is one in which the kernel accepts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Rules that send a connection to the backend of that place.
    AddPlace(u32),
    /// Rules that choose a place.
    AddClass(Class),
    RemoveGroup(Ipv4Addr, u32),
    RemoveService(Ipv4Addr),
    AddGroup(Ipv4Addr, u32, Vec<Ipv4Addr>),
    AddService(Ipv4Addr, Class),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    class: Class,
    /// Each in its place.
    backends: Vec<Ipv4Addr>,
}

/// The services of a bridge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    services: BTreeMap<Ipv4Addr, Service>,
    /// The classes that have rules; those of no service stay, since adding one costs more than all else.
    classes: BTreeSet<Class>,
    /// Counters in use.
    taken: BTreeSet<(u32, u8)>,
    places: u32,
}

impl Table {
    /// The table of these services.
    pub(crate) fn of(services: &VirtualServices) -> Table {
        let mut table = Table::default();
        table.change(services, &BTreeSet::new());
        table
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Who answers at a virtual address; `None` when it is not known.
    pub(crate) fn backends(&self, address: Ipv4Addr) -> Option<&[Ipv4Addr]> {
        self.services.get(&address).map(|service| &service.backends[..])
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.services.keys().copied()
    }

    /// Changes services; what is gone and unknown does not matter.
    pub(crate) fn change(&mut self, update: &VirtualServices, remove: &BTreeSet<Ipv4Addr>) -> Vec<Edit> {
        let (mut rules, mut data) = (Vec::new(), Vec::new());
        for address in remove.iter().filter(|address| !update.contains_key(address)) {
            if let Some(service) = self.services.remove(address) {
                self.give_back(service.class);
                for (number, _) in groups(&service.backends) {
                    data.push(Edit::RemoveGroup(*address, number));
                }
                data.push(Edit::RemoveService(*address));
            }
        }
        for (address, backends) in update {
            self.set(*address, backends, &mut rules, &mut data);
        }
        rules.append(&mut data);
        rules
    }

    /// All of it, for an empty table.
    pub(crate) fn whole(&self) -> Vec<Edit> {
        let places = (0..self.places).map(Edit::AddPlace);
        let classes = self.classes.iter().map(|class| Edit::AddClass(*class));
        let services = self.services.iter().flat_map(|(address, service)| {
            let groups = groups(&service.backends);
            let groups = groups.map(|(number, group)| Edit::AddGroup(*address, number, group.to_vec()));
            groups.chain([Edit::AddService(*address, service.class)])
        });
        places.chain(classes).chain(services).collect()
    }

    fn set(&mut self, address: Ipv4Addr, wanted: &[Ipv4Addr], rules: &mut Vec<Edit>, data: &mut Vec<Edit>) {
        let known = self.services.remove(&address);
        let before = known.as_ref().map_or(&[][..], |service| &service.backends);
        let backends = placed(before, wanted);
        let class = match &known {
            Some(service) if service.backends.len() == backends.len() => service.class,
            _ => {
                let class = self.class_for(backends.len(), known.as_ref(), rules);
                data.extend(known.as_ref().map(|_| Edit::RemoveService(address)));
                data.push(Edit::AddService(address, class));
                class
            }
        };
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (groups(before).collect(), groups(&backends).collect());
        for number in old.keys().filter(|number| new.get(number) != old.get(number)) {
            data.push(Edit::RemoveGroup(address, *number));
        }
        for (number, group) in new.iter().filter(|(number, _)| new.get(number) != old.get(number)) {
            data.push(Edit::AddGroup(address, *number, group.to_vec()));
        }
        self.services.insert(address, Service { class, backends });
    }

    /// The class of a service of another size than before, whose rules there are now.
    fn class_for(&mut self, len: usize, before: Option<&Service>, rules: &mut Vec<Edit>) -> Class {
        before.into_iter().for_each(|service| self.give_back(service.class));
        let of = u32::try_from(len).expect("a service has fewer than 2^32 backends");
        let class = match of {
            0 => Class::Refuse,
            1 => Class::Single,
            _ => match (0..COUNTERS).find(|counter| !self.taken.contains(&(of, *counter))) {
                Some(counter) => Class::Turn { of, counter },
                None => Class::Random { of },
            },
        };
        if let Class::Turn { of, counter } = class {
            self.taken.insert((of, counter));
        }
        rules.extend((self.places..of).map(Edit::AddPlace));
        self.places = self.places.max(of);
        if self.classes.insert(class) {
            rules.push(Edit::AddClass(class));
        }
        class
    }

    fn give_back(&mut self, class: Class) {
        if let Class::Turn { of, counter } = class {
            self.taken.remove(&(of, counter));
        }
    }
}

/// The groups of a service's backends, numbered.
fn groups(backends: &[Ipv4Addr]) -> impl Iterator<Item = (u32, &[Ipv4Addr])> {
    (0u32..).zip(backends.chunks(GROUP_LEN))
}

/// Everyone who is wanted, once, in as few other places than before as there can be.
fn placed(before: &[Ipv4Addr], wanted: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let mut new: BTreeSet<Ipv4Addr> = wanted.iter().copied().collect();
    let len = new.len();
    let mut stays = |address: &Ipv4Addr| new.remove(address);
    let mut places: Vec<Option<Ipv4Addr>> =
        before.iter().map(|address| stays(address).then_some(*address)).collect();
    let beyond = places.split_off(len.min(places.len()));
    places.resize(len, None);
    // Those that are new, and those whose place is no longer, take the places of those that go.
    let mut waiting = beyond.into_iter().flatten().chain(new);
    places.into_iter().filter_map(|place| place.or_else(|| waiting.next())).collect()
}

#[cfg(test)]
mod tests;
