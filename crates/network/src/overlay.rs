//! The kernel's side of overlays: a VXLAN device for each network, and what it and its bridge know of other nodes.
//!
//! The device learns nothing and has no destination for what it does not know, so nothing is ever flooded to other
//! nodes. It answers questions for hardware addresses itself, from permanent entries.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::{MacAddress, Peers, Transport};
use crate::netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Messages, REPLACE, Socket, attributes, find, fixed};
use crate::plan::{FoundPeers, Vxlan};
use crate::route::{
    FLAG_UP, INFO_DATA, INFO_KIND, INFO_PORT_DATA, INFO_PORT_KIND, LINK_ALIAS, LINK_INFO, LINK_MASTER,
    LINK_MTU, LINK_NAME, NEW_LINK, link_header,
};

const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;

const VXLAN_ID: u16 = 1;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PROXY: u16 = 11;
const VXLAN_PORT: u16 = 15;
const VXLAN_CHECKSUM: u16 = 18;

const PORT_LEARNING: u16 = 8;
const PORT_UNICAST_FLOOD: u16 = 9;
const PORT_MULTICAST_FLOOD: u16 = 27;
const PORT_BROADCAST_FLOOD: u16 = 30;
const PORT_NEIGHBOUR_SUPPRESSION: u16 = 32;

const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_LINK_ADDRESS: u16 = 2;

const FAMILY_IPV4: u8 = 2;
const FAMILY_BRIDGE: u8 = 7;
const FAMILY_IPV6: u8 = 10;
const STATE_PERMANENT: u16 = 0x80;
/// A static entry in a bridge's table; there, a permanent one would be an address of the host.
const STATE_STATIC: u16 = 0x40;
/// What VXLAN's table accepts besides permanent ones. Together with the former it never ages.
const STATE_REACHABLE: u16 = 0x02;
const FLAG_SELF: u8 = 0x02;
const FLAG_MASTER: u8 = 0x04;

/// Peers in one batch: should each of its messages be refused, the answers still fit the socket's buffer.
const PEERS_PER_BATCH: usize = 40;

/// Creates a VXLAN device that is a port of a bridge, up.
pub(crate) fn create(
    socket: &mut Socket,
    name: &str,
    vxlan: &Vxlan,
    bridge: u32,
    alias: &str,
) -> io::Result<()> {
    let mut messages = Messages::one(NEW_LINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).native(LINK_MTU, vxlan.mtu).nested(LINK_INFO, |info| {
        info.text(INFO_KIND, "vxlan").nested(INFO_DATA, |data| {
            data.native(VXLAN_ID, vxlan.vni)
                .attribute(VXLAN_PORT, &vxlan.port.to_be_bytes())
                .attribute(VXLAN_LEARNING, &[0])
                .attribute(VXLAN_PROXY, &[1])
                // As RFC 7348 would have it: the packets inside have checksums of their own, and kernels have sent
                // wrong outer ones where a host's rules rewrote the outer source.
                .attribute(VXLAN_CHECKSUM, &[0]);
            if let Some(local) = vxlan.local {
                data.attribute(VXLAN_LOCAL, &local.octets());
            }
        });
    });
    socket.transact(messages)?;
    let mut messages = Messages::one(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).attribute(LINK_ALIAS, alias.as_bytes());
    socket.transact(messages)?;
    connect(socket, Transport::Vxlan, name, vxlan.mtu, bridge)
}

/// Marks a TAP device as made by this instance, and makes it a port of a bridge, up.
pub(crate) fn adopt_tap(
    socket: &mut Socket,
    name: &str,
    mtu: u32,
    bridge: u32,
    alias: &str,
) -> io::Result<()> {
    let mut messages = Messages::one(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).attribute(LINK_ALIAS, alias.as_bytes());
    socket.transact(messages)?;
    connect(socket, Transport::Process, name, mtu, bridge)
}

