//! One process's standard streams, its log, and the clients attached to them.
//!
//! Nothing here grows: while a client has not taken what was read, no more is read from the process, whose pipe then
//! fills up and stops it. After the process's end what its pipes still hold is taken at once, so that the
//! end can be told; [`END_LIMIT`] and [`END_READS`] bound that.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use skep_types::Time;

use super::log::Log;
use crate::logs::Stream;
use crate::runtime::Attach;

/// Bytes that are read from a process at once, and so the most that a client of a living one can owe.
pub const READ_LIMIT: usize = 16 << 10;

/// Bytes that a client of an ended process can owe: what two full pipes hold, and their frames' heads. One that owes
/// more is dropped.
const END_LIMIT: usize = 256 << 10;

/// How often an ended process's stream is read for what its pipe still holds: more than the largest pipe holds (1 MiB,
/// pipe(7)). What it left running may hold the pipe open and write on, faster than it is read.
const END_READS: usize = 128;

/// Clients that are attached to one process: each is a descriptor, of which a shim must have some left.
const CLIENTS_LIMIT: usize = 256;

/// Bytes of input that are read from a client at once.
const INPUT_LIMIT: usize = 4 << 10;

/// An attached client.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    streams: Attach,
    /// What it has not taken yet.
    pending: Vec<u8>,
    gone: bool,
}

/// A process's streams, seen from the shim.
#[derive(Debug, Default)]
pub struct Streams {
    /// The terminal, if there is one: `stdin` and `stdout` are copies of it.
    pub terminal: Option<OwnedFd>,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Whether the process has a terminal, even if it ended.
    pub tty: bool,
    /// Whether the process's input is open to clients.
    pub input: bool,
    /// Whether the first client that ends its input ends the process's.
    pub close_input: bool,
    pub log: Option<Log>,
    clients: Vec<Client>,
    /// Input that the process has not taken yet.
    pending_input: Vec<u8>,
    /// Whether input ends after that.
    input_ends: bool,
    ended: bool,
}

/// What of some streams became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    Output(Stream),
    Input,
    Client(usize),
}

impl Streams {
    /// Streams that are not open yet.
    pub fn new(tty: bool, input: bool, close_input: bool) -> Streams {
        Streams { tty, input, close_input, ..Streams::default() }
    }

    /// Whether no more clients can attach.
    pub fn is_crowded(&self) -> bool {
        self.clients.len() >= CLIENTS_LIMIT
    }

    /// Attaches a client.
    pub fn attach(&mut self, socket: OwnedFd, mut streams: Attach) {
        streams.stdin &= self.input;
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        self.clients.push(Client { socket, streams, pending: Vec::new(), gone: false });
    }

