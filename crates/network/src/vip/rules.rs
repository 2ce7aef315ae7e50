//! The layout of the nft table that a sandbox has for a bridge, and the transactions that change it.
//!
//! A connection's first packet is looked up five times, whatever the number of services: virtual address to class,
//! class to rules, turn to place, virtual address and group to the group's backends. All other packets of it never come
//! here, for the only hook is one of nat's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::table::{Class, Edit, GROUP_LEN};
use crate::netlink::Messages;
use crate::rules::encode::{
    Batch, FAMILY_IPV4, FAMILY_IPV6, Hook, Meta, OUTPUT, Register, Set, SetData, Verdict, shown_as,
};

/// Virtual address to the number of the service's class.
const SERVICES: &str = "services";
/// A class's number to its chain.
const CLASSES: &str = "classes";
/// A place to its chain.
const PLACES: &str = "places";
const OUTPUT_CHAIN: &str = "output";
const DISPATCH_CHAIN: &str = "dispatch";

const ADDRESS_LEN: u32 = 4;
const NUMBER_LEN: u32 = 4;
const GROUP_VALUE_LEN: usize = GROUP_LEN * ADDRESS_LEN as usize;
/// A group's backends as its map holds them, filled up with zeros.
type Group = [u8; GROUP_VALUE_LEN];

const DESTINATION6_OFFSET: u32 = 24;
const TCP: u8 = 6;
/// Where nat of destinations has its place, as everyone's.
const PRIORITY: i32 = -100;

/// The name of an instance's tables begins so.
pub(super) fn table_prefix(instance: &str) -> String {
    format!("{instance}-services-")
}

/// The name of the table that sandboxes have for a bridge.
pub(super) fn table_name(instance: &str, bridge: &str) -> String {
    format!("{}{bridge}", table_prefix(instance))
}

/// What a table rewrites: IPv4 alone, or with it the addresses of that IPv6 subnet, in a table of the same name. A service's
/// address there ends in the 32 bits of its IPv4 one, and so do its backends', so both have the same data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Four,
    /// The first 96 bits.
    Six([u8; 12]),
}

impl Flavour {
    fn all(subnet6: Option<Ipv6Addr>) -> impl Iterator<Item = Flavour> {
        let six = subnet6.map(|address| {
            let mut high = [0; 12];
            high.copy_from_slice(&address.octets()[..12]);
            Flavour::Six(high)
        });
        [Flavour::Four].into_iter().chain(six)
    }

    fn family(self) -> u8 {
        match self {
            Flavour::Four => FAMILY_IPV4,
            Flavour::Six(_) => FAMILY_IPV6,
        }
    }

    /// Where the last 32 bits of a packet's destination are.
    fn offset(self) -> u32 {
        match self {
            Flavour::Four => 16,
            Flavour::Six(_) => DESTINATION6_OFFSET + 12,
        }
    }
}

/// The families of a bridge's tables.
pub(super) fn families(subnet6: Option<Ipv6Addr>) -> BTreeSet<u8> {
    Flavour::all(subnet6).map(Flavour::family).collect()
}

/// Puts a whole table in the place of what is there, unless rules have changed since that generation.
pub(super) fn replace(generation: u32, table: &str, subnet6: Option<Ipv6Addr>, whole: &[Edit]) -> Messages {
    let mut batch = Batch::since(generation, table);
    for flavour in Flavour::all(subnet6) {
        batch.turn_to(flavour.family());
        // Deleting needs something to delete; making sure of a table never fails.
        batch.new_table();
        batch.delete_table();
        batch.new_table();
        add_base(&mut batch, flavour);
        apply(&mut batch, flavour, whole);
    }
    batch.finish()
}

/// Changes a table, unless rules have changed since that generation.
pub(super) fn change(generation: u32, table: &str, subnet6: Option<Ipv6Addr>, edits: &[Edit]) -> Messages {
    let mut batch = Batch::since(generation, table);
    for flavour in Flavour::all(subnet6) {
        batch.turn_to(flavour.family());
        apply(&mut batch, flavour, edits);
    }
    batch.finish()
}

/// Removes a table from these families, unless rules have changed since that generation.
pub(super) fn remove(generation: u32, table: &str, families: &BTreeSet<u8>) -> Messages {
    let mut batch = Batch::since(generation, table);
    for family in families {
        batch.turn_to(*family);
        batch.new_table();
        batch.delete_table();
    }
    batch.finish_without_table()
}

fn add_base(batch: &mut Batch, flavour: Flavour) {
    for (name, key_shown_as, key_len, data) in [
        (SERVICES, shown_as::IPV4_ADDRESS, ADDRESS_LEN, number_data()),
        (CLASSES, shown_as::MARK, NUMBER_LEN, SetData::Verdict),
        (PLACES, shown_as::INTEGER, NUMBER_LEN, SetData::Verdict),
    ] {
        batch.new_set(&Set { name, key_shown_as, key_len, data });
    }
    batch.new_chain(OUTPUT_CHAIN, Some(Hook { kind: "nat", number: OUTPUT, priority: PRIORITY }));
    batch.new_chain(DISPATCH_CHAIN, None);
    // nft 1.0 aborts when it is to list a rule in which what a map gives is the key of another, so it is noted where
    // nobody looks between: a packet's priority, which the place's rule puts back to what it is for nearly all.
    batch.rule(OUTPUT_CHAIN, |rule| {
        if let Flavour::Six(high) = flavour {
            rule.ip_header(DESTINATION6_OFFSET, 12, Register::at(0)).is(Register::at(0), &high);
        }
        rule.ip_header(flavour.offset(), ADDRESS_LEN, Register::at(0))
            .look_up_in(Register::at(0), SERVICES, Register::at(0))
            .set_meta(Meta::Priority, Register::at(0))
            .verdict(Verdict::Goto(DISPATCH_CHAIN));
    });
    batch.rule(DISPATCH_CHAIN, |rule| {
        rule.meta(Meta::Priority, Register::at(0)).verdict_by(Register::at(0), CLASSES);
    });
}

