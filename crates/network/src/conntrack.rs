//! Connection tracking: forgetting flows that lead nowhere.
//!
//! The kernel asks our rules about a flow's first packet only, and a client that keeps sending keeps the answer alive.
//! When the answer is wrong, because the backend is gone or the flow began before the port was published, the entry
//! must go. A TCP connection that somebody has answered is never forgotten: it ends with its backend.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_types::port::Protocol;

use crate::model::VirtualServices;
use crate::netlink::{ACK, DUMP, Messages, Socket, find, fixed};
use crate::plan::Services;
use crate::rules::family::Family;

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const GET_STATISTICS: u16 = SUBSYSTEM | 5;
const STATISTICS_ENTRIES: u16 = 1;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
/// Somebody has answered.
const SEEN_REPLY: u32 = 2;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// The original direction's protocol counts in the kernel's filter.
const FILTER_BY_PROTOCOL: u32 = 1 << 3;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
/// How much further the attributes of IPv6 addresses are.
const IP6_AFTER_IP: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

const HEADER: [u8; 4] = [2, 0, 0, 0];
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const UDP: u8 = 17;
/// Each deletion is acknowledged, and a socket's receive queue holds a few hundred acknowledgements.
const DELETIONS_AT_ONCE: usize = 64;

/// A tracked flow. Ports are 0 where its protocol has none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    /// Whom the client addressed.
    destination: (IpAddr, u16),
    /// Who answers.
    answerer: (IpAddr, u16),
    /// What names the entry to the kernel: attributes to send back.
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

/// Forgets every UDP flow to a front of `services` at one of `local` addresses whose answerer is no backend of it.
pub(crate) fn forget_stale(
    socket: &mut Socket,
    services: &Services,
    local: &BTreeSet<IpAddr>,
) -> io::Result<()> {
    for family in [Family::Four, Family::Six] {
        if !services.keys().any(|front| Family::of(front.address) == family) {
            continue;
        }
        let mut stale = flows(socket, Wanted::Protocol(UDP), family)?;
        stale.retain(|it| is_stale(it, services, local));
        stale.chunks(DELETIONS_AT_ONCE).try_for_each(|flows| forget(socket, flows, family))?;
    }
    Ok(())
}

/// Forgets the flows to a virtual address whose answerer is not among those of that address: such without connections,
/// and connections that nobody has answered yet. With an IPv6 subnet also those to the addresses there that end alike.
pub(crate) fn forget_strays(
    socket: &mut Socket,
    services: &VirtualServices,
    subnet6: Option<Ipv6Addr>,
) -> io::Result<()> {
    if tracked(socket)? == 0 {
        return Ok(());
    }
    for family in [Family::Four].into_iter().chain(subnet6.map(|_| Family::Six)) {
        let icmp = if family == Family::Four { ICMP } else { ICMP6 };
        for wanted in [Wanted::Protocol(UDP), Wanted::Protocol(icmp), Wanted::Unanswered] {
            let mut strays = flows(socket, wanted, family)?;
            strays.retain(|flow| {
                let backends = short(flow.destination.0, subnet6).and_then(|address| services.get(&address));
                backends.is_some_and(|backends| {
                    short(flow.answerer.0, subnet6).is_none_or(|answerer| !backends.contains(&answerer))
                })
            });
            strays.chunks(DELETIONS_AT_ONCE).try_for_each(|flows| forget(socket, flows, family))?;
        }
    }
    Ok(())
}

/// The address of IPv4 that stands for one: of IPv6 the last 32 bits, in that subnet. An address elsewhere is none of a
/// service.
fn short(address: IpAddr, subnet6: Option<Ipv6Addr>) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => {
            let (octets, subnet) = (address.octets(), subnet6?.octets());
            let low = fixed::<4>(&octets[12..]).map(Ipv4Addr::from);
            low.filter(|_| octets[..12] == subnet[..12])
        }
    }
}

fn header(family: Family) -> [u8; 4] {
    [family.number(), 0, 0, 0]
}

/// One of a tuple's addresses, `kind` for IPv4.
fn address_of(family: Family, addresses: &[u8], kind: u16) -> Option<IpAddr> {
    match family {
        Family::Four => Some(Ipv4Addr::from(fixed::<4>(find(addresses, kind)?)?).into()),
        Family::Six => Some(Ipv6Addr::from(fixed::<16>(find(addresses, kind + IP6_AFTER_IP)?)?).into()),
    }
}

/// How many flows the namespace tracks. Asking costs next to nothing, unlike a dump, which visits those of all namespaces.
fn tracked(socket: &mut Socket) -> io::Result<u32> {
    let answers = socket.query(Messages::one(GET_STATISTICS, ACK, &HEADER))?;
    let entries = answers.iter().find_map(|(_, body)| find(body.get(HEADER.len()..)?, STATISTICS_ENTRIES));
    Ok(entries.and_then(fixed).map_or(u32::MAX, u32::from_be_bytes))
}