    /// What to wait for.
    pub fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, Ready)) {
        let blocked = self.clients.iter().any(|client| !client.pending.is_empty());
        if !blocked && !self.ended {
            for (descriptor, stream) in [(&self.stdout, Stream::Stdout), (&self.stderr, Stream::Stderr)] {
                if let Some(descriptor) = descriptor {
                    add(descriptor.as_fd(), PollFlags::IN, Ready::Output(stream));
                }
            }
        }
        if !self.pending_input.is_empty()
            && let Some(stdin) = &self.stdin
        {
            add(stdin.as_fd(), PollFlags::OUT, Ready::Input);
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::OUT, !client.pending.is_empty());
            flags.set(PollFlags::IN, client.streams.stdin && self.pending_input.is_empty() && !self.ended);
            add(client.socket.as_fd(), flags, Ready::Client(index));
        }
    }

    /// Does what has become possible. `buffer` is scratch.
    pub fn handle(&mut self, ready: Ready, flags: PollFlags, buffer: &mut [u8], now: Time) {
        match ready {
            Ready::Output(stream) => {
                self.read(stream, buffer, now);
            }
            Ready::Input => self.write_input(),
            Ready::Client(index) => self.serve_client(index, flags, buffer),
        }
    }

    /// Forgets clients that are gone.
    pub fn sweep(&mut self) {
        // One that broke off has ended its input too, also when output that it did not take was what told.
        let input_left = self.clients.iter().any(|client| client.gone && client.streams.stdin);
        if input_left && self.close_input && !self.tty && !self.ended {
            self.input_ends = true;
            self.write_input();
        }
        self.clients.retain(|client| !client.gone);
        if self.clients.is_empty() {
            self.clients = Vec::new();
        }
    }

    /// Whether every client has what it should.
    pub fn is_delivered(&self) -> bool {
        self.clients.is_empty()
    }

    /// The process has ended: takes what is left, and lets clients go once they have it.
    pub fn end(&mut self, buffer: &mut [u8], now: Time) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..END_READS {
                if !self.read(stream, buffer, now) {
                    break;
                }
            }
            if let Some(log) = &mut self.log {
                log.end(stream, now);
            }
        }
        self.ended = true;
        (self.stdin, self.stdout, self.stderr, self.terminal) = (None, None, None, None);
        self.pending_input = Vec::new();
        self.clients.iter_mut().filter(|client| client.pending.is_empty()).for_each(Client::finish);
        self.sweep();
    }

    fn output(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Reads once. False when nothing was there.
    fn read(&mut self, stream: Stream, buffer: &mut [u8], now: Time) -> bool {
        let Some(descriptor) = self.output(stream) else { return false };
        let length = match rustix::io::read(descriptor.as_fd(), &mut *buffer) {
            Ok(length) => length,
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => return false,
            // A terminal that nobody holds open any more says EIO.
            Err(_) => 0,
        };
        if length == 0 {
            *self.output(stream) = None;
            if let Some(log) = &mut self.log {
                log.end(stream, now);
            }
            return false;
        }
        let bytes = &buffer[..length];
        if let Some(log) = &mut self.log {
            log.take(stream, bytes, now);
        }
        for client in &mut self.clients {
            client.deliver(stream, bytes, self.tty);
        }
        true
    }

    fn write_input(&mut self) {
        while let (Some(stdin), false) = (&self.stdin, self.pending_input.is_empty()) {
            match rustix::io::write(stdin, &self.pending_input) {
                Ok(length) => drop(self.pending_input.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its input.
                Err(_) => {
                    self.stdin = None;
                    self.pending_input = Vec::new();
                }
            }
        }
        self.pending_input = Vec::new();
        if self.input_ends {
            self.stdin = None;
        }
    }

    fn serve_client(&mut self, index: usize, flags: PollFlags, buffer: &mut [u8]) {
        let client = &mut self.clients[index];
        if flags.contains(PollFlags::OUT) {
            client.flush();
            if self.ended && client.pending.is_empty() {
                client.finish();
            }
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && client.streams.stdin
            && !self.ended
        {
            let limit = INPUT_LIMIT.min(buffer.len());
            match rustix::net::recv(&client.socket, &mut buffer[..limit], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => self.end_input(index),
                Ok((length, _)) => {
                    self.pending_input.extend_from_slice(&buffer[..length]);
                    self.write_input();
                    return;
                }
                Err(_) => {}
            }
        }
        let client = &mut self.clients[index];
        if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            client.gone = true;
        }
    }

    /// A client's input has ended. As Docker's: it ends the process's where that was asked for and there is no
    /// terminal; else the client is let go.
    fn end_input(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.streams.stdin = false;
        if self.close_input && !self.tty {
            self.input_ends = true;
            self.write_input();
        } else if client.pending.is_empty() {
            client.finish();
        } else {
            (client.streams.stdout, client.streams.stderr) = (false, false);
        }
    }
}

impl Client {
    /// Gives it bytes of a stream; keeps what it does not take.
    fn deliver(&mut self, stream: Stream, bytes: &[u8], raw: bool) {
        let wanted = match stream {
            Stream::Stdout => self.streams.stdout,
            Stream::Stderr => self.streams.stderr,
        };
        if !wanted || self.gone {
            return;
        }
        let mut head = [0; 8];
        head[0] = stream as u8 + 1;
        head[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        let head: &[u8] = if raw { &[] } else { &head };
        let sent = if self.pending.is_empty() { self.send(head, bytes) } else { Ok(0) };
        match sent {
            Ok(sent) => {
                self.pending.extend_from_slice(&head[sent.min(head.len())..]);
                self.pending.extend_from_slice(&bytes[sent.saturating_sub(head.len())..]);
                self.gone = self.pending.len() > END_LIMIT;
            }
            Err(_) => self.gone = true,
        }
    }

    fn send(&self, head: &[u8], bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let parts = [IoSlice::new(head), IoSlice::new(bytes)];
        loop {
            match rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                sent => return Ok(sent?),
            }
        }
    }

    fn flush(&mut self) {
        match self.send(&self.pending, &[]) {
            Ok(sent) => drop(self.pending.drain(..sent)),
            Err(_) => self.gone = true,
        }
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Tells it the end, and lets it go.
    fn finish(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        self.gone = true;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// The client's death is told by output that it does not take, before its socket is asked for input.
    #[test]
    fn a_client_that_breaks_off_under_output_ends_the_input() {
        let (process_reads, stdin) = rustix::pipe::pipe().unwrap();
        let (stdout, process_writes) = rustix::pipe::pipe().unwrap();
        let mut streams = Streams::new(false, true, true);
        (streams.stdin, streams.stdout) = (Some(stdin), Some(stdout));
        let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
        let (shim, client) = socketpair(kind.0, kind.1, kind.2, None).unwrap();
        streams.attach(shim, Attach { stdin: true, stdout: true, stderr: true });
        drop(client);
        rustix::io::write(&process_writes, b"flood").unwrap();
        let mut buffer = [0; 64];
        streams.handle(Ready::Output(Stream::Stdout), PollFlags::IN, &mut buffer, Time(0));
        streams.sweep();
        assert!(streams.is_delivered(), "the client is let go");
        rustix::io::ioctl_fionbio(&process_reads, true).unwrap();
        assert_eq!(rustix::io::read(&process_reads, &mut buffer), Ok(0), "the process's input has ended");
    }
}
