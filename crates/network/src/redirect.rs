//! Brings questions for names to their server: in a sandbox, port 53 of 127.0.0.11 is another port of that address.
//!
//! The rules are a table of their own in the sandbox's namespace. They rewrite what the sandbox's own processes send, and
//! what comes back; so the server need not have port 53, which a container may want for a server of its own on all addresses.

use std::net::Ipv4Addr;

use crate::netlink::Messages;
use crate::rules::encode::{Batch, FAMILY_IPV4, Hook, Meta, OUTPUT, Register};

/// Where containers ask, as Docker's do.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
const DESTINATION_OFFSET: u32 = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where nat of destinations has its place, as everyone's.
const PRIORITY: i32 = -100;

/// The table, in the place of one that is there.
pub(crate) fn rules(table: &str, port: u16) -> Messages {
    const CHAIN: &str = "output";
    let mut batch = Batch::new(table);
    // Deleting needs something to delete; making sure of a table never fails.
    batch.new_table();
    batch.delete_table();
    batch.new_table();
    batch.new_chain(CHAIN, Some(Hook { kind: "nat", number: OUTPUT, priority: PRIORITY }));
    for protocol in [UDP, TCP] {
        batch.rule(CHAIN, |rule| {
            rule.ip_header(DESTINATION_OFFSET, 4, Register::at(0))
                .is(Register::at(0), &SERVER.octets())
                .meta(Meta::Protocol, Register::at(0))
                .is(Register::at(0), &[protocol])
                .destination_port(Register::at(0))
                .is(Register::at(0), &PORT.to_be_bytes())
                .load(&SERVER.octets(), Register::at(0))
                .load(&port.to_be_bytes(), Register::at(1))
                .rewrite_destination(FAMILY_IPV4, Register::at(0), Register::at(1));
        });
    }
    batch.finish()
}
