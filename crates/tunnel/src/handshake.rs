//! The handshake: Noise's IKpsk2 with WireGuard's primitives, as bytes in and bytes out.
//!
//! What is unlike WireGuard: the pre-shared key is the cluster's, and each packet ends with a proof that its sender has
//! one, so that only nodes can make a node compute on curves. There are no cookies, as there are no strangers.

use ring::hmac;
use skep_types::tunnel::{NetworkKey, TunnelKey};
use snow::{Builder, HandshakeState};

use crate::session::Keys;
use crate::wire::{INITIATION, KIND_LEN, MAC_LEN, NAME_LEN, RESPONSE, TAG_LEN};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"skep tunnel 1";
const KEY_LEN: usize = 32;
/// The initiation says the session's name and the time, the response the session's name.
const INITIATION_TEXT_LEN: usize = NAME_LEN + 8;
const INITIATION_LEN: usize =
    KIND_LEN + KEY_LEN + KEY_LEN + TAG_LEN + INITIATION_TEXT_LEN + TAG_LEN + MAC_LEN;
const RESPONSE_LEN: usize = KIND_LEN + NAME_LEN + KEY_LEN + NAME_LEN + TAG_LEN + MAC_LEN;

/// A node's own private key. Secret.
#[derive(Clone)]
pub(crate) struct PrivateKey(pub(crate) [u8; KEY_LEN]);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(***)")
    }
}

impl PrivateKey {
    pub(crate) fn generate() -> PrivateKey {
        let pair = builder().generate_keypair().expect("the system has random bytes and the pattern a curve");
        PrivateKey(pair.private.try_into().expect("X25519's keys have 32 bytes"))
    }

    pub(crate) fn public(&self) -> TunnelKey {
        use snow::resolvers::{CryptoResolver, DefaultResolver};
        let curve = DefaultResolver.resolve_dh(&snow::params::DHChoice::Curve25519);
        let mut curve = curve.expect("the curve is compiled in");
        curve.set(&self.0);
        TunnelKey(curve.pubkey().try_into().expect("X25519's keys have 32 bytes"))
    }
}

/// A handshake that this node began and that was not answered yet.
pub(crate) struct Begun {
    state: HandshakeState,
    key: NetworkKey,
    /// The name of the session to be.
    pub(crate) ours: u32,
}

/// What an initiation said, once it has proven genuine.
pub(crate) struct Heard {
    state: HandshakeState,
    key: NetworkKey,
    /// Who began.
    pub(crate) from: TunnelKey,
    /// Grows with each handshake that the same node begins.
    pub(crate) time: u64,
    theirs: u32,
}

/// What both have in the end.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// The session's name at the other node.
    pub(crate) theirs: u32,
    pub(crate) keys: Keys,
}

impl Begun {
    /// Begins a handshake, and returns the packet for `with`.
    pub(crate) fn new(
        own: &PrivateKey,
        with: &TunnelKey,
        key: &NetworkKey,
        (ours, time): (u32, u64),
    ) -> Option<(Begun, Vec<u8>)> {
        let mut state = build(own, key, Some(with))?;
        let mut text = [0; INITIATION_TEXT_LEN];
        text[..NAME_LEN].copy_from_slice(&ours.to_le_bytes());
        text[NAME_LEN..].copy_from_slice(&time.to_be_bytes());
        let mut packet = vec![0; INITIATION_LEN];
        packet[..KIND_LEN].copy_from_slice(&INITIATION);
        state.write_message(&text, &mut packet[KIND_LEN..INITIATION_LEN - MAC_LEN]).ok()?;
        prove(key, &mut packet);
        Some((Begun { state, key: key.clone(), ours }, packet))
    }

    /// Takes the answer. One that is not genuine leaves the handshake as it was.
    pub(crate) fn finish(&mut self, packet: &[u8]) -> Option<Agreed> {
        if packet.len() != RESPONSE_LEN || !packet.starts_with(&RESPONSE) || !has_proof(&self.key, packet) {
            return None;
        }
        let mut text = [0; NAME_LEN];
        let message = &packet[KIND_LEN + NAME_LEN..RESPONSE_LEN - MAC_LEN];
        self.state.read_message(message, &mut text).ok()?;
        let keys = Keys::derive(self.state.dangerously_get_raw_split(), true);
        Some(Agreed { theirs: u32::from_le_bytes(text), keys })
    }
}

/// The name of the session at who began, from a response; `None` for any other packet.
pub(crate) fn answered(packet: &[u8]) -> Option<u32> {
    let is_response = packet.len() == RESPONSE_LEN && packet.starts_with(&RESPONSE);
    let name = packet.get(KIND_LEN..KIND_LEN + NAME_LEN).filter(|_| is_response)?;
    Some(u32::from_le_bytes(name.try_into().ok()?))
}

impl Heard {
    /// Reads an initiation from a node that has one of the keys; whether we know the node is for the caller to say.
    pub(crate) fn read(own: &PrivateKey, keys: &[NetworkKey], packet: &[u8]) -> Option<Heard> {
        if packet.len() != INITIATION_LEN || !packet.starts_with(&INITIATION) {
            return None;
        }
        let key = keys.iter().find(|key| has_proof(key, packet))?;
        let mut state = build(own, key, None)?;
        let mut text = [0; INITIATION_TEXT_LEN];
        state.read_message(&packet[KIND_LEN..INITIATION_LEN - MAC_LEN], &mut text).ok()?;
        let from = TunnelKey(state.get_remote_static()?.try_into().ok()?);
        let (name, time) = text.split_at(NAME_LEN);
        let theirs = u32::from_le_bytes(name.try_into().ok()?);
        let time = u64::from_be_bytes(time.try_into().ok()?);
        Some(Heard { state, key: key.clone(), from, time, theirs })
    }

