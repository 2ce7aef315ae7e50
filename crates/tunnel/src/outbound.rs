//! From TAP devices to the wire: reads frames, cuts large ones up, encrypts and sends.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll;

use crate::clock::now_ms;
use crate::frame::{Frame, MOST_FRAME, VIRTIO_LEN, Virtio};
use crate::session::Session;
use crate::sys::{self, MESSAGES, MOST_MESSAGE, Message, SEGMENTS};
use crate::table::{Counters, View};
use crate::wire::{DATA_HEADER_LEN, TAG_LEN};

/// Frames that are read from one device before others have their turn.
const FRAMES_AT_ONCE: usize = 64;
/// Encrypted packets wait in this much memory for being sent together.
const OUTBOX_LEN: usize = 192 << 10;
/// Frames and bytes that wait for the first session with a host, and bytes for all hosts.
const WAITING_FRAMES: usize = 32;
const WAITING_LEN: usize = 256 << 10;
const WAITING_LEN_OF_ALL: usize = 4 << 20;

/// The event that says that the table was replaced, or that it is time to end. Networks have 24 bits.
pub(crate) const WAKE: u64 = u64::MAX;

/// The thread's things.
pub(crate) struct Outbound {
    pub(crate) view: View,
    pub(crate) epoll: Arc<OwnedFd>,
    pub(crate) wake: Arc<OwnedFd>,
    pub(crate) end: Arc<AtomicBool>,
    pub(crate) outbox: Outbox,
}

impl Outbound {
    /// Carries frames until told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut frame = vec![0; MOST_FRAME];
        let mut waiting = Waiting::default();
        let mut events = Vec::with_capacity(16);
        while !self.end.load(Ordering::Acquire) {
            events.clear();
            match epoll::wait(&*self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if self.view.refresh() {
                self.send_waiting(&mut waiting);
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => drain(&self.wake),
                    vni => self.carry(vni as u32, &mut frame, &mut waiting),
                }
            }
            self.outbox.flush(&self.view.shared.counters);
        }
        Ok(())
    }

    /// Reads what there is of a network, up to a bound.
    fn carry(&mut self, vni: u32, room: &mut [u8], waiting: &mut Waiting) {
        let table = self.view.table.clone();
        // One that is not carried any more is closed soon.
        let Some(network) = table.networks.get(&vni) else { return };
        let now_ms = now_ms();
        for _ in 0..FRAMES_AT_ONCE {
            let mut header = [0; VIRTIO_LEN];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(room)];
            // An end, or an error, is the device's; whoever removed it says so.
            let Ok(len) = rustix::io::readv(&*network.tap, &mut parts) else { return };
            let Some(len) = len.checked_sub(VIRTIO_LEN) else { continue };
            let bytes = &room[..len];
            let frame = Frame::new(vni, Virtio::read(&header), bytes);
            let host = peer_of(bytes).and_then(|address| network.peers.get(&address).copied());
            let (Some(frame), Some(host)) = (frame, host) else {
                Counters::add(&self.view.shared.counters.unsent, 1);
                continue;
            };
            match table.sending.get(&host) {
                Some(session) => self.outbox.push(&frame, session, now_ms, &self.view.shared.counters),
                None => waiting.push(host, (vni, header, bytes.to_vec()), &self.view.shared.counters),
            }
        }
    }

    fn send_waiting(&mut self, waiting: &mut Waiting) {
        let now_ms = now_ms();
        for (host, session) in &self.view.table.sending {
            for (vni, header, bytes) in waiting.take(*host) {
                if let Some(frame) = Frame::new(vni, Virtio::read(&header), &bytes) {
                    self.outbox.push(&frame, session, now_ms, &self.view.shared.counters);
                }
            }
        }
    }
}

fn drain(wake: &OwnedFd) {
    // What it counts does not matter, and neither does that somebody was faster.
    let _ = rustix::io::read(wake, &mut [0; 8]);
}

