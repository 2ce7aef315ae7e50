//! Netlink's framing: messages and attributes out, attributes back in. Knows no subsystem's meaning.
//!
//! Written here rather than taken from a crate because the two subsystems we speak need some sixty constants, while
//! the crates that know them bring thousands, or hide the batching on which the cost of a change depends.

mod socket;

pub(crate) use socket::{Socket, Subsystem};

/// The message is a request.
const REQUEST: u16 = 0x1;
/// The kernel acknowledges the message.
pub(crate) const ACK: u16 = 0x4;
/// Answer with all objects. ROOT and MATCH in the kernel's headers.
pub(crate) const DUMP: u16 = 0x300;
/// Fail if the object exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Take the place of an object that exists.
pub(crate) const REPLACE: u16 = 0x100;
/// Create the object if it does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// Append to the end of the list.
pub(crate) const APPEND: u16 = 0x800;

/// Marks an attribute whose payload is attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are no flags.
const TYPE_MASK: u16 = 0x3fff;
const MESSAGE_HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// Messages back to back, as one `send` carries them.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Where each message begins.
    starts: Vec<usize>,
}

impl Messages {
    /// A single message; see [`Messages::begin`].
    pub(crate) fn one(kind: u16, flags: u16, header: &[u8]) -> Messages {
        let mut messages = Messages::default();
        messages.begin(kind, flags, header);
        messages
    }

    /// Starts the next message with the fixed header of its subsystem.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        // Sequence and port: the socket writes the former, the kernel knows the latter.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.close();
    }

    /// Appends an attribute to the message that was begun last.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let len = u16::try_from(ATTRIBUTE_HEADER_LEN + payload.len())
            .expect("callers split lists long before an attribute reaches 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.close();
        self
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - start)
            .expect("callers split lists long before an attribute reaches 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.close();
        self
    }

    /// Appends bytes that are no attribute, for the headers that some attributes start with.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.close();
        self
    }

    /// Appends a string with its terminating zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends a number in the machine's byte order, as the route subsystem has them.
    pub(crate) fn native(&mut self, kind: u16, number: u32) -> &mut Self {
        self.attribute(kind, &number.to_ne_bytes())
    }

    /// Appends a number in network byte order, as netfilter has them.
    pub(crate) fn network(&mut self, kind: u16, number: u32) -> &mut Self {
        self.attribute(kind, &number.to_be_bytes())
    }

    /// Asks the kernel to acknowledge the message that was begun last.
    pub(crate) fn acknowledge_last(&mut self) {
        let start = *self.starts.last().expect("a message was begun before it is to be acknowledged");
        let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) | ACK;
        self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Pads to four bytes and writes the length of the message that was begun last.
    fn close(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let start = *self.starts.last().expect("a message was begun before anything is put into it");
        let len = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Numbers the messages from `first` on and gives their bytes.
    fn sequenced(&mut self, first: u32) -> &[u8] {
        for (start, sequence) in self.starts.iter().zip(first..) {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        &self.bytes
    }

    /// The place of the last message that asks for an acknowledgement.
    fn last_acknowledged(&self) -> Option<usize> {
        self.starts
            .iter()
            .rposition(|start| u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) & ACK != 0)
    }
}

/// The attributes in `bytes`, without their flags. Ends at the first that is cut short.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let payload = bytes.get(ATTRIBUTE_HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

/// The payload of the first attribute of `kind`.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

/// A string attribute up to its zero.
pub(crate) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

/// The first bytes as an array; `None` when there are fewer.
pub(crate) fn fixed<const LEN: usize>(payload: &[u8]) -> Option<[u8; LEN]> {
    payload.first_chunk::<LEN>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut messages = Messages::one(7, ACK, &[9; 4]);
        messages.text(1, "eth0").nested(2, |inner| {
            inner.native(3, 77).attribute(4, &[1]);
        });
        let bytes = messages.sequenced(5).to_vec();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(fixed(&bytes).expect("a length")) as usize, bytes.len());
        assert_eq!(u32::from_ne_bytes(fixed(&bytes[8..]).expect("a sequence")), 5);
        let body = &bytes[MESSAGE_HEADER_LEN + 4..];
        assert_eq!(find(body, 1).map(text).as_deref(), Some("eth0"));
        let inner = find(body, 2).expect("the nested attribute");
        assert_eq!(find(inner, 3).and_then(fixed), Some(77u32.to_ne_bytes()));
        assert_eq!(find(inner, 4), Some(&[1][..]));
    }

    #[test]
    fn attributes_that_are_cut_short_end_the_list() {
        for bytes in [&[8, 0, 1][..], &[8, 0, 1, 0, 5], &[3, 0, 1, 0], &[0, 0, 0, 0, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn each_message_of_a_batch_has_its_own_length_and_number() {
        let mut messages = Messages::one(1, 0, &[]);
        messages.text(1, "abc");
        messages.begin(2, ACK, &[]);
        messages.begin(3, 0, &[]);
        assert_eq!((messages.len(), messages.last_acknowledged()), (3, Some(1)));
        let bytes = messages.sequenced(1);
        assert_eq!(bytes.len(), 24 + 16 + 16);
        assert_eq!((bytes[0], bytes[24], bytes[40]), (24, 16, 16));
        assert_eq!((bytes[8], bytes[24 + 8], bytes[40 + 8]), (1, 2, 3));
    }
}
