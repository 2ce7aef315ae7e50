//! What nodes that encrypt between them must know of each other.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many network keys are kept: one before, the one in use, and one that is told before it is used.
pub const NETWORK_KEYS_KEPT: usize = 3;

/// Time after which a new network key is made.
pub const NETWORK_KEY_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A node's public X25519 key, by which others know it in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TunnelKey(pub [u8; 32]);

impl fmt::Display for TunnelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TunnelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A secret of the whole cluster that is mixed into every handshake. The leader makes a new one every 12 hours.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkKey {
    /// Counts the keys of a cluster, from 1.
    pub number: u64,
    /// Random bytes. Secret.
    pub secret: [u8; 32],
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKey({})", self.number)
    }
}

/// The key that a node begins handshakes with. The newest may not have reached every node, so it is the second newest,
/// as in libnetwork's overlay driver; all keys are accepted. `keys` are in the order of their numbers.
pub fn key_in_use(keys: &[NetworkKey]) -> Option<&NetworkKey> {
    let place = keys.len().saturating_sub(2);
    keys.get(place)
}

/// A node's own part in encrypted networks; told to nodes that have one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The node's own data path address, that its peers send to.
    pub host: IpAddr,
    /// The UDP port that every node of the cluster takes encrypted packets at: the one after the data path port.
    pub port: u16,
    /// The newest keys of the cluster, [`NETWORK_KEYS_KEPT`] at most, in the order of their numbers.
    pub keys: Vec<NetworkKey>,
}

/// Another node that has an encrypted network in common with the one that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPeer {
    /// Its data path address.
    pub host: IpAddr,
    /// Its public key.
    pub key: TunnelKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_key_is_used_when_a_newer_one_has_been_told() {
        let keys: Vec<NetworkKey> = (1..=4).map(|number| NetworkKey { number, secret: [0; 32] }).collect();
        let number = |keys: &[NetworkKey]| key_in_use(keys).map(|key| key.number);
        assert_eq!(number(&[]), None);
        assert_eq!(number(&keys[..1]), Some(1));
        assert_eq!(number(&keys[..2]), Some(1));
        assert_eq!(number(&keys[..3]), Some(2));
        assert_eq!(number(&keys[1..]), Some(3));
    }
}