/// Makes a device that exists a port of a bridge again. The bridge learns nothing from it and sends it no more than it
/// must: to known addresses. Who asks for a peer is answered by the VXLAN device, which broadcasts go to for this, or in
/// the place of a TAP device by the bridge itself.
pub(crate) fn connect(
    socket: &mut Socket,
    transport: Transport,
    name: &str,
    mtu: u32,
    bridge: u32,
) -> io::Result<()> {
    let mut messages = Messages::one(NEW_LINK, ACK, &link_header(0, FLAG_UP, FLAG_UP));
    messages.text(LINK_NAME, name).native(LINK_MTU, mtu).native(LINK_MASTER, bridge);
    messages.begin(NEW_LINK, ACK, &link_header(0, 0, 0));
    messages.text(LINK_NAME, name).nested(LINK_INFO, |info| {
        info.text(INFO_PORT_KIND, "bridge").nested(INFO_PORT_DATA, |port| {
            port.attribute(PORT_LEARNING, &[0])
                .attribute(PORT_UNICAST_FLOOD, &[0])
                .attribute(PORT_MULTICAST_FLOOD, &[0])
                // The bridge answers itself who asks for a neighbour of its own: over IPv6 such questions are multicast.
                .attribute(PORT_NEIGHBOUR_SUPPRESSION, &[1]);
            if transport == Transport::Process {
                port.attribute(PORT_BROADCAST_FLOOD, &[0]);
            }
        });
    });
    socket.transact(messages)
}

/// Tells a device and its bridge where addresses are, in the place of what they knew of them.
pub(crate) fn set_peers(
    socket: &mut Socket,
    transport: Transport,
    (device, bridge): (u32, u32),
    peers: &Peers,
    subnet6: Option<Ipv6Addr>,
) -> io::Result<()> {
    // A TAP device has no table and no neighbours of its own; the bridge answers for it.
    let (flags, knowing) = match transport {
        Transport::Vxlan => (FLAG_SELF | FLAG_MASTER, &[device, bridge][..]),
        Transport::Process => (FLAG_MASTER, &[bridge][..]),
    };
    let peers: Vec<(&Ipv4Addr, &Ipv4Addr)> = peers.iter().collect();
    for chunk in peers.chunks(PEERS_PER_BATCH) {
        let mut messages = Messages::default();
        for (address, host) in chunk {
            let mac = MacAddress::of(**address);
            let forwarding = neighbour_header(FAMILY_BRIDGE, device, STATE_STATIC | STATE_REACHABLE, flags);
            messages.begin(NEW_NEIGHBOUR, CREATE | REPLACE, &forwarding);
            messages.attribute(NEIGHBOUR_LINK_ADDRESS, &mac.0);
            if transport == Transport::Vxlan {
                messages.attribute(NEIGHBOUR_DESTINATION, &host.octets());
            }
            // The device answers containers from its own entry; the host finds the bridge's.
            for link in knowing {
                let header = neighbour_header(FAMILY_IPV4, *link, STATE_PERMANENT, 0);
                messages.begin(NEW_NEIGHBOUR, CREATE | REPLACE, &header);
                messages
                    .attribute(NEIGHBOUR_DESTINATION, &address.octets())
                    .attribute(NEIGHBOUR_LINK_ADDRESS, &mac.0);
            }
            if let Some(subnet6) = subnet6 {
                let header = neighbour_header(FAMILY_IPV6, bridge, STATE_PERMANENT, 0);
                messages.begin(NEW_NEIGHBOUR, CREATE | REPLACE, &header);
                messages
                    .attribute(NEIGHBOUR_DESTINATION, &address6(subnet6, **address).octets())
                    .attribute(NEIGHBOUR_LINK_ADDRESS, &mac.0);
            }
        }
        messages.acknowledge_last();
        socket.transact(messages)?;
    }
    Ok(())
}