/// The network's address that a frame is for: a hardware address follows from it. `None` for frames to several.
fn peer_of(frame: &[u8]) -> Option<Ipv4Addr> {
    match *frame.first_chunk::<6>()? {
        [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

type Kept = (u32, [u8; VIRTIO_LEN], Vec<u8>);

/// Frames for hosts without a session. They are never sent otherwise than with one.
#[derive(Default)]
struct Waiting {
    frames: BTreeMap<Ipv4Addr, VecDeque<Kept>>,
    len: usize,
}

impl Waiting {
    /// The oldest frames of a host give way.
    fn push(&mut self, host: Ipv4Addr, frame: Kept, counters: &Counters) {
        let frames = self.frames.entry(host).or_default();
        self.len += frame.2.len();
        frames.push_back(frame);
        let mut of_host: usize = frames.iter().map(|(_, _, bytes)| bytes.len()).sum();
        while frames.len() > WAITING_FRAMES || of_host > WAITING_LEN || self.len > WAITING_LEN_OF_ALL {
            let Some((_, _, bytes)) = frames.pop_front() else { break };
            of_host -= bytes.len();
            self.len -= bytes.len();
            Counters::add(&counters.unsent, 1);
        }
    }

    fn take(&mut self, host: Ipv4Addr) -> VecDeque<Kept> {
        let frames = self.frames.remove(&host).unwrap_or_default();
        self.len -= frames.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>();
        frames
    }
}

/// Encrypted packets that are about to be sent. Those of one length for one host are sent as one message, which the
/// kernel, or the network card, cuts up.
pub(crate) struct Outbox {
    socket: Arc<UdpSocket>,
    port: u16,
    buffer: Vec<u8>,
    used: usize,
    messages: Vec<Message>,
}

impl Outbox {
    pub(crate) fn new(socket: Arc<UdpSocket>, port: u16) -> Outbox {
        let messages = Vec::with_capacity(MESSAGES);
        Outbox { socket, port, buffer: vec![0; OUTBOX_LEN], used: 0, messages }
    }

    /// Encrypts a frame, and sends what has gathered when there is no more room.
    pub(crate) fn push(&mut self, frame: &Frame<'_>, session: &Session, now_ms: u64, counters: &Counters) {
        let packets = frame.packets();
        let Some(first) = session.counters(packets as u64) else {
            // Another session is on its way.
            return Counters::add(&counters.unsent, 1);
        };
        for number in 0..packets {
            let len = DATA_HEADER_LEN + frame.text_len(number) + TAG_LEN;
            if self.used + len > self.buffer.len() {
                self.flush(counters);
            }
            let packet = &mut self.buffer[self.used..self.used + len];
            frame.write(number, &mut packet[DATA_HEADER_LEN..len - TAG_LEN]);
            session.seal(first + number as u64, packet);
            self.add(session.identity.host, len);
        }
        Counters::add(&counters.sent, packets as u64);
        session.times().note_sent(now_ms, true);
    }

    /// Sends an empty packet with a session.
    pub(crate) fn greet(&mut self, session: &Session, now_ms: u64, counters: &Counters) {
        let Some(counter) = session.counters(1) else { return };
        let len = DATA_HEADER_LEN + TAG_LEN;
        if self.used + len > self.buffer.len() {
            self.flush(counters);
        }
        session.seal(counter, &mut self.buffer[self.used..self.used + len]);
        self.add(session.identity.host, len);
        session.times().note_sent(now_ms, false);
        self.flush(counters);
    }

    /// Counts in the packet that was written last.
    fn add(&mut self, to: Ipv4Addr, len: usize) {
        let start = self.used;
        self.used += len;
        if let Some(last) = self.messages.last_mut() {
            let taken = last.range.len();
            let is_even = taken.is_multiple_of(last.segment);
            let fits = taken + len <= MOST_MESSAGE && taken / last.segment < SEGMENTS;
            if last.to == to && is_even && len <= last.segment && fits {
                last.range.end = self.used;
                return;
            }
        }
        self.messages.push(Message { to, range: start..self.used, segment: len });
    }

    /// Sends all that has gathered.
    pub(crate) fn flush(&mut self, counters: &Counters) {
        let mut messages = self.messages.as_slice();
        while let Some(first) = messages.first() {
            let sent = match sys::send(self.socket.as_fd(), self.port, messages, &self.buffer) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => {
                    self.send_singly(first, counters);
                    1
                }
            };
            messages = &messages[sent..];
        }
        self.messages.clear();
        self.used = 0;
    }

    /// Sends a message's packets one by one, as a way that is narrower than the link, or a link that can cut nothing up
    /// itself, may need. What does not go then is lost, as on any wire.
    fn send_singly(&self, message: &Message, counters: &Counters) {
        let packets = self.buffer[message.range.clone()].chunks(message.segment);
        for packet in packets {
            if self.socket.send_to(packet, (message.to, self.port)).is_err() {
                Counters::add(&counters.unsent, 1);
            }
        }
    }
}
