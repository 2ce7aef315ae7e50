//! A netlink socket that is kept: send a batch, wait for its acknowledgement, or gather a dump.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use super::{MESSAGE_HEADER_LEN, Messages, fixed};

/// The kernel answers within the call; an answer that does not come is a bug that must not hang the daemon.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The kernel fills at most this much of a buffer for a dump.
const RECEIVE_BUFFER_LEN: usize = 32 * 1024;
/// What a socket may send at once without asking for more; the usual default of `net.core.wmem_default`.
const DEFAULT_SEND_LIMIT: usize = 200 * 1024;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
/// How often a dump is tried that changes interrupt.
const DUMP_ATTEMPTS: u32 = 20;

/// One message that the kernel sent: its kind, and its payload behind the netlink header.
pub(crate) type Answer = (u16, Vec<u8>);

/// The part of the kernel that a socket speaks to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subsystem {
    Route,
    Netfilter,
}

/// A socket to one subsystem, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    next_sequence: u32,
    send_limit: usize,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket to a subsystem.
    pub(crate) fn open(subsystem: Subsystem) -> io::Result<Socket> {
        // Route's number is 0, which rustix writes as no protocol.
        let protocol = match subsystem {
            Subsystem::Route => None,
            Subsystem::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Socket { fd, next_sequence: 1, send_limit: DEFAULT_SEND_LIMIT, buffer: Vec::new() })
    }

    /// Gives the receive buffer back: of sockets that are kept for seldom use there may be hundreds.
    pub(crate) fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    /// Sends a batch and waits until the last message that asks for it is acknowledged, or any is refused.
    pub(crate) fn transact(&mut self, messages: Messages) -> io::Result<()> {
        self.settle(messages, None)
    }

    /// [`Socket::transact`], to which refusals for one reason, `tolerated`, do not matter.
    pub(crate) fn transact_unless(&mut self, messages: Messages, tolerated: i32) -> io::Result<()> {
        self.settle(messages, Some(tolerated))
    }

    fn settle(&mut self, mut messages: Messages, tolerated: Option<i32>) -> io::Result<()> {
        let awaited = messages.last_acknowledged().expect("a batch asks for an acknowledgement");
        let first = self.send(&mut messages)?;
        loop {
            let len = self.receive()?;
            for answer in split(&self.buffer[..len]) {
                // An earlier batch that failed may have left answers behind.
                let message = answer.sequence.wrapping_sub(first) as usize;
                if answer.kind != KIND_ERROR || message >= messages.len() {
                    continue;
                }
                let error = error_of(answer.payload);
                match error.filter(|error| tolerated.is_none() || error.raw_os_error() != tolerated) {
                    Some(error) => return Err(error),
                    None if message == awaited => return Ok(()),
                    None => {}
                }
            }
        }
    }

    /// Sends one request and gathers its answers: those of a dump, or the one object that was asked for.
    pub(crate) fn query(&mut self, mut messages: Messages) -> io::Result<Vec<Answer>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(answers) = self.try_query(&mut messages)? {
                return Ok(answers);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "what is listed keeps changing meanwhile"))
    }

    /// `None` when something changed during the dump, so that the answers may lack an object that was there throughout.
    fn try_query(&mut self, messages: &mut Messages) -> io::Result<Option<Vec<Answer>>> {
        let first = self.send(messages)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let len = self.receive()?;
            for answer in split(&self.buffer[..len]) {
                if answer.sequence != first {
                    continue;
                }
                interrupted |= answer.flags & FLAG_DUMP_INTERRUPTED != 0;
                match answer.kind {
                    KIND_DONE => return Ok((!interrupted).then_some(answers)),
                    KIND_ERROR => match error_of(answer.payload) {
                        Some(error) => return Err(error),
                        None => return Ok(Some(answers)),
                    },
                    kind => answers.push((kind, answer.payload.to_vec())),
                }
            }
        }
    }

    /// Sends, and returns the sequence number of the first message.
    fn send(&mut self, messages: &mut Messages) -> io::Result<u32> {
        let first = self.next_sequence;
        self.next_sequence = self.next_sequence.wrapping_add(messages.len() as u32);
        let bytes = messages.sequenced(first);
        if bytes.len() > self.send_limit {
            sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() * 2)?;
            self.send_limit = bytes.len();
        }
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()))?;
        debug_assert_eq!(sent, bytes.len(), "netlink takes a batch whole or not at all");
        Ok(first)
    }

    fn receive(&mut self) -> io::Result<usize> {
        self.buffer.resize(RECEIVE_BUFFER_LEN, 0);
        let (len, full) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC)
        })?;
        if full > len {
            return Err(io::Error::other("the kernel's answer exceeds the receive buffer"));
        }
        Ok(len)
    }
}

struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages in `bytes`; ends at the first that is cut short.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<MESSAGE_HEADER_LEN>()?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let received = Received {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: bytes.get(MESSAGE_HEADER_LEN..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(received)
    })
}

/// The error in an acknowledgement; `None` when it says yes.
fn error_of(payload: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(fixed(payload).unwrap_or_default());
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
