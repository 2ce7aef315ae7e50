//! From the wire to TAP devices: receives, decrypts, and puts large frames together again.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use crate::clock::now_ms;
use crate::frame::{PREFIX_LEN, Prefix, Whole, whole};
use crate::process::Event;
use crate::session::{Refused, Session};
use crate::sys::{self, RECEIVED, ROOM, Received};
use crate::table::{Counters, View};
use crate::wire::{DATA_HEADER_LEN, DataHeader};

/// The longest packet that is part of a handshake, in bytes.
const LONGEST_HANDSHAKE: usize = 256;

/// The thread's things.
pub(crate) struct Inbound {
    pub(crate) view: View,
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) end: Arc<AtomicBool>,
    /// Has room for few: floods of handshakes are lost here.
    pub(crate) events: SyncSender<Event>,
}

impl Inbound {
    /// Carries packets until told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; RECEIVED * ROOM];
        let mut received = Vec::with_capacity(RECEIVED);
        let mut last = None;
        while !self.end.load(Ordering::Acquire) {
            match sys::receive(self.socket.as_fd(), &mut buffer, &mut received) {
                // Nothing came for a while, or some host does not want what it was sent.
                Err(error) if is_passing(&error) => continue,
                other => other?,
            }
            if self.view.refresh() {
                last = None;
            }
            self.take(&received, &mut buffer, &mut last);
        }
        Ok(())
    }

    /// Takes all that came at once. Large frames begin and end here: what follows later is a frame of its own.
    fn take(&mut self, received: &[Received], buffer: &mut [u8], last: &mut Option<Arc<Session>>) {
        let now_ms = now_ms();
        let mut assembly = Assembly::default();
        let mut count = 0;
        for Received { range, segment } in received {
            let mut start = range.start;
            while start < range.end {
                let packet = start..range.end.min(start + segment);
                start = packet.end;
                count += 1;
                let Some(text) = self.open(packet, buffer, last, now_ms) else { continue };
                self.place(text, buffer, &mut assembly);
            }
        }
        assembly.finish(&self.view, buffer);
        Counters::add(&self.view.shared.counters.received, count);
    }

    /// Decrypts a packet; where the frame with its prefix lies, if it has one.
    fn open(
        &mut self,
        packet: Range<usize>,
        buffer: &mut [u8],
        last: &mut Option<Arc<Session>>,
        now_ms: u64,
    ) -> Option<Text> {
        let bytes = &mut buffer[packet.clone()];
        let counters = &self.view.shared.counters;
        let Some(header) = DataHeader::read(bytes) else {
            if bytes.len() <= LONGEST_HANDSHAKE {
                // Lost where there are too many, as on the wire.
                let _ = self.events.try_send(Event::Handshake(bytes.to_vec()));
            } else {
                Counters::add(&counters.unknown, 1);
            }
            return None;
        };
        if last.as_ref().is_none_or(|session| session.identity.ours != header.receiver) {
            *last = self.view.table.receiving.get(&header.receiver).cloned();
        }
        let Some(session) = last.as_ref() else {
            Counters::add(&counters.unknown, 1);
            return None;
        };
        let len = match session.open(header.counter, &mut bytes[DATA_HEADER_LEN..]) {
            Ok(len) => len,
            Err(refused) => {
                let counter = match refused {
                    Refused::Replayed => &counters.replayed,
                    Refused::Forged => &counters.forged,
                };
                Counters::add(counter, 1);
                return None;
            }
        };
        session.times().note_received(now_ms, len > 0);
        if session.confirm() {
            // Should it be lost here, the next handshake makes up for it: this session is received from all the same.
            let _ = self.events.try_send(Event::Confirmed(header.receiver));
        }
        let start = packet.start + DATA_HEADER_LEN;
        (len > 0).then_some(Text {
            session: header.receiver,
            counter: header.counter,
            range: start..start + len,
        })
    }

    /// Puts a frame to those of the same large one, or on its way.
    fn place(&self, text: Text, buffer: &mut [u8], assembly: &mut Assembly) {
        let bytes = &buffer[text.range.clone()];
        let Some(prefix) = Prefix::read(bytes) else { return };
        let frame = text.range.start + PREFIX_LEN..text.range.end;
        if prefix.is_segment() {
            if assembly.take(prefix, &text, frame.clone(), buffer) {
                return;
            }
            assembly.finish(&self.view, buffer);
            assembly.begin(prefix, &text, frame, buffer);
            return;
        }
        assembly.finish(&self.view, buffer);
        let header = whole(prefix).bytes();
        deliver(&self.view, prefix.vni, &[IoSlice::new(&header), IoSlice::new(&buffer[frame])]);
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::EINTR
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EMSGSIZE
        )
    )
}

/// What a packet carried.
struct Text {
    session: u32,
    counter: u64,
    /// Prefix and frame, in the buffer.
    range: Range<usize>,
}

/// The large frame that segments are being gathered of.
#[derive(Default)]
struct Assembly {
    whole: Option<Whole>,
    session: u32,
    next_counter: u64,
    /// The first segment with its headers, then the payloads of the others.
    parts: Vec<Range<usize>>,
}

impl Assembly {
    fn begin(&mut self, prefix: Prefix, text: &Text, frame: Range<usize>, buffer: &[u8]) {
        self.whole = Whole::new(prefix, &buffer[frame.clone()]);
        (self.session, self.next_counter) = (text.session, text.counter + 1);
        self.parts.push(frame);
    }

    /// Whether the segment belongs to what is being gathered; then it is gathered.
    fn take(&mut self, prefix: Prefix, text: &Text, frame: Range<usize>, buffer: &[u8]) -> bool {
        let Some(whole) = &mut self.whole else { return false };
        let follows = (text.session, text.counter) == (self.session, self.next_counter);
        if !follows || !prefix.continues(whole.prefix) || !whole.take(&buffer[frame.clone()]) {
            return false;
        }
        self.next_counter += 1;
        self.parts.push(frame.start + whole.header_len..frame.end);
        true
    }

    /// Puts what was gathered on its way.
    fn finish(&mut self, view: &View, buffer: &mut [u8]) {
        if let (Some(whole), Some(first)) = (self.whole.take(), self.parts.first()) {
            let header = whole.finish(&mut buffer[first.clone()]).bytes();
            let mut slices = Vec::with_capacity(self.parts.len() + 1);
            slices.push(IoSlice::new(&header));
            slices.extend(self.parts.iter().map(|part| IoSlice::new(&buffer[part.clone()])));
            deliver(view, whole.prefix.vni, &slices);
        }
        self.parts.clear();
    }
}

/// Gives a frame to its network's device. What that refuses is lost, as on any wire.
fn deliver(view: &View, vni: u32, slices: &[IoSlice<'_>]) {
    if let Some(network) = view.table.networks.get(&vni) {
        let _ = rustix::io::writev(&*network.tap, slices);
    }
}