/// Makes a bridge forget addresses of which no device of its knows; what it does not know does not matter.
pub(crate) fn forget_neighbours(
    socket: &mut Socket,
    bridge: u32,
    addresses: &BTreeSet<Ipv4Addr>,
    subnet6: Option<Ipv6Addr>,
) -> io::Result<()> {
    forget(socket, addresses, |messages, address| {
        remove_neighbour(messages, bridge, address);
        remove_neighbour6(messages, bridge, address, subnet6);
    })
}

/// Makes a device and its bridge forget addresses; what they do not know does not matter.
pub(crate) fn remove_peers(
    socket: &mut Socket,
    transport: Transport,
    (device, bridge): (u32, u32),
    addresses: &BTreeSet<Ipv4Addr>,
    subnet6: Option<Ipv6Addr>,
) -> io::Result<()> {
    forget(socket, addresses, |messages, address| {
        remove_neighbour(messages, bridge, address);
        remove_neighbour6(messages, bridge, address, subnet6);
        // Apart, as the kernel leaves the second table alone when the first lacks the entry.
        let mut tables = vec![FLAG_MASTER];
        if transport == Transport::Vxlan {
            remove_neighbour(messages, device, address);
            tables.push(FLAG_SELF);
        }
        for table in tables {
            messages.begin(DELETE_NEIGHBOUR, 0, &neighbour_header(FAMILY_BRIDGE, device, 0, table));
            messages.attribute(NEIGHBOUR_LINK_ADDRESS, &MacAddress::of(address).0);
        }
    })
}

/// Sends what makes the kernel forget each address, in batches; entries that are not there do not matter.
fn forget(
    socket: &mut Socket,
    addresses: &BTreeSet<Ipv4Addr>,
    removal: impl Fn(&mut Messages, Ipv4Addr),
) -> io::Result<()> {
    let addresses: Vec<Ipv4Addr> = addresses.iter().copied().collect();
    for chunk in addresses.chunks(PEERS_PER_BATCH) {
        let mut messages = Messages::default();
        chunk.iter().for_each(|address| removal(&mut messages, *address));
        messages.acknowledge_last();
        socket.transact_unless(messages, libc::ENOENT)?;
    }
    Ok(())
}

fn remove_neighbour(messages: &mut Messages, link: u32, address: Ipv4Addr) {
    messages.begin(DELETE_NEIGHBOUR, 0, &neighbour_header(FAMILY_IPV4, link, 0, 0));
    messages.attribute(NEIGHBOUR_DESTINATION, &address.octets());
}

fn remove_neighbour6(messages: &mut Messages, link: u32, address: Ipv4Addr, subnet6: Option<Ipv6Addr>) {
    if let Some(subnet6) = subnet6 {
        messages.begin(DELETE_NEIGHBOUR, 0, &neighbour_header(FAMILY_IPV6, link, 0, 0));
        messages.attribute(NEIGHBOUR_DESTINATION, &address6(subnet6, address).octets());
    }
}

/// The IPv6 address that goes with an address: the same last 32 bits in the subnet of that address.
fn address6(subnet6: Ipv6Addr, address: Ipv4Addr) -> Ipv6Addr {
    let high = u128::from(subnet6) >> 32 << 32;
    Ipv6Addr::from(high | u128::from(u32::from(address)))
}

/// The tables of all devices and bridges, read once.
#[derive(Default)]
pub(crate) struct Tables {
    /// Permanent neighbours by link.
    neighbours: BTreeMap<u32, BTreeMap<Ipv4Addr, MacAddress>>,
    /// What is sent out by a link: the host that a VXLAN device sends it to, and whether its bridge knows.
    forwarded: BTreeMap<u32, BTreeMap<MacAddress, (Option<Ipv4Addr>, bool)>>,
}