fn number_data() -> SetData {
    SetData::Value { shown_as: shown_as::MARK, len: NUMBER_LEN }
}

/// Virtual address to the backends of that group.
fn group_map(number: u32) -> String {
    format!("backends-{number}")
}

/// Carries edits out: rules first, then data. Those that touch one map share messages.
fn apply(batch: &mut Batch, flavour: Flavour, edits: &[Edit]) {
    let mut gone: BTreeMap<String, Vec<[u8; 4]>> = BTreeMap::new();
    let mut services: Vec<([u8; 4], [u8; 4])> = Vec::new();
    let mut groups: BTreeMap<u32, Vec<([u8; 4], Group)>> = BTreeMap::new();
    for edit in edits {
        match edit {
            Edit::AddPlace(place) => add_place(batch, flavour, *place),
            Edit::AddClass(class) => add_class(batch, flavour, *class),
            Edit::RemoveService(address) => {
                gone.entry(SERVICES.to_owned()).or_default().push(address.octets());
            }
            Edit::RemoveGroup(address, number) => {
                gone.entry(group_map(*number)).or_default().push(address.octets());
            }
            Edit::AddService(address, class) => {
                services.push((address.octets(), class.number().to_ne_bytes()));
            }
            Edit::AddGroup(address, number, backends) => {
                groups.entry(*number).or_default().push((address.octets(), group_value(backends)));
            }
        }
    }
    for (map, keys) in &gone {
        batch.delete_members(map, keys.iter());
    }
    for (number, elements) in &groups {
        batch.add_values(&group_map(*number), elements);
    }
    batch.add_values(SERVICES, &services);
}

/// A place's rule takes the backend from its group; the first of a group brings the group's map.
fn add_place(batch: &mut Batch, flavour: Flavour, place: u32) {
    let chain = place_chain(place);
    let (group, slot) = (group_map(place / GROUP_LEN as u32), place % GROUP_LEN as u32);
    if slot == 0 {
        let data = SetData::Value { shown_as: shown_as::INTEGER, len: GROUP_VALUE_LEN as u32 };
        batch.new_set(&Set {
            name: &group,
            key_shown_as: shown_as::IPV4_ADDRESS,
            key_len: ADDRESS_LEN,
            data,
        });
    }
    batch.new_chain(&chain, None);
    batch.rule(&chain, |rule| {
        rule.load(&[0; 4], Register::at(0))
            .set_meta(Meta::Priority, Register::at(0))
            .ip_header(flavour.offset(), ADDRESS_LEN, Register::at(0))
            .look_up_in(Register::at(0), &group, Register::at(0));
        match flavour {
            Flavour::Four => rule.rewrite_destination_address(FAMILY_IPV4, Register::at(slot)),
            // The backend comes last, before the subnet takes the place of others.
            Flavour::Six(high) => rule
                .copy(Register::at(slot), Register::at(15))
                .load(&high, Register::at(12))
                .rewrite_destination_address(FAMILY_IPV6, Register::at(12)),
        };
    });
    batch.add_verdict(PLACES, &place.to_ne_bytes(), Verdict::Goto(&chain));
}

fn add_class(batch: &mut Batch, flavour: Flavour, class: Class) {
    let number = class.number();
    let chain = match class {
        Class::Refuse => "refuse".to_owned(),
        Class::Single => place_chain(0),
        Class::Turn { of, counter } => format!("turn-{of}-{counter}"),
        Class::Random { of } => format!("random-{of}"),
    };
    match class {
        Class::Refuse => {
            batch.new_chain(&chain, None);
            batch.rule(&chain, |rule| {
                rule.meta(Meta::Protocol, Register::at(0)).is(Register::at(0), &[TCP]).reset();
            });
            batch.rule(&chain, |rule| {
                match flavour {
                    Flavour::Four => rule.port_unreachable(),
                    Flavour::Six(_) => rule.port_unreachable6(),
                };
            });
        }
        Class::Single => {}
        Class::Turn { of, .. } => {
            batch.new_chain(&chain, None);
            batch.rule(&chain, |rule| {
                rule.next_in_turn(of, Register::at(0)).verdict_by(Register::at(0), PLACES);
            });
        }
        Class::Random { of } => {
            batch.new_chain(&chain, None);
            batch.rule(&chain, |rule| {
                rule.random(of, Register::at(0)).verdict_by(Register::at(0), PLACES);
            });
        }
    }
    batch.add_verdict(CLASSES, &number.to_ne_bytes(), Verdict::Goto(&chain));
}

fn place_chain(place: u32) -> String {
    format!("place-{place}")
}

fn group_value(backends: &[Ipv4Addr]) -> Group {
    let mut value = [0; GROUP_VALUE_LEN];
    for (slot, backend) in value.chunks_exact_mut(4).zip(backends) {
        slot.copy_from_slice(&backend.octets());
    }
    value
}
