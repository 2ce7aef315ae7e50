//! The way back of the mesh: a sandbox answers each connection to the hardware address that it came from.
//!
//! A node that is asked for a published port rewrites the destination and leaves the client's address as it is. So the
//! backend must answer through that node, which alone knows of the rewriting, and not by its own way to the client. The
//! frame that a connection begins with says which node that is: a node's hardware address follows from its address on the
//! ingress network. The sandbox keeps it with the connection and writes it into the frames of the answers. Its own node
//! only bridges them: there, nothing is routed, tracked or filtered, and no rule is needed for any other node.
//!
//! Clients may well use one port for connections by way of several nodes, to the same backend. They are told apart by the
//! node, and the sandbox is shown another port of the client for the later one.

use std::collections::BTreeSet;
use std::io;

use skep_types::ip::{Subnet, Subnet6};

use crate::netlink::{DUMP, Messages, Socket, find, text};
use crate::rules::encode::{
    Batch, FAMILY_INTERFACE, Hook, INPUT, Meta, NEW, NEW_CHAIN, POSTROUTING, PREROUTING, Register, Rule,
    SUBSYSTEM, TABLE, Tracked, tables,
};
use crate::rules::family::NetworkPart;
use crate::rules::interface_key;

const GET_CHAIN: u16 = SUBSYSTEM | 4;

/// What the tables of an interface are called before its name.
const TABLE_PREFIX: &str = "mesh-";
/// The last chain that is made, and the first that goes, with the interface.
const ANSWER: &str = "answer";

/// Offsets in the Ethernet header, of the four bytes of a hardware address that are the network address.
const RECEIVER_OFFSET: u32 = 2;
const SENDER_OFFSET: u32 = 8;

/// Has a sandbox answer connections that come in by `interface` to the hardware address that they came from, if that is
/// one of `network`, whose addresses of IPv6 are in `network6`: nodes' hardware addresses follow from those of IPv4.
/// Repeating it changes nothing.
pub(crate) fn answer_senders(interface: &str, network: Subnet, network6: Option<Subnet6>) -> Messages {
    let mut batch = Batch::new(&table(interface));
    let nodes = NetworkPart::from(network);
    let neighbours = [Some(nodes.clone()), network6.map(NetworkPart::from)];
    let families = neighbours.iter().flatten().map(|neighbours| neighbours.family().number());
    for family in [FAMILY_INTERFACE].into_iter().chain(families) {
        batch.turn_to(family);
        // Deleting needs something to delete; making sure of a table never fails.
        batch.new_table();
        batch.delete_table();
        batch.new_table();
    }
    for neighbours in neighbours.iter().flatten() {
        batch.turn_to(neighbours.family().number());
        note_senders(&mut batch, interface, &nodes, neighbours);
    }
    batch.turn_to(FAMILY_INTERFACE);
    batch.new_egress_chain(ANSWER, interface);
    batch.rule(ANSWER, |rule| {
        rule.meta(Meta::Mark, Register::at(0));
        nodes.has(rule);
        rule.meta(Meta::Mark, Register::at(0)).write_ethernet_header(Register::at(0), RECEIVER_OFFSET);
    });
    batch.finish()
}

/// Keeps the sender of a connection's first frame as the mark of the connection, and marks the answers with it.
fn note_senders(batch: &mut Batch, interface: &str, nodes: &NetworkPart, neighbours: &NetworkPart) {
    let name = &interface_key(interface);
    // Before connection tracking, which is to tell connections apart.
    batch.new_chain("apart", Some(Hook { kind: "filter", number: PREROUTING, priority: -300 }));
    batch.rule("apart", |rule| {
        rule.meta(Meta::InName, Register::at(0)).is(Register::at(0), name);
        came_by_a_node(rule, nodes, neighbours);
        rule.ethernet_header(SENDER_OFFSET + 2, 2, Register::at(0)).tell_apart_by(Register::at(0));
    });
    batch.new_chain("note", Some(Hook { kind: "filter", number: PREROUTING, priority: -150 }));
    batch.rule("note", |rule| {
        rule.tracked(Tracked::State, Register::at(0))
            .mask(Register::at(0), &NEW.to_ne_bytes())
            .is_not(Register::at(0), &[0; 4])
            .meta(Meta::InName, Register::at(0))
            .is(Register::at(0), name);
        came_by_a_node(rule, nodes, neighbours);
        rule.ethernet_header(SENDER_OFFSET, 4, Register::at(0)).mark_connection(Register::at(0));
    });
    // It has no rules: where it is, connections that would be taken for each other get another source port.
    batch.new_chain("distinguish", Some(Hook { kind: "nat", number: INPUT, priority: 100 }));
    batch.new_chain("mark", Some(Hook { kind: "filter", number: POSTROUTING, priority: -150 }));
    batch.rule("mark", |rule| {
        rule.tracked(Tracked::Mark, Register::at(0));
        // Others may use marks for purposes of their own.
        nodes.has(rule);
        rule.tracked(Tracked::Direction, Register::at(0))
            .is(Register::at(0), &[1])
            .meta(Meta::OutName, Register::at(0))
            .is(Register::at(0), name)
            .tracked(Tracked::Mark, Register::at(0))
            .mark(Register::at(0));
    });
}

/// Goes on if somebody outside the network sent the packet and one of its nodes the frame. Neighbours are answered by
/// their addresses, as everywhere: with `br_netfilter` a node bridges on what it has rewritten for one of them.
fn came_by_a_node(rule: &mut Rule<'_>, nodes: &NetworkPart, neighbours: &NetworkPart) {
    neighbours.is_not_senders(rule).ethernet_header(SENDER_OFFSET, 4, Register::at(0));
    nodes.has(rule);
}

/// Takes away what [`answer_senders`] made for an interface of the socket's namespace.
pub(crate) fn forget_senders(socket: &mut Socket, interface: &str) -> io::Result<()> {
    let ours = table(interface);
    let families: Vec<u8> =
        tables(socket)?.into_iter().filter(|(_, name)| *name == ours).map(|(family, _)| family).collect();
    if families.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(&ours);
    for family in families {
        batch.turn_to(family);
        // Deleting needs something to delete, should somebody have been quicker.
        batch.new_table();
        batch.delete_table();
    }
    socket.transact(batch.finish_without_table())
}

/// The interfaces of the socket's namespace whose senders are answered.
pub(crate) fn answering(socket: &mut Socket) -> io::Result<BTreeSet<String>> {
    const NAME: u16 = 3;
    const ANY_FAMILY: [u8; 4] = [0; 4];
    let answers = socket.query(Messages::one(GET_CHAIN, DUMP, &ANY_FAMILY))?;
    let chain = |body: &[u8]| {
        let attributes = body.get(4..)?;
        let table = text(find(attributes, TABLE)?);
        let interface = table.strip_prefix(TABLE_PREFIX)?.to_owned();
        Some((interface, text(find(attributes, NAME)?)))
    };
    let chains: BTreeSet<(String, String)> =
        answers.iter().filter(|(kind, _)| *kind == NEW_CHAIN).filter_map(|(_, body)| chain(body)).collect();
    let is_complete = |interface: &String| {
        ["apart", "note", "distinguish", "mark", ANSWER]
            .iter()
            .all(|name| chains.contains(&(interface.clone(), (*name).to_owned())))
    };
    Ok(chains.iter().map(|(interface, _)| interface.clone()).filter(is_complete).collect())
}

fn table(interface: &str) -> String {
    format!("{TABLE_PREFIX}{interface}")
}