fn forget(socket: &mut Socket, flows: &[Flow], family: Family) -> io::Result<()> {
    let mut messages = Messages::default();
    for flow in flows {
        messages.begin(DELETE, ACK, &header(family));
        messages.nested(TUPLE_ORIGINAL, |tuple| {
            tuple.raw(&flow.original);
        });
        // The id keeps a flow safe that has taken the place of this one since.
        for (kind, value) in [(ZONE, &flow.zone), (ID, &flow.id)] {
            if let Some(value) = value {
                messages.attribute(kind, value);
            }
        }
    }
    match socket.transact(messages) {
        // It ended by itself. The kernel has carried out the others of the batch all the same.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn is_stale(flow: &Flow, services: &Services, local: &BTreeSet<IpAddr>) -> bool {
    let (address, port) = flow.destination;
    services.iter().any(|(front, backends)| {
        front.protocol == Protocol::Udp
            && front.port == port
            && front.address.is_ipv4() == address.is_ipv4()
            && (front.address == address || front.is_everywhere() && local.contains(&address))
            && !backends.contains(&flow.answerer)
    })
}

/// What flows are asked for.
#[derive(Clone, Copy)]
enum Wanted {
    Protocol(u8),
    Unanswered,
}

/// Flows of a family. A kernel too old for the filter tells of others too, so each is looked at.
fn flows(socket: &mut Socket, wanted: Wanted, family: Family) -> io::Result<Vec<Flow>> {
    let mut request = Messages::one(GET, DUMP, &header(family));
    match wanted {
        Wanted::Protocol(number) => request
            .nested(TUPLE_ORIGINAL, |tuple| {
                tuple.nested(TUPLE_PROTOCOL, |protocol| {
                    protocol.attribute(PROTOCOL_NUMBER, &[number]);
                });
            })
            .nested(FILTER, |filter| {
                filter.native(FILTER_ORIGINAL, FILTER_BY_PROTOCOL).native(FILTER_REPLY, 0);
            }),
        Wanted::Unanswered => request.network(STATUS, 0).network(STATUS_MASK, SEEN_REPLY),
    };
    let answers = socket.query(request)?;
    Ok(answers
        .iter()
        .filter(|(kind, _)| *kind == NEW)
        .filter_map(|(_, body)| parse(body, wanted, family))
        .collect())
}

fn parse(body: &[u8], wanted: Wanted, family: Family) -> Option<Flow> {
    let body = body.get(HEADER.len()..)?;
    let original = find(body, TUPLE_ORIGINAL)?;
    let is_wanted = match wanted {
        Wanted::Protocol(number) => find(find(original, TUPLE_PROTOCOL)?, PROTOCOL_NUMBER)? == [number],
        Wanted::Unanswered => u32::from_be_bytes(fixed(find(body, STATUS)?)?) & SEEN_REPLY == 0,
    };
    is_wanted.then_some(Flow {
        destination: end(original, IP_DESTINATION, PROTOCOL_DESTINATION_PORT, family)?,
        answerer: end(find(body, TUPLE_REPLY)?, IP_SOURCE, PROTOCOL_SOURCE_PORT, family)?,
        original: original.to_vec(),
        zone: find(body, ZONE).map(<[u8]>::to_vec),
        id: find(body, ID).map(<[u8]>::to_vec),
    })
}

/// One end of a direction.
fn end(tuple: &[u8], address: u16, port: u16, family: Family) -> Option<(IpAddr, u16)> {
    let address = address_of(family, find(tuple, TUPLE_IP)?, address)?;
    let port = find(find(tuple, TUPLE_PROTOCOL)?, port).and_then(fixed::<2>).unwrap_or_default();
    Some((address, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Front;

    #[test]
    fn a_flow_is_stale_only_at_our_fronts_and_with_a_wrong_answerer() {
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let every = IpAddr::from([0; 4]);
        let flow = |destination, answerer| Flow {
            destination,
            answerer,
            original: Vec::new(),
            zone: None,
            id: None,
        };
        let everywhere = Front { protocol: Protocol::Udp, port: 53, address: every };
        let tcp = Front { protocol: Protocol::Tcp, port: 54, address: every };
        let one = Front { protocol: Protocol::Udp, port: 55, address: address(1) };
        let services =
            Services::from([(everywhere, vec![(address(9), 5353)]), (tcp, Vec::new()), (one, Vec::new())]);
        let local = BTreeSet::from([address(1), address(2)]);
        for (destination, answerer, stale) in [
            ((address(1), 53), (address(9), 5353), false),
            ((address(1), 53), (address(8), 5353), true),
            ((address(1), 53), (address(1), 53), true),
            // Somebody else's flow that passes through this host.
            ((address(77), 53), (address(77), 53), false),
            ((address(1), 54), (address(1), 54), false),
            ((address(1), 55), (address(1), 55), true),
            ((address(2), 55), (address(2), 55), false),
        ] {
            assert_eq!(is_stale(&flow(destination, answerer), &services, &local), stale, "{destination:?}");
        }
    }
}
