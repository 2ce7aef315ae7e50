//! What a TAP device gives and takes: a virtio header and a frame, which may be a large one that stands for many.
//!
//! A large frame goes to the other node as segments, each a packet of its own, and is put together again there: only as
//! much as came, and only from segments that follow each other, so a lost packet costs one segment. Checksums are
//! neither computed nor verified on the way: what is encrypted is authentic.

/// virtio_net_hdr, of which ours has no further fields.
pub(crate) const VIRTIO_LEN: usize = 10;
/// What is encrypted in front of each frame.
pub(crate) const PREFIX_LEN: usize = 8;
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
pub(crate) struct Prefix {
    /// The network, 24 bits.
    pub(crate) vni: u32,
    flags: u8,
    gso_type: u8,
    checksum_start: u16,
    checksum_offset: u8,
}

impl Prefix {
    fn write(self, out: &mut [u8]) {
        out[..3].copy_from_slice(&self.vni.to_be_bytes()[1..]);
        out[3] = self.flags;
        out[4..6].copy_from_slice(&self.checksum_start.to_be_bytes());
        (out[6], out[7]) = (self.checksum_offset, self.gso_type);
    }

    /// `None` if there is not even a frame's header after it.
    pub(crate) fn read(text: &[u8]) -> Option<Prefix> {
        if text.len() < PREFIX_LEN + ETHERNET_LEN {
            return None;
        }
        Some(Prefix {
            vni: u32::from_be_bytes([0, text[0], text[1], text[2]]),
            flags: text[3],
            checksum_start: u16::from_be_bytes([text[4], text[5]]),
            checksum_offset: text[6],
            gso_type: text[7],
        })
    }

    pub(crate) fn is_segment(self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// Whether it is the next segment of the frame that one with the prefix `first` is the first of.
    pub(crate) fn continues(self, first: Prefix) -> bool {
        self.flags & CONTINUES != 0 && Prefix { flags: first.flags, ..self } == first
    }
}

/// A frame from a TAP device, and how it goes on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    bytes: &'a [u8],
    prefix: Prefix,
    /// Headers that each segment repeats; all, if there is one packet.
    header_len: usize,
    segment_len: usize,
}

