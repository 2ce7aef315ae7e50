//! The table of IPv6: bridges are isolated and masqueraded as over IPv4. Nothing is published over IPv6 yet.
//!
//! Bridges with IPv6 are few and change seldom, so the table is written whole, and there is none without them.

use super::encode::{Batch, FAMILY_IPV6, Hook, Meta, POSTROUTING, Register, Set, SetData, shown_as};
use super::{
    BRIDGES, INTERFACE_NAME_LEN, INTERNAL, MASQUERADED, SAME_BRIDGE, add_isolation, fresh_chain,
    interface_key,
};
use crate::model::Bridge;
use crate::netlink::Messages;

/// Puts the table for these bridges in the place of what is there; those without IPv6 do not matter.
pub(crate) fn replace<'b>(table: &str, bridges: impl Iterator<Item = &'b Bridge>) -> Messages {
    let bridges: Vec<&Bridge> = bridges.filter(|bridge| bridge.gateway6.is_some()).collect();
    let mut batch = Batch::new(table);
    batch.turn_to(FAMILY_IPV6);
    // Deleting needs something to delete; making sure of a table never fails.
    batch.new_table();
    batch.delete_table();
    if bridges.is_empty() {
        return batch.finish_without_table();
    }
    batch.new_table();
    for (name, parts) in [(BRIDGES, 1), (MASQUERADED, 1), (INTERNAL, 1), (SAME_BRIDGE, 2)] {
        let interface = shown_as::INTERFACE;
        let key_shown_as = if parts == 1 { interface } else { shown_as::concat(interface, interface) };
        let key_len = parts * INTERFACE_NAME_LEN;
        batch.new_set(&Set { name, key_shown_as, key_len, data: SetData::None });
    }
    add_isolation(&mut batch);
    add_masquerade(&mut batch);
    for bridge in bridges {
        let name = interface_key(&bridge.name);
        batch.add_member(BRIDGES, &name);
        batch.add_member(SAME_BRIDGE, &[name, name].concat());
        if bridge.masquerade {
            batch.add_member(MASQUERADED, &name);
        }
        if bridge.internal {
            batch.add_member(INTERNAL, &name);
        }
    }
    batch.finish()
}

fn add_masquerade(batch: &mut Batch) {
    const CHAIN: &str = "postrouting";
    fresh_chain(batch, CHAIN, Hook { kind: "nat", number: POSTROUTING, priority: 100 });
    batch.rule(CHAIN, |rule| {
        rule.meta(Meta::InName, Register::at(0))
            .in_set(Register::at(0), MASQUERADED)
            .meta(Meta::OutName, Register::at(0))
            .not_in_set(Register::at(0), BRIDGES)
            .masquerade();
    });
}
