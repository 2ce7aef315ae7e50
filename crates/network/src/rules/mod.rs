//! The layout of our nft table, and the transactions that change it. `docs/adr/0003-published-ports.md` explains it.
//!
//! What a packet or a change costs does not depend on how many services there are: a service is one element of a map
//! and one chain.

pub(crate) mod encode;
pub(crate) mod family;
mod others;

pub(crate) use others::obstacles;

use std::net::IpAddr;

use skep_types::port::Protocol;

use crate::model::Bridge;
use crate::netlink::Messages;
use crate::plan::{Backend, Front, RuleChange, Services};
use encode::{
    Batch, DESTINATION_REWRITTEN, ESTABLISHED, FAMILY_IPV6, FORWARD, Hook, INVALID, Meta, OUTPUT,
    POSTROUTING, PREROUTING, RELATED, Register, Set, SetData, Tracked, Verdict, shown_as,
};
use family::Family;

/// Published ports on every address of the host: protocol and port to the service's chain.
const PORTS: &str = "ports";
/// Published ports on one address of the host: address, protocol and port to the service's chain.
const ADDRESS_PORTS: &str = "address-ports";
/// All bridges.
const BRIDGES: &str = "bridges";
/// Pairs of a bridge and itself.
const SAME_BRIDGE: &str = "same-bridge";
/// Bridges whose containers leave under the host's address.
const MASQUERADED: &str = "masqueraded";
/// Bridges whose containers do not leave.
const INTERNAL: &str = "internal";
/// Bridges of networks that span machines, but for those that published ports lead to.
const OVERLAYS: &str = "overlays";
/// The chain that keeps connections to [::1] where they are, of the first that decides about a destination.
const LOOPBACK: &str = "loopback";
/// Bridge to the chain that knows its subnet.
const HAIRPINS: &str = "hairpins";

const INTERFACE_NAME_LEN: u32 = 16;
/// A port as the maps hold it, filled up to four bytes.
const PORT_LEN: u32 = 4;
/// A protocol and a port there.
const SERVICE_LEN: u32 = 8;

const LOOPBACK_INDEX: u32 = 1;
/// `RTN_LOCAL`: an address of this host.
const KIND_LOCAL: u32 = 2;

/// The base of the table, which changes with nothing.
pub(crate) fn base(table: &str) -> Messages {
    let mut batch = Batch::new(table);
    add_base(&mut batch, Family::Four);
    batch.finish()
}

/// Puts a whole table in the place of what is there. No packet sees anything between.
pub(crate) fn replace(table: &str, bridges: &[Bridge], services: &Services) -> Messages {
    let mut batch = Batch::new(table);
    // Deleting needs something to delete; making sure of a table never fails.
    batch.new_table();
    batch.delete_table();
    add_all(&mut batch, Family::Four, bridges.iter(), services);
    batch.finish()
}

/// The same of IPv6. Bridges with IPv6 are few and change seldom, so they are always written together; there is no table
/// without them.
pub(crate) fn replace6<'b>(
    table: &str,
    bridges: impl Iterator<Item = &'b Bridge>,
    services: &Services,
    loopback: Loopback6,
) -> Messages {
    let mut bridges = bridges.filter(|bridge| bridge.gateway6.is_some()).peekable();
    let mut batch = Batch::new(table);
    batch.turn_to(Family::Six.number());
    batch.new_table();
    batch.delete_table();
    if bridges.peek().is_none() {
        return batch.finish_without_table();
    }
    add_all(&mut batch, Family::Six, bridges, services);
    if loopback == Loopback6::Refused {
        batch.new_chain(LOOPBACK, Some(Hook { kind: "nat", number: OUTPUT, priority: -101 }));
        batch.rule(LOOPBACK, |rule| {
            rule.ip_header(Family::Six.destination_offset(), 16, Register::at(0))
                .is(Register::at(0), Family::Six.loopback())
                .load(Family::Six.loopback(), Register::at(0))
                .rewrite_destination_address(FAMILY_IPV6, Register::at(0));
        });
    }
    batch.finish()
}

/// Whether published ports answer at [::1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loopback6 {
    Answered,
    /// Where the kernel shows bridged frames to the rules of IPv6, it drops answers to ::1: it finds them rewritten before
    /// it looks whether they may be for loopback. A refusal has clients go on to 127.0.0.1 at once.
    Refused,
}

