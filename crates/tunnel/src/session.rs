//! What two nodes share after a handshake: a key for each way, counters, and what has been received.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::window::Window;
use crate::wire::{DATA_HEADER_LEN, DataHeader, TAG_LEN};

/// Packets after which a session is to be replaced. RFC 9001, 6.6, bounds what one AES-GCM key may encrypt by blocks:
/// 2^35 of them, which is 2^28 packets of 2 KiB, and 2^26 of 8 KiB.
pub(crate) const REKEY_AFTER_PACKETS: u64 = 1 << 25;
/// Packets after which a session sends no more.
const MOST_PACKETS: u64 = 1 << 26;

/// Both keys of a session. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) send: [u8; 16],
    pub(crate) receive: [u8; 16],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    /// From the two keys that a Noise handshake ends with: the one of who began it, and the other's.
    pub(crate) fn derive(split: ([u8; 32], [u8; 32]), began: bool) -> Keys {
        let narrow = |key: &[u8; 32]| {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"skep tunnel AES-128-GCM");
            let mut narrow = [0; 16];
            narrow.copy_from_slice(&tag.as_ref()[..16]);
            narrow
        };
        let (first, second) = (narrow(&split.0), narrow(&split.1));
        match began {
            true => Keys { send: first, receive: second },
            false => Keys { send: second, receive: first },
        }
    }
}

/// What a session is, besides its keys and what has happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// How the other node names it in packets to us.
    pub(crate) ours: u32,
    /// How we name it in packets to the other node.
    pub(crate) theirs: u32,
    /// The other node.
    pub(crate) host: Ipv4Addr,
    /// Whether we began the handshake.
    pub(crate) began: bool,
    /// When it came to be, in milliseconds of the clock of this machine that does not jump.
    pub(crate) made_ms: u64,
}

/// A session, shared by all that send and receive.
pub(crate) struct Session {
    pub(crate) identity: Identity,
    keys: Keys,
    sending: LessSafeKey,
    receiving: LessSafeKey,
    next: AtomicU64,
    window: Mutex<Window>,
    times: Arc<Times>,
    /// Whether the other node has shown that it has the keys.
    confirmed: AtomicBool,
}

/// A session's data, as one process hands it to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Frozen {
    pub(crate) identity: Identity,
    keys: Keys,
    next: u64,
    received: u64,
    confirmed: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was taken before, or is too old to know.
    Replayed,
    /// It is not what the other node sent.
    Forged,
}

impl Session {
    pub(crate) fn new(identity: Identity, keys: Keys, times: Arc<Times>) -> Session {
        // Who began knows by the answer that the other node has the keys.
        let confirmed = identity.began;
        let frozen = Frozen { identity, keys, next: 0, received: 0, confirmed };
        Session::thawed(frozen, times)
    }

    /// A session of another process that has ended. Packets that were on their way to it in the wrong order are lost.
    pub(crate) fn thawed(frozen: Frozen, times: Arc<Times>) -> Session {
        let key = |key: &[u8; 16]| {
            LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("the key has the cipher's length"))
        };
        Session {
            identity: frozen.identity,
            sending: key(&frozen.keys.send),
            receiving: key(&frozen.keys.receive),
            keys: frozen.keys,
            next: AtomicU64::new(frozen.next),
            window: Mutex::new(Window::beginning_at(frozen.received)),
            times,
            confirmed: AtomicBool::new(frozen.confirmed),
        }
    }

    /// What the next process needs. Nothing may be sent by this one after that.
    pub(crate) fn freeze(&self) -> Frozen {
        Frozen {
            identity: self.identity,
            keys: self.keys.clone(),
            next: self.next.load(Ordering::SeqCst),
            received: self.window.lock().unwrap_or_else(PoisonError::into_inner).next(),
            confirmed: self.is_confirmed(),
        }
    }

    /// Takes `count` counters, and returns the first; `None` if the keys have been used enough.
    pub(crate) fn counters(&self, count: u64) -> Option<u64> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first < MOST_PACKETS).then_some(first)
    }

    /// How many counters have been taken.
    pub(crate) fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Makes a packet of `packet`, which has room for the header, then what is to be encrypted, then room for the tag.
    /// `counter` is one of [`Session::counters`], used only here.
    pub(crate) fn seal(&self, counter: u64, packet: &mut [u8]) {
        let (header, rest) = packet.split_at_mut(DATA_HEADER_LEN);
        let (text, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        DataHeader { receiver: self.identity.theirs, counter }.write(header);
        let sealed = self
            .sending
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), text)
            .expect("a packet is far shorter than what the cipher can encrypt");
        tag.copy_from_slice(sealed.as_ref());
    }

    /// Decrypts what lies at `from` in `room` up to its end, to its beginning, and returns how much it is.
    pub(crate) fn open(&self, counter: u64, room: &mut [u8], from: usize) -> Result<usize, Refused> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if !window.admits(counter) {
            return Err(Refused::Replayed);
        }
        let text = self.receiving.open_within(nonce(counter), Aad::empty(), room, from..);
        let len = text.map_err(|_| Refused::Forged)?.len();
        window.take(counter);
        Ok(len)
    }

    /// Notes that the other node has the keys; whether that is new.
    pub(crate) fn confirm(&self) -> bool {
        !self.confirmed.load(Ordering::Relaxed) && !self.confirmed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// When what was sent to the other node and received from it last, with any session.
    pub(crate) fn times(&self) -> &Times {
        &self.times
    }
}

/// When something was sent to a host and received from it last, in milliseconds, with any of its sessions: both ends may
/// use different ones. A frame that was sent is to be heard of soon, be it by a
/// packet with nothing in it; such a packet is not.
#[derive(Debug, Default)]
pub(crate) struct Times {
    sent_frame: AtomicU64,
    sent_any: AtomicU64,
    received_frame: AtomicU64,
    received_any: AtomicU64,
}

/// After so long without a packet from a node that a frame was sent to, it is taken to have lost the session.
const SILENCE_MS: u64 = 15_000;
/// After so long without anything to send, a node is told that its frames have come.
const ANSWER_MS: u64 = 10_000;

impl Times {
    pub(crate) fn note_sent(&self, now_ms: u64, is_frame: bool) {
        self.sent_any.store(now_ms, Ordering::Relaxed);
        if is_frame {
            // The first one after an answer: that none has come since then is what counts.
            let sent = self.sent_frame.load(Ordering::Relaxed);
            if sent <= self.received_any.load(Ordering::Relaxed) {
                self.sent_frame.store(now_ms, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn note_received(&self, now_ms: u64, is_frame: bool) {
        self.received_any.store(now_ms, Ordering::Relaxed);
        if is_frame {
            // As above, the first one.
            let received = self.received_frame.load(Ordering::Relaxed);
            if received <= self.sent_any.load(Ordering::Relaxed) {
                self.received_frame.store(now_ms, Ordering::Relaxed);
            }
        }
    }

    /// Whether the other node seems to have lost the session.
    pub(crate) fn is_silent(&self, now_ms: u64) -> bool {
        let sent = self.sent_frame.load(Ordering::Relaxed);
        sent > self.received_any.load(Ordering::Relaxed) && now_ms >= sent + SILENCE_MS
    }

    /// Whether the other node is to hear that its frames have come.
    pub(crate) fn owes_answer(&self, now_ms: u64) -> bool {
        let received = self.received_frame.load(Ordering::Relaxed);
        received > self.sent_any.load(Ordering::Relaxed) && now_ms >= received + ANSWER_MS
    }
}

/// As the Noise specification has it for AES-GCM: four zeros and the counter, its highest byte first.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
