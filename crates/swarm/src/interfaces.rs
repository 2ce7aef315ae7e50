//! The machine's network interfaces and their addresses, asked of the kernel by netlink (rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// An interface with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    /// `veth`, `bridge`...; empty for hardware.
    pub(crate) kind: String,
    pub(crate) addresses: Vec<IpAddr>,
}

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 0x1 | 0x300;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// The kernel never sends a larger part of a dump.
const BUFFER_BYTES: usize = 64 << 10;

/// All interfaces of this network namespace, by index.
pub(crate) fn list() -> io::Result<Vec<Interface>> {
    let flags = SocketFlags::CLOEXEC;
    // No protocol is protocol 0: NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let mut interfaces = Vec::new();
    dump(&socket, RTM_GETLINK, |kind, body| {
        if kind == RTM_NEWLINK {
            interfaces.extend(parse_link(body));
        }
    })?;
    dump(&socket, RTM_GETADDR, |kind, body| {
        let Some((index, address)) = parse_address(body).filter(|_| kind == RTM_NEWADDR) else { return };
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == index) {
            interface.addresses.push(address);
        }
    })?;
    Ok(interfaces)
}

fn dump(socket: &OwnedFd, kind: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    // nlmsghdr and a zeroed rtgenmsg (AF_UNSPEC), padded.
    let mut request = Vec::with_capacity(20);
    request.extend_from_slice(&20u32.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&DUMP.to_ne_bytes());
    request.resize(20, 0);
    send(socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (_, len) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len.min(BUFFER_BYTES)];
        while let Some((kind, body, next)) = split_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(io::Error::other("the kernel refused to list its interfaces")),
                kind => each(kind, body),
            }
            rest = next;
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32_at(bytes, 0)? as usize;
    let body = bytes.get(16..len)?;
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, body, next))
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        // The upper two bits are flags.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Reads an ifinfomsg and its attributes.
fn parse_link(body: &[u8]) -> Option<Interface> {
    let flags = u32_at(body, 8)?;
    let mut interface = Interface {
        index: u32_at(body, 4)?,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        ..Interface::default()
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_LINKINFO => {
                let mut inner = attributes(value);
                let found = inner.find(|(kind, _)| *kind == IFLA_INFO_KIND);
                interface.kind = found.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(interface)
}

/// Reads an ifaddrmsg and its attributes: the interface's index and its own address.
fn parse_address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32_at(body, 4)?;
    let mut found = None;
    for (kind, value) in attributes(body.get(8..)?) {
        // On a point-to-point link IFA_ADDRESS is the peer's.
        if kind == IFA_LOCAL || kind == IFA_ADDRESS && found.is_none() {
            found = match value.len() {
                4 => Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
                16 => Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
                _ => None,
            };
        }
    }
    Some((index, found?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there() {
        let interfaces = list().expect("the kernel lists its interfaces");
        let loopback =
            interfaces.iter().find(|interface| interface.name == "lo").expect("every namespace has lo");
        assert!(loopback.loopback);
        assert_eq!(loopback.kind, "");
    }
}
