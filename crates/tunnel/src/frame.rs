//! What a TAP device gives and takes: a virtio header and a frame, which may be a large one that stands for many.
//!
//! A large frame goes to the other node as segments, each a packet of its own, and is put together again there: only as
//! much as came, and only from segments that follow each other, so a lost packet costs one segment. Checksums are
//! neither computed nor verified on the way: what is encrypted is authentic.
//!
//! What is encrypted is the payload, then the headers that each segment repeats, then what says what all that is. So
//! payloads that follow each other are decrypted to where they lie side by side, and nothing is moved.

/// virtio_net_hdr, of which ours has no further fields.
pub(crate) const VIRTIO_LEN: usize = 10;
/// What is encrypted behind each frame.
pub(crate) const LABEL_LEN: usize = 8;
/// The most that the headers of a segment can have.
pub(crate) const MOST_HEADERS: usize = u8::MAX as usize;
pub(crate) const ETHERNET_LEN: usize = 14;
/// The most that a frame may have: an IP packet cannot say more.
pub(crate) const MOST_FRAME: usize = ETHERNET_LEN + 65_535;

/// Of virtio's flags: the checksum is to be completed from `checksum_start` on.
const NEEDS_CHECKSUM: u8 = 1;
/// Of our flags: the segment's payload follows directly on that of the packet before.
const CONTINUES: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Beside a TCP kind: the segments say that the way was congested.
const GSO_ECN: u8 = 0x80;

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;
const TCP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;

/// virtio_net_hdr, in this machine's byte order, which TAP devices have it in unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Virtio {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl Virtio {
    pub(crate) fn read(bytes: &[u8; VIRTIO_LEN]) -> Virtio {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Virtio {
            flags: bytes[0],
            gso_type: bytes[1],
            header_len: number(2),
            gso_size: number(4),
            checksum_start: number(6),
            checksum_offset: number(8),
        }
    }

    pub(crate) fn bytes(self) -> [u8; VIRTIO_LEN] {
        let mut bytes = [0; VIRTIO_LEN];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let numbers = [self.header_len, self.gso_size, self.checksum_start, self.checksum_offset];
        for (place, number) in bytes[2..].chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}

/// What the other node must know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The network, 24 bits.
    pub(crate) vni: u32,
    flags: u8,
    checksum_start: u8,
    checksum_offset: u8,
    gso_type: u8,
    /// Length of what stands between the payload and this: 0 for a frame that is no segment, which is all payload.
    header_len: u8,
}

impl Label {
    fn write(self, out: &mut [u8]) {
        out[..3].copy_from_slice(&self.vni.to_be_bytes()[1..]);
        out[3] = self.flags;
        (out[4], out[5]) = (self.checksum_start, self.checksum_offset);
        (out[6], out[7]) = (self.gso_type, self.header_len);
    }

    /// From the end of what was encrypted, with the length of the payload. `None` if there is not even a frame's header.
    pub(crate) fn read(text: &[u8]) -> Option<(Label, usize)> {
        let (frame, label) = text.split_last_chunk::<LABEL_LEN>()?;
        let label = Label {
            vni: u32::from_be_bytes([0, label[0], label[1], label[2]]),
            flags: label[3],
            checksum_start: label[4],
            checksum_offset: label[5],
            gso_type: label[6],
            header_len: label[7],
        };
        let payload = frame.len().checked_sub(usize::from(label.header_len))?;
        let is_whole = if label.is_segment() { label.header_len > 0 } else { label.header_len == 0 };
        (is_whole && frame.len() >= ETHERNET_LEN).then_some((label, payload))
    }

    pub(crate) fn is_segment(self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// Whether it is the next segment of the frame that one with the label `first` is the first of.
    pub(crate) fn continues(self, first: Label) -> bool {
        self.flags & CONTINUES != 0 && Label { flags: first.flags, ..self } == first
    }
}

/// A frame from a TAP device, and how it goes on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    bytes: &'a [u8],
    label: Label,
    /// Headers that each segment repeats.
    header_len: usize,
    segment_len: usize,
}

