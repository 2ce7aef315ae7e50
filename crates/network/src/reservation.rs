//! Ports of the host that are ours to the eyes of other processes, and theirs to ours.
//!
//! No packet ever reaches these sockets: rules take it away before. They make `bind` fail where it should: for a
//! process that wants a published port, and for us when a process has it. `docs/adr/0003-published-ports.md` says what
//! happens while no daemon runs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use skep_types::port::Protocol;

use crate::plan::Front;

/// Attempts before a port counts as taken, and the pause between two: a process that has it is reported after 45 ms.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// A port that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    _socket: OwnedFd,
}

impl Reservation {
    /// Takes the front's port, or any free one for port 0; returns which.
    ///
    /// A port that was ours a moment ago may still be held by a child of this process that another thread has forked
    /// and that has not yet called exec, which closes it. So a port is not taken at the first refusal.
    pub(crate) fn take(front: &Front) -> io::Result<(Reservation, u16)> {
        for _ in 1..ATTEMPTS {
            match Reservation::take_at_once(front) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
        Reservation::take_at_once(front)
    }

    /// [`Reservation::take`] with a single attempt.
    pub(crate) fn take_at_once(front: &Front) -> io::Result<(Reservation, u16)> {
        let port = if front.port == 0 { free_port(front)? } else { front.port };
        let address = SocketAddr::new(front.address, port);
        let socket = match front.protocol {
            Protocol::Tcp => take_tcp(address)?,
            Protocol::Udp => take_udp(address)?,
        };
        Ok((Reservation { _socket: socket }, port))
    }
}

/// A port that nobody has just now. Only one that is asked for by its number stays with a socket that is shut down.
fn free_port(front: &Front) -> io::Result<u16> {
    let address = SocketAddr::new(front.address, 0);
    let socket = match front.protocol {
        Protocol::Tcp => socket(address, SocketType::STREAM)?,
        Protocol::Udp => socket(address, SocketType::DGRAM)?,
    };
    rustix::net::bind(&socket, &address)?;
    Ok(SocketAddr::try_from(rustix::net::getsockname(&socket)?)?.port())
}

/// The answer to "could a server listen here?" is had by listening. A plain `bind` would say no for a minute after a
/// server has gone, and one with `SO_REUSEADDR` would not keep others with that option out. A listener that is shut
/// down again keeps the port without the option, and refuses connections, should any reach it.
fn take_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 0)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    rustix::net::shutdown(&socket, Shutdown::Both)?;
    Ok(socket)
}

/// UDP knows no lingering. A service without backends lets datagrams reach the socket: it keeps hardly any.
fn take_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    const SMALLEST: usize = 1;
    let socket = socket(address, SocketType::DGRAM)?;
    sockopt::set_socket_recv_buffer_size(&socket, SMALLEST)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// A socket of the address's family and of no other: each family is reserved by itself.
fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}