fn add_all<'b>(
    batch: &mut Batch,
    family: Family,
    bridges: impl Iterator<Item = &'b Bridge>,
    services: &Services,
) {
    add_base(batch, family);
    for bridge in bridges {
        add_bridge(batch, family, bridge);
    }
    let of_family = services.iter().filter(|(front, _)| Family::of(front.address) == family);
    // A front without backends has no rules.
    for (front, backends) in of_family.filter(|(_, backends)| !backends.is_empty()) {
        set_service(batch, front, backends);
    }
}

/// One transaction that makes all `changes`: of bridges in the table of IPv4, of services in that of their family.
pub(crate) fn change(table: &str, changes: &[RuleChange]) -> Messages {
    let mut batch = Batch::new(table);
    for change in changes {
        batch.turn_to(match change {
            RuleChange::AddBridge(_) | RuleChange::RemoveBridge(_) => Family::Four.number(),
            RuleChange::SetService(front, _) | RuleChange::RemoveService(front) => {
                Family::of(front.address).number()
            }
        });
        match change {
            RuleChange::AddBridge(bridge) => add_bridge(&mut batch, Family::Four, bridge),
            RuleChange::RemoveBridge(bridge) => remove_bridge(&mut batch, bridge),
            RuleChange::SetService(front, backends) => set_service(&mut batch, front, backends),
            RuleChange::RemoveService(front) => remove_service(&mut batch, front),
        }
    }
    batch.turn_to(Family::Four.number());
    batch.finish()
}

fn add_base(batch: &mut Batch, family: Family) {
    batch.new_table();
    add_sets(batch, family);
    // The kernel itself drops what pretends to be IPv6's loopback, and there is no setting that lets it through.
    if family == Family::Four {
        add_guard(batch);
    }
    add_dispatch(batch, family);
    add_isolation(batch);
    add_masquerade(batch, family);
}

fn add_sets(batch: &mut Batch, family: Family) {
    let name = shown_as::INTERFACE;
    let port = shown_as::concat(shown_as::PROTOCOL, shown_as::PORT);
    let address_port = family.shown_as() << 12 | port;
    for (set, key_shown_as, key_len, data) in [
        (PORTS, port, SERVICE_LEN, SetData::Verdict),
        (ADDRESS_PORTS, address_port, family.address_len() + SERVICE_LEN, SetData::Verdict),
        (BRIDGES, name, INTERFACE_NAME_LEN, SetData::None),
        (MASQUERADED, name, INTERFACE_NAME_LEN, SetData::None),
        (INTERNAL, name, INTERFACE_NAME_LEN, SetData::None),
        (OVERLAYS, name, INTERFACE_NAME_LEN, SetData::None),
        (SAME_BRIDGE, shown_as::concat(name, name), 2 * INTERFACE_NAME_LEN, SetData::None),
        (HAIRPINS, name, INTERFACE_NAME_LEN, SetData::Verdict),
    ] {
        batch.new_set(&Set { name: set, key_shown_as, key_len, data });
    }
}

/// No packet from outside may pretend to be loopback's: `route_localnet` on our bridges lets the kernel route such
/// packets, and rules rewrite destinations before it looks at them.
fn add_guard(batch: &mut Batch) {
    const CHAIN: &str = "guard";
    fresh_chain(batch, CHAIN, Hook { kind: "filter", number: PREROUTING, priority: -300 });
    for offset in [Family::Four.destination_offset(), Family::Four.source_offset()] {
        batch.rule(CHAIN, |rule| {
            rule.ip_header(offset, 1, Register::at(0))
                .is(Register::at(0), Family::Four.loopback())
                .meta(Meta::InIndex, Register::at(0))
                .is_not(Register::at(0), &LOOPBACK_INDEX.to_ne_bytes())
                .verdict(Verdict::Drop);
        });
    }
}

/// New connections to the host find their service; everything else goes on.
fn add_dispatch(batch: &mut Batch, family: Family) {
    for (chain, number) in [("prerouting", PREROUTING), ("output", OUTPUT)] {
        fresh_chain(batch, chain, Hook { kind: "nat", number, priority: -100 });
        batch.rule(chain, |rule| {
            rule.ip_header(family.destination_offset(), family.address_len(), Register::at(0))
                .meta(Meta::Protocol, family.after_address(0))
                .destination_port(family.after_address(1))
                .verdict_by(Register::at(0), ADDRESS_PORTS);
        });
        batch.rule(chain, |rule| {
            rule.destination_kind(Register::at(0))
                .is(Register::at(0), &KIND_LOCAL.to_ne_bytes())
                .meta(Meta::Protocol, Register::at(0))
                .destination_port(Register::at(1))
                .verdict_by(Register::at(0), PORTS);
        });
    }
}