impl<'a> Frame<'a> {
    /// `None` for what the kernel would not give us.
    pub(crate) fn new(vni: u32, virtio: Virtio, bytes: &'a [u8]) -> Option<Frame<'a>> {
        if bytes.len() < ETHERNET_LEN || bytes.len() > MOST_FRAME {
            return None;
        }
        let mut label = Label {
            vni,
            flags: virtio.flags & NEEDS_CHECKSUM,
            checksum_start: u8::try_from(virtio.checksum_start).ok()?,
            checksum_offset: u8::try_from(virtio.checksum_offset).ok()?,
            gso_type: virtio.gso_type,
            header_len: 0,
        };
        let (header_len, segment_len) = match virtio.gso_type {
            GSO_NONE => (0, bytes.len()),
            _ => (headers_len(label, bytes)?, usize::from(virtio.gso_size)),
        };
        label.header_len = u8::try_from(header_len).ok()?;
        (segment_len > 0).then_some(Frame { bytes, label, header_len, segment_len })
    }

    /// How many packets it takes.
    pub(crate) fn packets(&self) -> usize {
        (self.bytes.len() - self.header_len).div_ceil(self.segment_len).max(1)
    }

    fn payload(&self, number: usize) -> &'a [u8] {
        let start = self.header_len + number * self.segment_len;
        &self.bytes[start..self.bytes.len().min(start + self.segment_len)]
    }

    /// What the packet with this number has to carry, in bytes.
    pub(crate) fn text_len(&self, number: usize) -> usize {
        self.payload(number).len() + self.header_len + LABEL_LEN
    }

    /// Writes that. `out` has [`Frame::text_len`] bytes.
    pub(crate) fn write(&self, number: usize, out: &mut [u8]) {
        let payload = self.payload(number);
        let (first, rest) = out.split_at_mut(payload.len());
        first.copy_from_slice(payload);
        let (headers, label) = rest.split_at_mut(self.header_len);
        headers.copy_from_slice(&self.bytes[..self.header_len]);
        if self.label.is_segment() {
            self.mark_segment(number, headers);
        }
        let flags = if number > 0 { self.label.flags | CONTINUES } else { self.label.flags };
        Label { flags, ..self.label }.write(label);
    }

    /// Makes the headers those of a segment. Lengths and checksums are the receiver's, who knows what came.
    fn mark_segment(&self, number: usize, headers: &mut [u8]) {
        if is_ipv4(headers) {
            let id = u16::from_be_bytes([headers[18], headers[19]]).wrapping_add(number as u16);
            headers[18..20].copy_from_slice(&id.to_be_bytes());
        }
        if is_tcp(self.label.gso_type) {
            let tcp = &mut headers[usize::from(self.label.checksum_start)..];
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            let sequence = sequence.wrapping_add((number * self.segment_len) as u32);
            tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
            if number + 1 < self.packets() {
                tcp[13] &= !TCP_FIN_PSH;
            }
            if number > 0 {
                tcp[13] &= !TCP_CWR;
            }
        }
    }
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00]
}

fn is_tcp(gso_type: u8) -> bool {
    matches!(gso_type & !GSO_ECN, GSO_TCP4 | GSO_TCP6)
}

/// The length of all headers of a large frame; `None` for one that is not as virtio has it.
pub(crate) fn headers_len(label: Label, frame: &[u8]) -> Option<usize> {
    if label.flags & NEEDS_CHECKSUM == 0 {
        return None;
    }
    let start = usize::from(label.checksum_start);
    let ip_len = if is_ipv4(frame) { 20 } else { 40 };
    if start < ETHERNET_LEN + ip_len {
        return None;
    }
    let (least, place) = match label.gso_type & !GSO_ECN {
        GSO_TCP4 | GSO_TCP6 => (TCP_HEADER_LEN, 16),
        GSO_UDP => (UDP_HEADER_LEN, 6),
        _ => return None,
    };
    if label.checksum_offset != place || frame.len() < start + least {
        return None;
    }
    let len = match least {
        TCP_HEADER_LEN => usize::from(frame[start + 12] >> 4) * 4,
        _ => UDP_HEADER_LEN,
    };
    (len >= least && frame.len() >= start + len).then_some(start + len)
}