impl<'a> Frame<'a> {
    /// `None` for what the kernel would not give us.
    pub(crate) fn new(vni: u32, virtio: Virtio, bytes: &'a [u8]) -> Option<Frame<'a>> {
        if bytes.len() < ETHERNET_LEN || bytes.len() > MOST_FRAME {
            return None;
        }
        let prefix = Prefix {
            vni,
            flags: virtio.flags & NEEDS_CHECKSUM,
            gso_type: virtio.gso_type,
            checksum_start: virtio.checksum_start,
            checksum_offset: u8::try_from(virtio.checksum_offset).ok()?,
        };
        let (header_len, segment_len) = match virtio.gso_type {
            GSO_NONE => (bytes.len(), 0),
            _ => (headers_len(prefix, bytes)?, usize::from(virtio.gso_size)),
        };
        (header_len == bytes.len() || segment_len > 0).then_some(Frame {
            bytes,
            prefix,
            header_len,
            segment_len,
        })
    }

    /// How many packets it takes.
    pub(crate) fn packets(&self) -> usize {
        match self.bytes.len() - self.header_len {
            0 => 1,
            payload => payload.div_ceil(self.segment_len),
        }
    }

    /// What the packet with this number has to carry, in bytes.
    pub(crate) fn text_len(&self, number: usize) -> usize {
        let payload = (self.bytes.len() - self.header_len - number * self.segment_len).min(self.segment_len);
        PREFIX_LEN + self.header_len + payload
    }

    /// Writes that. `out` has [`Frame::text_len`] bytes.
    pub(crate) fn write(&self, number: usize, out: &mut [u8]) {
        let (prefix, text) = out.split_at_mut(PREFIX_LEN);
        let flags = if number > 0 { self.prefix.flags | CONTINUES } else { self.prefix.flags };
        Prefix { flags, ..self.prefix }.write(prefix);
        let (headers, payload) = text.split_at_mut(self.header_len);
        headers.copy_from_slice(&self.bytes[..self.header_len]);
        let start = self.header_len + number * self.segment_len;
        payload.copy_from_slice(&self.bytes[start..start + payload.len()]);
        if self.prefix.is_segment() {
            self.mark_segment(number, headers);
        }
    }

    /// Makes the headers those of a segment. Lengths and checksums are the receiver's, who knows what came.
    fn mark_segment(&self, number: usize, headers: &mut [u8]) {
        if is_ipv4(headers) {
            let id = u16::from_be_bytes([headers[18], headers[19]]).wrapping_add(number as u16);
            headers[18..20].copy_from_slice(&id.to_be_bytes());
        }
        if is_tcp(self.prefix.gso_type) {
            let tcp = &mut headers[usize::from(self.prefix.checksum_start)..];
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
pub(crate) fn headers_len(prefix: Prefix, frame: &[u8]) -> Option<usize> {
    if prefix.flags & NEEDS_CHECKSUM == 0 {
        return None;
    }
    let start = usize::from(prefix.checksum_start);
    let ip_len = if is_ipv4(frame) { 20 } else { 40 };
    if start < ETHERNET_LEN + ip_len {
        return None;
    }
    let (least, place) = match prefix.gso_type & !GSO_ECN {
        GSO_TCP4 | GSO_TCP6 => (TCP_HEADER_LEN, 16),
        GSO_UDP => (UDP_HEADER_LEN, 6),
        _ => return None,
    };
    if prefix.checksum_offset != place || frame.len() < start + least {
        return None;
    }
    let len = match least {
        TCP_HEADER_LEN => usize::from(frame[start + 12] >> 4) * 4,
        _ => UDP_HEADER_LEN,
    };
    (len >= least && frame.len() >= start + len).then_some(start + len)
}

/// The virtio header for a frame that came in one packet.
pub(crate) fn whole(prefix: Prefix) -> Virtio {
    if prefix.flags & NEEDS_CHECKSUM == 0 {
        return Virtio::default();
    }
    Virtio {
        flags: NEEDS_CHECKSUM,
        checksum_start: prefix.checksum_start,
        checksum_offset: u16::from(prefix.checksum_offset),
        ..Virtio::default()
    }
}

/// The segments of a large frame, as much as came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    pub(crate) prefix: Prefix,
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
    pub(crate) fn new(prefix: Prefix, frame: &[u8]) -> Option<Whole> {
        let header_len = headers_len(prefix, frame)?;
        let payload_len = frame.len() - header_len;
        let last_flags = tcp_flags(prefix, frame);
        Some(Whole { prefix, header_len, segment_len: payload_len, payload_len, last_flags })
    }

    /// Whether `frame`, the next segment, still fits; if so it is counted in.
    pub(crate) fn take(&mut self, frame: &[u8]) -> bool {
        let payload = frame.len().saturating_sub(self.header_len);
        let is_full = self.payload_len.is_multiple_of(self.segment_len.max(1));
        let fits = self.header_len + self.payload_len + payload <= MOST_FRAME;
        if payload == 0 || payload > self.segment_len || !is_full || !fits {
            return false;
        }
        self.payload_len += payload;
        self.last_flags = tcp_flags(self.prefix, frame);
        true
    }

    /// Makes the first segment's headers those of all, and returns the virtio header for them.
    pub(crate) fn finish(&self, headers: &mut [u8]) -> Virtio {
        let start = usize::from(self.prefix.checksum_start);
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
        let protocol = match is_tcp(self.prefix.gso_type) {
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
        let place = usize::from(self.prefix.checksum_offset);
        transport[place..place + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut virtio = whole(self.prefix);
        if self.payload_len > self.segment_len {
            virtio.gso_type = self.prefix.gso_type;
            virtio.gso_size = self.segment_len as u16;
            virtio.header_len = self.header_len as u16;
        }
        virtio
    }
}

fn tcp_flags(prefix: Prefix, frame: &[u8]) -> u8 {
    let place = usize::from(prefix.checksum_start) + 13;
    frame.get(place).copied().filter(|_| is_tcp(prefix.gso_type)).unwrap_or(0)
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
