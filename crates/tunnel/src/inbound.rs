//! From the wire to TAP devices: receives, decrypts, and puts large frames together again.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use crate::clock::now_ms;
use crate::frame::{LABEL_LEN, Label, MOST_HEADERS, Whole, whole};
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
                let Some(text) = self.open(packet, buffer, (last, &assembly), now_ms) else { continue };
                self.place(text, buffer, &mut assembly);
            }
        }
        assembly.finish(&self.view, buffer);
        Counters::add(&self.view.shared.counters.received, count);
    }

    /// Decrypts a packet, to behind the payload that it may be the continuation of; where the frame with its label lies
    /// then, if it has one.
    fn open(
        &mut self,
        packet: Range<usize>,
        buffer: &mut [u8],
        (last, assembly): (&mut Option<Arc<Session>>, &Assembly),
        now_ms: u64,
    ) -> Option<Text> {
        let bytes = &buffer[packet.clone()];
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
        let sealed = packet.start + DATA_HEADER_LEN;
        let start = assembly.end_before(header.receiver, header.counter).unwrap_or(sealed);
        let room = &mut buffer[start..packet.end];
        let len = match session.open(header.counter, room, sealed - start) {
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
        (len > 0).then_some(Text {
            session: header.receiver,
            counter: header.counter,
            range: start..start + len,
        })
    }

    /// Puts a frame to those of the same large one, or on its way.
    fn place(&self, text: Text, buffer: &[u8], assembly: &mut Assembly) {
        let Some((label, payload)) = Label::read(&buffer[text.range.clone()]) else { return };
        let payload = text.range.start..text.range.start + payload;
        if label.is_segment() {
            let headers = &buffer[payload.end..text.range.end - LABEL_LEN];
            if !assembly.take(label, &text, headers, payload.clone()) {
                assembly.finish(&self.view, buffer);
                assembly.begin(label, &text, headers, payload);
            }
            return;
        }
        assembly.finish(&self.view, buffer);
        let header = whole(label).bytes();
        deliver(&self.view, label.vni, &[IoSlice::new(&header), IoSlice::new(&buffer[payload])]);
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
    /// Payload, headers and label, in the buffer.
    range: Range<usize>,
}

/// The large frame that segments are being gathered of.
struct Assembly {
    whole: Option<Whole>,
    session: u32,
    next_counter: u64,
    headers: [u8; MOST_HEADERS],
    /// Where the payloads lie, side by side.
    payload: Range<usize>,
}

impl Default for Assembly {
    fn default() -> Assembly {
        Assembly { whole: None, session: 0, next_counter: 0, headers: [0; MOST_HEADERS], payload: 0..0 }
    }
}

impl Assembly {
    /// Where the payload of a packet would continue what is being gathered, if it may.
    fn end_before(&self, session: u32, counter: u64) -> Option<usize> {
        let follows = self.whole.is_some() && (session, counter) == (self.session, self.next_counter);
        follows.then_some(self.payload.end)
    }

    fn begin(&mut self, label: Label, text: &Text, headers: &[u8], payload: Range<usize>) {
        self.whole = Whole::new(label, headers, payload.len());
        self.headers[..headers.len()].copy_from_slice(headers);
        (self.session, self.next_counter) = (text.session, text.counter.wrapping_add(1));
        self.payload = payload;
    }

    /// Whether the segment belongs to what is being gathered; then it is gathered.
    fn take(&mut self, label: Label, text: &Text, headers: &[u8], payload: Range<usize>) -> bool {
        let continues = self.end_before(text.session, text.counter) == Some(payload.start);
        let Some(whole) = self.whole.as_mut().filter(|whole| continues && label.continues(whole.label))
        else {
            return false;
        };
        if !whole.take(headers, payload.len()) {
            return false;
        }
        self.next_counter += 1;
        self.payload.end = payload.end;
        true
    }

    /// Puts what was gathered on its way.
    fn finish(&mut self, view: &View, buffer: &[u8]) {
        if let Some(whole) = self.whole.take() {
            let headers = &mut self.headers[..whole.header_len];
            let header = whole.finish(headers).bytes();
            let payload = &buffer[self.payload.clone()];
            let slices = [IoSlice::new(&header), IoSlice::new(headers), IoSlice::new(payload)];
            deliver(view, whole.label.vni, &slices);
        }
    }
}

/// Gives a frame to its network's device. What that refuses is lost, as on any wire.
fn deliver(view: &View, vni: u32, slices: &[IoSlice<'_>]) {
    if let Some(network) = view.table.networks.get(&vni) {
        let _ = rustix::io::writev(&*network.tap, slices);
    }
}
