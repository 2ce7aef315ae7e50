//! The names of one network, in little memory: a cluster may have a quarter of a million.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use hashbrown::HashTable;

use crate::name::Name;
use crate::tables::{Entry, ZoneConfig};

/// The names of one network.
///
/// Names and addresses are only in the owners' records; the indices say where.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    config: ZoneConfig,
    owners: HashMap<Box<str>, u32>,
    places: Vec<Option<Owner>>,
    free: Vec<u32>,
    names: HashTable<Place>,
    pointers: HashTable<Pointer>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Owner {
    records: Box<[Held]>,
    /// The session of the daemon that told of it last.
    session: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    name: Name,
    addresses: Addresses,
    pointer: bool,
}

/// Nearly every name has one address.
#[derive(Debug, PartialEq, Eq)]
enum Addresses {
    One(IpAddr),
    Many(Box<[IpAddr]>),
}

/// A record of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    owner: u32,
    record: u32,
}

/// An address of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    at: Place,
    address: u32,
}

impl Addresses {
    fn as_slice(&self) -> &[IpAddr] {
        match self {
            Addresses::One(address) => std::slice::from_ref(address),
            Addresses::Many(addresses) => addresses,
        }
    }
}

impl Zone {
    pub(crate) fn configure(&mut self, config: ZoneConfig) {
        self.config = config;
    }

    pub(crate) fn domain(&self) -> Option<&Name> {
        self.config.domain.as_ref()
    }

    /// Whether the address can only be this network's.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.config.subnets.iter().any(|(first, prefix)| is_inside(address, *first, *prefix))
    }

    /// Puts an owner's entry in the place of the one it had.
    pub(crate) fn set(&mut self, owner: &str, entry: Entry, session: u64) {
        let records: Box<[Held]> = entry.records.into_iter().map(held).collect();
        if let Some(known) = self.owners.get(owner).and_then(|place| self.places[*place as usize].as_mut())
            && known.records == records
        {
            known.session = session;
            return;
        }
        self.remove(owner);
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            narrow(self.places.len() - 1)
        });
        self.owners.insert(owner.into(), place);
        self.places[place as usize] = Some(Owner { records, session });
        self.index(place);
    }

    /// Takes an owner's entry away.
    pub(crate) fn remove(&mut self, owner: &str) {
        let Some(place) = self.owners.remove(owner) else { return };
        let Some(gone) = self.places[place as usize].take() else { return };
        for (index, record) in gone.records.iter().enumerate() {
            let at = at(place, index);
            remove_from(&mut self.names, self.hasher.hash_one(&record.name), &at);
            for (index, address) in record.pointing().iter().enumerate() {
                let pointer = Pointer { at, address: narrow(index) };
                remove_from(&mut self.pointers, self.hasher.hash_one(address), &pointer);
            }
        }
        self.free.push(place);
    }

    /// Takes away what no session since `session` has told of.
    pub(crate) fn sweep(&mut self, session: u64) {
        let stale =
            |place: &u32| self.places[*place as usize].as_ref().is_some_and(|owner| owner.session < session);
        let gone: Vec<Box<str>> =
            self.owners.iter().filter(|(_, place)| stale(place)).map(|(owner, _)| owner.clone()).collect();
        for owner in gone {
            self.remove(&owner);
        }
    }

    /// The addresses of a name, each once; `None` when nobody has it.
    pub(crate) fn addresses(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let hash = self.hasher.hash_one(name);
        let mut found = None;
        for record in self.names.iter_hash(hash).map(|at| self.record(*at)) {
            if record.name == *name {
                found.get_or_insert_with(Vec::new).extend_from_slice(record.addresses.as_slice());
            }
        }
        // Several owners of a name may have an address in common.
        if let Some(addresses) = &mut found {
            addresses.sort_unstable();
            addresses.dedup();
        }
        found
    }

    /// The names that an address points to.
    pub(crate) fn names(&self, address: IpAddr) -> Vec<&Name> {
        let pointers = self.pointers.iter_hash(self.hasher.hash_one(address));
        let pointers = pointers.filter(|pointer| address_of(&self.places, pointer) == address);
        let mut names: Vec<&Name> = pointers.map(|pointer| &self.record(pointer.at).name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn index(&mut self, place: u32) {
        let (places, hasher) = (&self.places, &self.hasher);
        let owner = places[place as usize].as_ref().expect("it was put there just now");
        for (index, record) in owner.records.iter().enumerate() {
            let at = at(place, index);
            let hash_again = |at: &Place| hasher.hash_one(&record_of(places, *at).name);
            self.names.insert_unique(hasher.hash_one(&record.name), at, hash_again);
            for (index, address) in record.pointing().iter().enumerate() {
                let pointer = Pointer { at, address: narrow(index) };
                let hash_again = |pointer: &Pointer| hasher.hash_one(address_of(places, pointer));
                self.pointers.insert_unique(hasher.hash_one(address), pointer, hash_again);
            }
        }
    }

    fn record(&self, at: Place) -> &Held {
        record_of(&self.places, at)
    }
}

impl Held {
    /// The addresses that point back to the name.
    fn pointing(&self) -> &[IpAddr] {
        if self.pointer { self.addresses.as_slice() } else { &[] }
    }
}

fn held(record: crate::tables::Record) -> Held {
    let addresses = match record.addresses.as_slice() {
        [one] => Addresses::One(*one),
        _ => Addresses::Many(record.addresses.into()),
    };
    Held { name: record.name, addresses, pointer: record.pointer }
}

fn at(owner: u32, record: usize) -> Place {
    Place { owner, record: narrow(record) }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("memory ends long before 2^32 of anything")
}

fn record_of(places: &[Option<Owner>], at: Place) -> &Held {
    let owner = places[at.owner as usize].as_ref().expect("an indexed owner is there");
    &owner.records[at.record as usize]
}

fn address_of(places: &[Option<Owner>], pointer: &Pointer) -> IpAddr {
    record_of(places, pointer.at).addresses.as_slice()[pointer.address as usize]
}

fn remove_from<T: PartialEq>(table: &mut HashTable<T>, hash: u64, gone: &T) {
    if let Ok(found) = table.find_entry(hash, |other| other == gone) {
        found.remove();
    }
}

fn is_inside(address: IpAddr, first: IpAddr, prefix: u8) -> bool {
    match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => {
            let differ = u64::from(address.to_bits() ^ first.to_bits());
            differ >> 32u8.saturating_sub(prefix) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(first)) => {
            let differ = address.to_bits() ^ first.to_bits();
            differ.checked_shr(u32::from(128u8.saturating_sub(prefix))).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