/// The virtio header for a frame that came in one packet.
pub(crate) fn whole(label: Label) -> Virtio {
    if label.flags & NEEDS_CHECKSUM == 0 {
        return Virtio::default();
    }
    Virtio {
        flags: NEEDS_CHECKSUM,
        checksum_start: u16::from(label.checksum_start),
        checksum_offset: u16::from(label.checksum_offset),
        ..Virtio::default()
    }
}

/// The segments of a large frame, as much as came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    pub(crate) label: Label,
    pub(crate) header_len: usize,
    /// Payload of the first segment in bytes; that of all but the last.
    pub(crate) segment_len: usize,
    /// Payload of all in bytes.
    pub(crate) payload_len: usize,
    /// TCP's flags of the last segment.
    pub(crate) last_flags: u8,
}

impl Whole {
    /// Begins with a first segment; `None` for one that is not as a node of ours would send it.
    pub(crate) fn new(label: Label, headers: &[u8], payload_len: usize) -> Option<Whole> {
        if headers.len() < ETHERNET_LEN || headers_len(label, headers)? != headers.len() {
            return None;
        }
        let last_flags = tcp_flags(label, headers);
        let header_len = headers.len();
        Some(Whole { label, header_len, segment_len: payload_len, payload_len, last_flags })
    }

    /// Whether the next segment, with these headers, still fits; if so it is counted in.
    pub(crate) fn take(&mut self, headers: &[u8], payload: usize) -> bool {
        let is_full = self.payload_len.is_multiple_of(self.segment_len.max(1));
        let fits = self.header_len + self.payload_len + payload <= MOST_FRAME;
        if payload == 0 || payload > self.segment_len || !is_full || !fits {
            return false;
        }
        self.payload_len += payload;
        self.last_flags = tcp_flags(self.label, headers);
        true
    }

    /// Makes the first segment's headers those of all, and returns the virtio header for them.
    pub(crate) fn finish(&self, headers: &mut [u8]) -> Virtio {
        let start = usize::from(self.label.checksum_start);
        let len = self.header_len + self.payload_len;
        let pseudo = if is_ipv4(headers) {
            let ip_len = (len - ETHERNET_LEN) as u16;
            headers[16..18].copy_from_slice(&ip_len.to_be_bytes());
            headers[24..26].fill(0);
            let sum = !fold(sum(&headers[ETHERNET_LEN..start]));
            headers[24..26].copy_from_slice(&sum.to_be_bytes());
            sum_addresses(&headers[26..34])
        } else {
            let ip_len = (len - ETHERNET_LEN - 40) as u16;
            headers[18..20].copy_from_slice(&ip_len.to_be_bytes());
            sum_addresses(&headers[22..54])
        };
        let transport = &mut headers[start..];
        let protocol = match is_tcp(self.label.gso_type) {
            true => {
                transport[13] |= self.last_flags & TCP_FIN_PSH;
                6
            }
            false => {
                transport[4..6].copy_from_slice(&((len - start) as u16).to_be_bytes());
                17
            }
        };
        // What the kernel completes with the sum of the rest.
        let pseudo = fold(pseudo + protocol + (len - start) as u64);
        let place = usize::from(self.label.checksum_offset);
        transport[place..place + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut virtio = whole(self.label);
        if self.payload_len > self.segment_len {
            virtio.gso_type = self.label.gso_type;
            virtio.gso_size = self.segment_len as u16;
            virtio.header_len = self.header_len as u16;
        }
        virtio
    }
}

fn tcp_flags(label: Label, frame: &[u8]) -> u8 {
    let place = usize::from(label.checksum_start) + 13;
    frame.get(place).copied().filter(|_| is_tcp(label.gso_type)).unwrap_or(0)
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    words.map(u64::from).sum()
}

fn sum_addresses(addresses: &[u8]) -> u64 {
    sum(addresses)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