/// Containers of one bridge reach each other; from elsewhere only what is published reaches them.
fn add_isolation(batch: &mut Batch) {
    const CHAIN: &str = "forward";
    fresh_chain(batch, CHAIN, Hook { kind: "filter", number: FORWARD, priority: 0 });
    batch.rule(CHAIN, |rule| {
        rule.tracked(Tracked::State, Register::at(0))
            .mask(Register::at(0), &(ESTABLISHED | RELATED).to_ne_bytes())
            .is_not(Register::at(0), &[0; 4])
            .verdict(Verdict::Accept);
    });
    batch.rule(CHAIN, |rule| {
        rule.meta(Meta::InName, Register::at(0))
            .meta(Meta::OutName, Register::at(4))
            .in_set(Register::at(0), SAME_BRIDGE)
            .verdict(Verdict::Accept);
    });
    // What no connection is known of is never rewritten: it would leave under the container's own address.
    batch.rule(CHAIN, |rule| {
        rule.tracked(Tracked::State, Register::at(0))
            .mask(Register::at(0), &INVALID.to_ne_bytes())
            .is_not(Register::at(0), &[0; 4])
            .meta(Meta::InName, Register::at(0))
            .in_set(Register::at(0), MASQUERADED)
            .verdict(Verdict::Drop);
    });
    for side in [Meta::InName, Meta::OutName] {
        batch.rule(CHAIN, |rule| {
            rule.meta(side, Register::at(0)).in_set(Register::at(0), INTERNAL).verdict(Verdict::Drop);
        });
    }
    batch.rule(CHAIN, |rule| {
        is_rewritten(rule).verdict(Verdict::Accept);
    });
    batch.rule(CHAIN, |rule| {
        rule.meta(Meta::OutName, Register::at(0)).in_set(Register::at(0), BRIDGES).verdict(Verdict::Drop);
    });
}

/// Sources are kept, but where the answer could not find its way back through this host.
fn add_masquerade(batch: &mut Batch, family: Family) {
    const CHAIN: &str = "postrouting";
    fresh_chain(batch, CHAIN, Hook { kind: "nat", number: POSTROUTING, priority: 100 });
    // A container must not answer its neighbour directly: that one asked the host. The subnet tells the neighbour,
    // because frames that br_netfilter passes on have no incoming interface here.
    batch.rule(CHAIN, |rule| {
        is_rewritten(rule).meta(Meta::OutName, Register::at(0)).verdict_by(Register::at(0), HAIRPINS);
    });
    // 127.0.0.1 and ::1 are nobody outside.
    let loopback = family.loopback();
    batch.rule(CHAIN, |rule| {
        rule.ip_header(family.source_offset(), loopback.len() as u32, Register::at(0))
            .is(Register::at(0), loopback)
            .meta(Meta::OutName, Register::at(0))
            .in_set(Register::at(0), BRIDGES)
            .masquerade();
    });
    batch.rule(CHAIN, |rule| {
        rule.meta(Meta::InName, Register::at(0))
            .in_set(Register::at(0), MASQUERADED)
            .meta(Meta::OutName, Register::at(0))
            .not_in_set(Register::at(0), BRIDGES)
            .masquerade();
    });
}

fn is_rewritten<'a, 'b>(rule: &'a mut encode::Rule<'b>) -> &'a mut encode::Rule<'b> {
    rule.tracked(Tracked::Status, Register::at(0))
        .mask(Register::at(0), &DESTINATION_REWRITTEN.to_ne_bytes())
        .is_not(Register::at(0), &[0; 4])
}

/// A base chain without rules, whether or not it was there.
fn fresh_chain(batch: &mut Batch, name: &str, hook: Hook) {
    batch.new_chain(name, Some(hook));
    batch.flush_chain(name);
}

