//! The packets that go between nodes. The first four bytes say what a packet is, as in WireGuard.

/// Begins a handshake: [`KIND_LEN`], the first Noise message, a [`MAC_LEN`] proof that its sender has a network key.
pub(crate) const INITIATION: [u8; 4] = [1, 0, 0, 0];
/// Answers it: kind, the session's name at who began, the second Noise message, a proof.
pub(crate) const RESPONSE: [u8; 4] = [2, 0, 0, 0];
/// Carries a frame, or nothing: kind, the session's name at who receives, a counter, and what is encrypted.
pub(crate) const DATA: [u8; 4] = [4, 0, 0, 0];

pub(crate) const KIND_LEN: usize = 4;
pub(crate) const NAME_LEN: usize = 4;
pub(crate) const MAC_LEN: usize = 16;
pub(crate) const TAG_LEN: usize = 16;
pub(crate) const DATA_HEADER_LEN: usize = KIND_LEN + NAME_LEN + 8;

/// What stands in clear before what is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataHeader {
    /// The receiver's name of the session.
    pub(crate) receiver: u32,
    pub(crate) counter: u64,
}

impl DataHeader {
    pub(crate) fn write(self, out: &mut [u8]) {
        out[..4].copy_from_slice(&DATA);
        out[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        out[8..16].copy_from_slice(&self.counter.to_le_bytes());
    }

    /// `None` for anything but a data packet that can be whole.
    pub(crate) fn read(packet: &[u8]) -> Option<DataHeader> {
        if packet.len() < DATA_HEADER_LEN + TAG_LEN || !packet.starts_with(&DATA) {
            return None;
        }
        let receiver = u32::from_le_bytes(packet[4..8].try_into().ok()?);
        let counter = u64::from_le_bytes(packet[8..16].try_into().ok()?);
        Some(DataHeader { receiver, counter })
    }
}
