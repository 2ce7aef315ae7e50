//! System calls that neither the standard library nor rustix offers, each behind a safe function.

#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What all of our TAP devices are opened with: frames without further framing but the virtio header, and queues.
const TAP_FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// linux/if_tun.h: checksums, TCP's segments over IPv4 and IPv6, and with ECN.
const OFFLOAD_TCP: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// The same for UDP, since Linux 6.2.
const OFFLOAD_UDP: libc::c_ulong = 0x20 | 0x40;

/// Messages of one call; the kernel takes 1024.
pub(crate) const MESSAGES: usize = 16;
/// Packets of one message that the kernel makes several of.
pub(crate) const SEGMENTS: usize = 64;
/// The most that one message can have in bytes: what IPv4 can say, less its header and UDP's.
pub(crate) const MOST_MESSAGE: usize = 65_535 - 28;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes hold of a TAP device that exists, so that frames come to the descriptor, which does not block.
pub(crate) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK)?;
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = TAP_FLAGS as libc::c_short;
    // SAFETY: the kernel reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    set_offload(file.as_raw_fd())?;
    Ok(file.into())
}

fn set_offload(tap: RawFd) -> io::Result<()> {
    // SAFETY: the argument is a number.
    let set = |flags: libc::c_ulong| check(unsafe { libc::ioctl(tap, libc::TUNSETOFFLOAD, flags) });
    match set(OFFLOAD_TCP | OFFLOAD_UDP) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set(OFFLOAD_TCP).map(drop),
        other => other.map(drop),
    }
}

fn set_option(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Lets packets come as the network card or the sender put them together, and wait in more than the usual memory.
pub(crate) fn tune_socket(socket: &UdpSocket, buffer: i32) -> io::Result<()> {
    let socket = socket.as_raw_fd();
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, buffer)
}

/// A message that is to be sent: a part of a buffer, cut into packets of `segment` bytes, but for the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) to: Ipv4Addr,
    pub(crate) range: Range<usize>,
    pub(crate) segment: usize,
}

/// Room for one control message with an int, aligned as one has to be.
type Control = [u64; 4];
const CONTROL: Control = [0; 4];

/// Sends messages, in order, [`MESSAGES`] at most, and returns how many went; after an error nobody knows about the
/// first only.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    port: u16,
    messages: &[Message],
    buffer: &[u8],
) -> io::Result<usize> {
    let mut addresses: [libc::sockaddr_in; MESSAGES] = std::array::from_fn(|_| address(port));
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MESSAGES];
    let mut controls = [CONTROL; MESSAGES];
    // SAFETY: mmsghdr is plain data, for which zero is valid.
    let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { std::mem::zeroed() };
    let count = messages.len().min(MESSAGES);
    for (at, message) in messages[..count].iter().enumerate() {
        let bytes = &buffer[message.range.clone()];
        addresses[at].sin_addr.s_addr = u32::from_ne_bytes(message.to.octets());
        parts[at] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut headers[at].msg_hdr;
        header.msg_name = (&raw mut addresses[at]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut parts[at];
        header.msg_iovlen = 1;
        if bytes.len() > message.segment {
            write_segment_len(&mut controls[at], message.segment as u16);
            header.msg_control = controls[at].as_mut_ptr().cast();
            // SAFETY: computes a length from a length.
            header.msg_controllen = unsafe { libc::CMSG_SPACE(2) } as usize;
        }
    }
    // SAFETY: the first `count` headers point to addresses, parts and controls that live in this function, and the parts
    // to `buffer`, which the kernel only reads.
    check(unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, 0) })
        .map(|count| count as usize)
}

fn address(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    }
}

/// A cmsghdr with UDP_SEGMENT and the length.
fn write_segment_len(control: &mut Control, len: u16) {
    // SAFETY: a length from a length.
    control[0] = u64::from(unsafe { libc::CMSG_LEN(2) });
    control[1] = two_ints(libc::SOL_UDP, libc::UDP_SEGMENT);
    let mut value = [0; 8];
    value[..2].copy_from_slice(&len.to_ne_bytes());
    control[2] = u64::from_ne_bytes(value);
}

/// Two ints as they lie in memory.
fn two_ints(first: i32, second: i32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// Messages that [`receive`] writes next to each other.
pub(crate) const RECEIVED: usize = 8;
/// The room of one message in bytes.
pub(crate) const ROOM: usize = 1 << 16;

/// What came: where it lies, and how long the packets in it are, but for the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) range: Range<usize>,
    pub(crate) segment: usize,
}

/// Waits for messages, and returns those that came, [`RECEIVED`] at most. `buffer` has [`ROOM`] for each.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    received: &mut Vec<Received>,
) -> io::Result<()> {
    received.clear();
    let mut controls = [CONTROL; RECEIVED];
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; RECEIVED];
    // SAFETY: mmsghdr is plain data, for which zero is valid.
    let mut headers: [libc::mmsghdr; RECEIVED] = unsafe { std::mem::zeroed() };
    for (at, room) in buffer.chunks_exact_mut(ROOM).take(RECEIVED).enumerate() {
        parts[at] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: ROOM };
        let header = &mut headers[at].msg_hdr;
        header.msg_iov = &raw mut parts[at];
        header.msg_iovlen = 1;
        header.msg_control = controls[at].as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>();
    }
    let count = (buffer.len() / ROOM).min(RECEIVED) as libc::c_uint;
    // SAFETY: the first `count` headers point to parts and controls that live in this function, and the parts to rooms
    // of `buffer`, which nobody else has. A null timeout waits for ever.
    let count = check(unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    })?;
    for (at, header) in headers[..count as usize].iter().enumerate() {
        let len = header.msg_len as usize;
        let segment = read_segment_len(&controls[at], header.msg_hdr.msg_controllen).unwrap_or(len);
        received.push(Received { range: at * ROOM..at * ROOM + len, segment });
    }
    Ok(())
}

/// UDP_GRO's length of each packet; `None` where a message is one packet.
fn read_segment_len(control: &Control, len: usize) -> Option<usize> {
    let is_ours = control[1] == two_ints(libc::SOL_UDP, libc::UDP_GRO);
    let value = control[2].to_ne_bytes();
    let value = i32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
    (len > 16 && is_ours).then_some(usize::try_from(value).ok()?).filter(|value| *value > 0)
}

/// Takes over a descriptor that the process which this one was gave it by number.
pub(crate) fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the predecessor names each of its descriptors once, and nothing else has been opened by number.
    unsafe { OwnedFd::from_raw_fd(number) }
}