fn add_bridge(batch: &mut Batch, family: Family, bridge: &Bridge) {
    let name = interface_key(&bridge.name);
    batch.add_member(BRIDGES, &name);
    batch.add_member(SAME_BRIDGE, &[name, name].concat());
    if bridge.masquerade {
        batch.add_member(MASQUERADED, &name);
    }
    if bridge.internal {
        batch.add_member(INTERNAL, &name);
    }
    if is_other_overlay(bridge) {
        batch.add_member(OVERLAYS, &name);
    }
    let chain = hairpin_chain(&bridge.name);
    batch.new_chain(&chain, None);
    batch.flush_chain(&chain);
    if let Some(network) = family.network_of(bridge) {
        batch.rule(&chain, |rule| {
            network.is_senders(rule).masquerade();
        });
    }
    if bridge.ingress {
        // The task may be on the client's network as well, and would answer it there.
        batch.rule(&chain, |rule| {
            rule.meta(Meta::InName, Register::at(0)).in_set(Register::at(0), OVERLAYS).masquerade();
        });
    }
    batch.add_verdict(HAIRPINS, &name, Verdict::Jump(&chain));
}

fn is_other_overlay(bridge: &Bridge) -> bool {
    bridge.overlay.is_some() && !bridge.ingress
}

fn remove_bridge(batch: &mut Batch, bridge: &Bridge) {
    let name = interface_key(&bridge.name);
    batch.delete_element(BRIDGES, &name);
    batch.delete_element(SAME_BRIDGE, &[name, name].concat());
    if bridge.masquerade {
        batch.delete_element(MASQUERADED, &name);
    }
    if bridge.internal {
        batch.delete_element(INTERNAL, &name);
    }
    if is_other_overlay(bridge) {
        batch.delete_element(OVERLAYS, &name);
    }
    batch.delete_element(HAIRPINS, &name);
    batch.delete_chain(&hairpin_chain(&bridge.name));
}

/// Makes a service answer by these backends, which are not none, whether or not it was there.
fn set_service(batch: &mut Batch, front: &Front, backends: &[Backend]) {
    let chain = service_chain(front);
    let family = Family::of(front.address);
    let rewrite = |rule: &mut encode::Rule<'_>| {
        rule.rewrite_destination(family.number(), Register::at(0), family.after_address(0));
    };
    batch.new_chain(&chain, None);
    batch.flush_chain(&chain);
    if let [(address, port)] = backends {
        batch.rule(&chain, |rule| {
            rule.load(&octets(*address), Register::at(0)).load(&port.to_be_bytes(), family.after_address(0));
            rewrite(rule);
        });
    } else {
        let elements: Vec<_> = (0u32..)
            .zip(backends)
            .map(|(turn, backend)| (turn.to_ne_bytes().to_vec(), backend_value(backend)))
            .collect();
        let value = SetData::Value {
            shown_as: shown_as::concat(family.shown_as(), shown_as::PORT),
            len: family.address_len() + PORT_LEN,
        };
        let turns = u32::try_from(elements.len()).expect("a service has fewer than 2^32 backends");
        let map = batch.rules_own_map(shown_as::INTEGER, 4, value, &elements);
        batch.rule(&chain, |rule| {
            rule.next_in_turn(turns, Register::at(0)).look_up(Register::at(0), map, Register::at(0));
            rewrite(rule);
        });
    }
    let (map, key) = front_key(front);
    batch.add_verdict(map, &key, Verdict::Goto(&chain));
}

fn remove_service(batch: &mut Batch, front: &Front) {
    let (map, key) = front_key(front);
    batch.delete_element(map, &key);
    batch.delete_chain(&service_chain(front));
}

/// `tcp-8080`, `tcp-192.0.2.1-8080` or `tcp-2001:db8::1-8080`.
fn service_chain(front: &Front) -> String {
    match front.is_everywhere() {
        true => format!("{}-{}", front.protocol, front.port),
        false => format!("{}-{}-{}", front.protocol, front.address, front.port),
    }
}

fn hairpin_chain(bridge: &str) -> String {
    format!("hairpin-{bridge}")
}

/// The map that holds the front, and its key there.
fn front_key(front: &Front) -> (&'static str, Vec<u8>) {
    let protocol = match front.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let [high, low] = front.port.to_be_bytes();
    let port = [protocol, 0, 0, 0, high, low, 0, 0];
    match front.is_everywhere() {
        true => (PORTS, port.to_vec()),
        false => (ADDRESS_PORTS, [&octets(front.address)[..], &port].concat()),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn backend_value((address, port): &Backend) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [&octets(*address)[..], &[high, low, 0, 0]].concat()
}

pub(crate) fn interface_key(name: &str) -> [u8; INTERFACE_NAME_LEN as usize] {
    let mut key = [0; INTERFACE_NAME_LEN as usize];
    key[..name.len()].copy_from_slice(name.as_bytes());
    key
}