    /// Answers: what was agreed on, and the packet.
    pub(crate) fn answer(mut self, ours: u32) -> Option<(Agreed, Vec<u8>)> {
        let mut packet = vec![0; RESPONSE_LEN];
        packet[..KIND_LEN].copy_from_slice(&RESPONSE);
        packet[KIND_LEN..KIND_LEN + NAME_LEN].copy_from_slice(&self.theirs.to_le_bytes());
        let message = &mut packet[KIND_LEN + NAME_LEN..RESPONSE_LEN - MAC_LEN];
        self.state.write_message(&ours.to_le_bytes(), message).ok()?;
        prove(&self.key, &mut packet);
        let keys = Keys::derive(self.state.dangerously_get_raw_split(), false);
        Some((Agreed { theirs: self.theirs, keys }, packet))
    }
}

fn builder<'a>() -> Builder<'a> {
    Builder::new(PATTERN.parse().expect("the pattern is one of Noise's"))
}

fn build(own: &PrivateKey, key: &NetworkKey, with: Option<&TunnelKey>) -> Option<HandshakeState> {
    let builder = builder().prologue(PROLOGUE).ok()?.local_private_key(&own.0).ok()?;
    let builder = builder.psk(2, &key.secret).ok()?;
    match with {
        Some(with) => builder.remote_public_key(&with.0).ok()?.build_initiator().ok(),
        None => builder.build_responder().ok(),
    }
}

/// Writes the proof into a packet's last bytes.
fn prove(key: &NetworkKey, packet: &mut [u8]) {
    let (said, proof) = packet.split_at_mut(packet.len() - MAC_LEN);
    proof.copy_from_slice(&mac(key, said));
}

fn has_proof(key: &NetworkKey, packet: &[u8]) -> bool {
    let (said, proof) = packet.split_at(packet.len() - MAC_LEN);
    // In constant time: the difference of all bytes at once.
    mac(key, said).iter().zip(proof).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0
}

fn mac(key: &NetworkKey, said: &[u8]) -> [u8; MAC_LEN] {
    let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.secret), b"skep tunnel proof");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()), said);
    let mut proof = [0; MAC_LEN];
    proof.copy_from_slice(&tag.as_ref()[..MAC_LEN]);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> NetworkKey {
        NetworkKey { number, secret: [number as u8; 32] }
    }

    fn agree(packet: &[u8], own: &PrivateKey, begun: &mut Begun) -> (Agreed, Agreed) {
        let heard = Heard::read(own, &[key(1), key(2)], packet).expect("a genuine initiation");
        assert_eq!(heard.time, 99);
        let (theirs, answer) = heard.answer(8).expect("an answer");
        assert_eq!(answered(&answer), Some(7));
        // Damage anywhere is seen, and leaves the handshake as it was.
        for at in 0..answer.len() {
            let mut damaged = answer.clone();
            damaged[at] ^= 1;
            assert!(begun.finish(&damaged).is_none(), "byte {at}");
        }
        (begun.finish(&answer).expect("a genuine answer"), theirs)
    }

    #[test]
    fn two_nodes_agree_on_keys_and_names() {
        let (one, other) = (PrivateKey::generate(), PrivateKey::generate());
        let (mut begun, packet) = Begun::new(&one, &other.public(), &key(2), (7, 99)).expect("a beginning");
        let (ours, theirs) = agree(&packet, &other, &mut begun);
        assert_eq!((ours.theirs, theirs.theirs), (8, 7));
        assert_eq!((ours.keys.send, ours.keys.receive), (theirs.keys.receive, theirs.keys.send));
        assert_ne!(ours.keys.send, ours.keys.receive);
    }

    #[test]
    fn strangers_and_damage_are_refused() {
        let (one, other) = (PrivateKey::generate(), PrivateKey::generate());
        let (_, packet) = Begun::new(&one, &other.public(), &key(1), (7, 99)).expect("a beginning");
        assert!(Heard::read(&other, &[key(2), key(3)], &packet).is_none(), "another cluster's key");
        assert!(Heard::read(&one, &[key(1)], &packet).is_none(), "for another node");
        for at in 0..packet.len() {
            let mut damaged = packet.clone();
            damaged[at] ^= 1;
            assert!(Heard::read(&other, &[key(1)], &damaged).is_none(), "byte {at}");
            assert!(Heard::read(&other, &[key(1)], &packet[..at]).is_none(), "length {at}");
        }
    }

    #[test]
    fn a_private_key_has_the_public_one_that_others_see() {
        let (one, other) = (PrivateKey::generate(), PrivateKey::generate());
        let (_, packet) = Begun::new(&one, &other.public(), &key(1), (7, 99)).expect("a beginning");
        let heard = Heard::read(&other, &[key(1)], &packet).expect("a genuine initiation");
        assert_eq!(heard.from, one.public());
    }
}