impl Tables {
    pub(crate) fn read(socket: &mut Socket) -> io::Result<Tables> {
        let mut tables = Tables::default();
        for family in [FAMILY_BRIDGE, FAMILY_IPV4] {
            let request = Messages::one(GET_NEIGHBOUR, DUMP, &neighbour_header(family, 0, 0, 0));
            for (_, body) in socket.query(request)?.iter().filter(|(kind, _)| *kind == NEW_NEIGHBOUR) {
                tables.note(body);
            }
        }
        Ok(tables)
    }

    /// An entry that cannot be understood is none of ours.
    fn note(&mut self, body: &[u8]) -> Option<()> {
        let (header, rest) = body.split_first_chunk::<12>()?;
        let link = u32::from_ne_bytes(fixed(&header[4..])?);
        let state = u16::from_ne_bytes(fixed(&header[8..])?);
        let mac = MacAddress(fixed(find(rest, NEIGHBOUR_LINK_ADDRESS)?)?);
        let destination = find(rest, NEIGHBOUR_DESTINATION).and_then(fixed::<4>).map(Ipv4Addr::from);
        let is_permanent = state & STATE_PERMANENT != 0;
        if header[0] == FAMILY_IPV4 && is_permanent {
            self.neighbours.entry(link).or_default().insert(destination?, mac);
        } else if header[0] == FAMILY_BRIDGE && !is_permanent {
            // A permanent entry is an address of the host.
            let entry = self.forwarded.entry(link).or_default().entry(mac).or_default();
            match header[10] & FLAG_SELF != 0 {
                true => entry.0 = destination,
                false => entry.1 = state & STATE_STATIC != 0,
            }
        }
        Some(())
    }

    /// What a device and its bridge know, by address.
    pub(crate) fn peers(&self, transport: Transport, (device, bridge): (u32, u32)) -> FoundPeers {
        let of_link = |link| self.neighbours.get(&link);
        let forwarded = self.forwarded.get(&device);
        let entries = forwarded.into_iter().flat_map(BTreeMap::keys).filter_map(|mac| mac.address());
        let addresses: BTreeSet<Ipv4Addr> =
            entries.chain(of_link(device).into_iter().flat_map(BTreeMap::keys).copied()).collect();
        let host = |address: &Ipv4Addr| {
            let mac = MacAddress::of(*address);
            let is_right = |link| of_link(link).and_then(|table| table.get(address)) == Some(&mac);
            let (host, known) = *forwarded?.get(&mac)?;
            match transport {
                Transport::Vxlan => host.filter(|_| known && is_right(device) && is_right(bridge)),
                Transport::Process => (known && is_right(bridge)).then_some(Ipv4Addr::UNSPECIFIED),
            }
        };
        addresses.into_iter().map(|address| (address, host(&address))).collect()
    }

    /// Permanent neighbours on a link.
    pub(crate) fn neighbours(&self, link: u32) -> BTreeSet<Ipv4Addr> {
        self.neighbours.get(&link).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }
}

/// A VXLAN device's settings, from the data of its link; `None` for one that floods or learns as ours never do.
pub(crate) fn settings(data: &[u8], mtu: u32) -> Option<Vxlan> {
    let mut vxlan = Vxlan { vni: 0, port: 0, local: None, mtu };
    let (mut quiet, mut proxy) = (false, false);
    for (kind, payload) in attributes(data) {
        match kind {
            VXLAN_ID => vxlan.vni = u32::from_ne_bytes(fixed(payload)?),
            VXLAN_PORT => vxlan.port = u16::from_be_bytes(fixed(payload)?),
            VXLAN_LOCAL => {
                vxlan.local = Some(Ipv4Addr::from(fixed::<4>(payload)?)).filter(|it| !it.is_unspecified());
            }
            VXLAN_LEARNING => quiet = payload.first() == Some(&0),
            VXLAN_PROXY => proxy = payload.first() == Some(&1),
            _ => {}
        }
    }
    (quiet && proxy).then_some(vxlan)
}

fn neighbour_header(family: u8, link: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}
