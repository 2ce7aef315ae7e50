//! The route subsystem: links, addresses, routes.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::model::{Address6, MacAddress};
use crate::netlink::{
    ACK, CREATE, DUMP, EXCLUSIVE, Messages, REPLACE, Socket, attributes, find, fixed, text,
};
use crate::overlay;
use crate::plan::Vxlan;

pub(crate) const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const LINK_ADDRESS: u16 = 1;
pub(crate) const LINK_NAME: u16 = 3;
pub(crate) const LINK_MTU: u16 = 4;
pub(crate) const LINK_MASTER: u16 = 10;
pub(crate) const LINK_INFO: u16 = 18;
pub(crate) const LINK_ALIAS: u16 = 20;
const LINK_NAMESPACE_FD: u16 = 28;
pub(crate) const INFO_KIND: u16 = 1;
pub(crate) const INFO_DATA: u16 = 2;
pub(crate) const INFO_PORT_KIND: u16 = 4;
pub(crate) const INFO_PORT_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
const PORT_HAIRPIN: u16 = 4;

const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_OUT_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_METRIC: u16 = 6;

const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
/// The address is used at once: the cluster gives it to nobody else.
const ADDRESS_WITHOUT_DETECTION: u8 = 2;
const SCOPE_LINK: u8 = 253;
pub(crate) const FLAG_UP: u32 = 1;
const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u8 = 255;
const PROTOCOL_BOOT: u8 = 3;
const SCOPE_UNIVERSE: u8 = 0;
const TYPE_UNICAST: u8 = 1;
const TYPE_LOCAL: u8 = 2;

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth`, ...; empty for a physical one.
    pub(crate) kind: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// Index of the bridge whose port it is.
    pub(crate) master: Option<u32>,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) alias: String,
    /// What a VXLAN device does, if as ours do.
    pub(crate) vxlan: Option<Vxlan>,
}

/// An IPv4 address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// A default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) link: u32,
    pub(crate) gateway: Ipv4Addr,
}

/// A veth pair to be made, with the other end in another namespace; both are still down.
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: MacAddress,
    pub(crate) peer_namespace: BorrowedFd<'a>,
}

pub(crate) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn address_header(link: u32, prefix: u8) -> [u8; 8] {
    let mut header = [FAMILY_IPV4, prefix, 0, SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    header
}

/// Creates a bridge that is down. Its hardware address is fixed, so that it does not change with its ports.
pub(crate) fn create_bridge(messages: &mut Messages, name: &str, mac: MacAddress, alias: &str) {
    messages.begin(NEW_LINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).attribute(LINK_ADDRESS, &mac.0).nested(LINK_INFO, |info| {
        info.text(INFO_KIND, "bridge");
    });
    // The kernel ignores an alias at creation.
    messages.begin(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).attribute(LINK_ALIAS, alias.as_bytes());
}

/// Brings a link up with the given size of packets.
pub(crate) fn bring_up(messages: &mut Messages, name: &str, mtu: Option<u32>) {
    messages.begin(NEW_LINK, ACK, &link_header(0, FLAG_UP, FLAG_UP));
    messages.text(LINK_NAME, name);
    if let Some(mtu) = mtu {
        messages.native(LINK_MTU, mtu);
    }
}

/// Changes a link's size of packets.
pub(crate) fn set_mtu(messages: &mut Messages, name: &str, mtu: u32) {
    messages.begin(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).native(LINK_MTU, mtu);
}

/// Changes a link's hardware address.
pub(crate) fn set_mac(messages: &mut Messages, name: &str, mac: MacAddress) {
    messages.begin(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).attribute(LINK_ADDRESS, &mac.0);
}

/// Deletes a link, and with one end of a veth pair the other.
pub(crate) fn delete_link(messages: &mut Messages, name: &str) {
    messages.begin(DELETE_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name);
}

/// Creates a veth pair.
pub(crate) fn create_veth(messages: &mut Messages, veth: &Veth<'_>) {
    // Neither end can come up before the pair is complete.
    messages.begin(NEW_LINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0, 0));
    messages.text(LINK_NAME, veth.host_name).native(LINK_MTU, veth.mtu).nested(LINK_INFO, |info| {
        info.text(INFO_KIND, "veth").nested(INFO_DATA, |data| {
            data.nested(VETH_PEER, |peer| {
                peer.raw(&link_header(0, 0, 0))
                    .text(LINK_NAME, veth.peer_name)
                    .native(LINK_MTU, veth.mtu)
                    .attribute(LINK_ADDRESS, &veth.peer_mac.0)
                    .attribute(LINK_NAMESPACE_FD, &veth.peer_namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
}

/// Makes a link a port of a bridge, up, which may send back to where a frame came from: with `br_netfilter` a container
/// that is its own backend gets its packets that way.
pub(crate) fn connect(messages: &mut Messages, name: &str, bridge: u32) {
    messages.begin(NEW_LINK, ACK, &link_header(0, FLAG_UP, FLAG_UP));
    messages.text(LINK_NAME, name).native(LINK_MASTER, bridge);
    // The kernel looks for the port's settings before it makes the link a port.
    messages.begin(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).nested(LINK_INFO, |info| {
        info.text(INFO_PORT_KIND, "bridge").nested(INFO_PORT_DATA, |port| {
            port.attribute(PORT_HAIRPIN, &[1]);
        });
    });
}

/// Takes a link from its bridge, down, and gives it another name.
pub(crate) fn disconnect(messages: &mut Messages, index: u32, new_name: &str) {
    messages.begin(NEW_LINK, ACK, &link_header(index, 0, FLAG_UP));
    messages.native(LINK_MASTER, 0);
    // Older kernels rename only what is down.
    messages.begin(NEW_LINK, ACK, &link_header(index, 0, 0));
    messages.text(LINK_NAME, new_name);
}

/// Adds an address to a link. The broadcast address follows from it.
pub(crate) fn add_address(messages: &mut Messages, link: u32, address: Ipv4Addr, prefix: u8) {
    messages.begin(NEW_ADDRESS, ACK | CREATE | EXCLUSIVE, &address_header(link, prefix));
    messages.attribute(ADDRESS_LOCAL, &address.octets()).attribute(ADDRESS_ADDRESS, &address.octets());
    if prefix < 31 {
        let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        messages.attribute(ADDRESS_BROADCAST, &(u32::from(address) | hosts).to_be_bytes());
    }
}

/// Makes sure of an IPv6 address of a link.
pub(crate) fn set_address6(messages: &mut Messages, link: u32, address: Address6) {
    messages.begin(NEW_ADDRESS, ACK | CREATE | REPLACE, &address6_header(link, address.prefix));
    let octets = address.address.octets();
    messages.attribute(ADDRESS_LOCAL, &octets).attribute(ADDRESS_ADDRESS, &octets);
}

/// Makes sure of an IPv6 address of a link that nothing is sent from while there is another one.
pub(crate) fn set_silent_address6(messages: &mut Messages, link: u32, address: Address6) {
    const LIFETIMES: u16 = 6;
    const FOR_EVER: [u8; 4] = [0xff; 4];
    set_address6(messages, link, address);
    // No time to be preferred in, all time to be valid in; when it was made does not matter.
    let mut lifetimes = [0; 16];
    lifetimes[4..8].copy_from_slice(&FOR_EVER);
    messages.attribute(LIFETIMES, &lifetimes);
}

/// Takes an IPv6 address away from a link.
pub(crate) fn delete_address6(messages: &mut Messages, link: u32, address: Address6) {
    messages.begin(DELETE_ADDRESS, ACK, &address6_header(link, address.prefix));
    messages.attribute(ADDRESS_LOCAL, &address.address.octets());
}

fn address6_header(link: u32, prefix: u8) -> [u8; 8] {
    let mut header = [FAMILY_IPV6, prefix, ADDRESS_WITHOUT_DETECTION, SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    header
}

/// Takes an address away from a link.
pub(crate) fn delete_address(messages: &mut Messages, address: Address) {
    messages.begin(DELETE_ADDRESS, ACK, &address_header(address.link, address.prefix));
    messages.attribute(ADDRESS_LOCAL, &address.address.octets());
}

/// Lets answers to [::1] come in by a link: the kernel hands them on only where a route says that ::1 is there, too. It has
/// dropped before what was sent to ::1 by others, and loopback itself stays the way there.
pub(crate) fn answer_loopback6(messages: &mut Messages, link: u32) {
    const AFTER_THE_OWN: u32 = 2048;
    let header = [FAMILY_IPV6, 128, 0, 0, TABLE_LOCAL, PROTOCOL_BOOT, SCOPE_UNIVERSE, TYPE_LOCAL, 0, 0, 0, 0];
    // Beside those by other links.
    messages.begin(NEW_ROUTE, ACK | CREATE, &header);
    messages
        .attribute(ROUTE_DESTINATION, &Ipv6Addr::LOCALHOST.octets())
        .native(ROUTE_OUT_LINK, link)
        .native(ROUTE_METRIC, AFTER_THE_OWN);
}

/// The links that answers to [::1] come in by.
pub(crate) fn loopback_links6(socket: &mut Socket) -> io::Result<BTreeSet<u32>> {
    let header = [FAMILY_IPV6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let answers = socket.query(Messages::one(GET_ROUTE, DUMP, &header))?;
    let link = |body: &[u8]| {
        let (header, rest) = body.split_first_chunk::<12>()?;
        let destination: [u8; 16] = fixed(find(rest, ROUTE_DESTINATION)?)?;
        let is_one =
            (header[0], header[1]) == (FAMILY_IPV6, 128) && Ipv6Addr::from(destination).is_loopback();
        Some(u32::from_ne_bytes(fixed(find(rest, ROUTE_OUT_LINK)?)?)).filter(|_| is_one)
    };
    Ok(answers.iter().filter_map(|(_, body)| link(body)).collect())
}

/// Sets the default route, in the place of one that leads elsewhere.
pub(crate) fn set_default_route(messages: &mut Messages, link: u32, gateway: Ipv4Addr) {
    default_route(messages, FAMILY_IPV4, link, &gateway.octets());
}

/// Sets the default route of IPv6, in the place of one that leads elsewhere.
pub(crate) fn set_default_route6(messages: &mut Messages, link: u32, gateway: Ipv6Addr) {
    default_route(messages, FAMILY_IPV6, link, &gateway.octets());
}

fn default_route(messages: &mut Messages, family: u8, link: u32, gateway: &[u8]) {
    let header = [family, 0, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, SCOPE_UNIVERSE, TYPE_UNICAST, 0, 0, 0, 0];
    messages.begin(NEW_ROUTE, ACK | CREATE | REPLACE, &header);
    messages.attribute(ROUTE_GATEWAY, gateway).native(ROUTE_OUT_LINK, link);
}

/// All links of the socket's namespace.
pub(crate) fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let answers = socket.query(Messages::one(GET_LINK, DUMP, &link_header(0, 0, 0)))?;
    Ok(answers
        .iter()
        .filter(|(kind, _)| *kind == NEW_LINK)
        .filter_map(|(_, body)| parse_link(body))
        .collect())
}

/// The link of that name; `None` when there is none.
pub(crate) fn link(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let mut request = Messages::one(GET_LINK, ACK, &link_header(0, 0, 0));
    request.text(LINK_NAME, name);
    match socket.query(request) {
        Ok(answers) => Ok(answers.iter().find_map(|(_, body)| parse_link(body))),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All IPv4 addresses of the socket's namespace.
pub(crate) fn addresses(socket: &mut Socket) -> io::Result<Vec<Address>> {
    let answers = socket.query(Messages::one(GET_ADDRESS, DUMP, &address_header(0, 0)))?;
    Ok(answers.iter().filter_map(|(_, body)| parse_address(body)).collect())
}

/// All IPv6 addresses of the socket's namespace that are not of a link alone, by link.
pub(crate) fn addresses6(socket: &mut Socket) -> io::Result<Vec<(u32, Address6)>> {
    let answers = socket.query(Messages::one(GET_ADDRESS, DUMP, &address6_header(0, 0)))?;
    Ok(answers.iter().filter_map(|(_, body)| parse_address6(body)).collect())
}

/// The default routes of IPv6 in the main table, as link and gateway.
pub(crate) fn default_routes6(socket: &mut Socket) -> io::Result<Vec<(u32, Ipv6Addr)>> {
    let header = [FAMILY_IPV6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let answers = socket.query(Messages::one(GET_ROUTE, DUMP, &header))?;
    let route = |body: &[u8]| {
        let (link, gateway) = default_route_of::<16>(body, FAMILY_IPV6)?;
        Some((link, Ipv6Addr::from(gateway)))
    };
    Ok(answers.iter().filter_map(|(_, body)| route(body)).collect())
}

/// The default routes of the main table.
pub(crate) fn default_routes(socket: &mut Socket) -> io::Result<Vec<DefaultRoute>> {
    let answers =
        socket.query(Messages::one(GET_ROUTE, DUMP, &[FAMILY_IPV4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))?;
    Ok(answers.iter().filter_map(|(_, body)| parse_default_route(body)).collect())
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let (header, rest) = body.split_first_chunk::<16>()?;
    let mut link = Link {
        index: u32::from_ne_bytes(fixed(&header[4..])?),
        name: String::new(),
        kind: String::new(),
        up: u32::from_ne_bytes(fixed(&header[8..])?) & FLAG_UP != 0,
        mtu: 0,
        master: None,
        mac: None,
        alias: String::new(),
        vxlan: None,
    };
    let mut data = None;
    for (kind, payload) in attributes(rest) {
        match kind {
            LINK_NAME => link.name = text(payload),
            LINK_MTU => link.mtu = u32::from_ne_bytes(fixed(payload)?),
            LINK_MASTER => link.master = Some(u32::from_ne_bytes(fixed(payload)?)),
            LINK_ADDRESS => link.mac = fixed(payload).map(MacAddress),
            LINK_ALIAS => link.alias = text(payload),
            LINK_INFO => {
                link.kind = find(payload, INFO_KIND).map(text).unwrap_or_default();
                data = find(payload, INFO_DATA);
            }
            _ => {}
        }
    }
    if link.kind == "vxlan" {
        link.vxlan = data.and_then(|data| overlay::settings(data, link.mtu));
    }
    Some(link)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let (header, rest) = body.split_first_chunk::<8>()?;
    if header[0] != FAMILY_IPV4 {
        return None;
    }
    let address = find(rest, ADDRESS_LOCAL).or_else(|| find(rest, ADDRESS_ADDRESS))?;
    Some(Address {
        link: u32::from_ne_bytes(fixed(&header[4..])?),
        address: Ipv4Addr::from(fixed::<4>(address)?),
        prefix: header[1],
    })
}

fn parse_address6(body: &[u8]) -> Option<(u32, Address6)> {
    let (header, rest) = body.split_first_chunk::<8>()?;
    if header[0] != FAMILY_IPV6 || header[3] == SCOPE_LINK {
        return None;
    }
    let address = find(rest, ADDRESS_LOCAL).or_else(|| find(rest, ADDRESS_ADDRESS))?;
    let address = Address6 { address: Ipv6Addr::from(fixed::<16>(address)?), prefix: header[1] };
    Some((u32::from_ne_bytes(fixed(&header[4..])?), address))
}

fn parse_default_route(body: &[u8]) -> Option<DefaultRoute> {
    let (link, gateway) = default_route_of::<4>(body, FAMILY_IPV4)?;
    Some(DefaultRoute { link, gateway: gateway.into() })
}

/// Link and gateway of a route, if it is a default one.
fn default_route_of<const LEN: usize>(body: &[u8], family: u8) -> Option<(u32, [u8; LEN])> {
    let (header, rest) = body.split_first_chunk::<12>()?;
    if header[0] != family || header[1] != 0 || header[4] != TABLE_MAIN {
        return None;
    }
    Some((u32::from_ne_bytes(fixed(find(rest, ROUTE_OUT_LINK)?)?), fixed(find(rest, ROUTE_GATEWAY)?)?))
}
