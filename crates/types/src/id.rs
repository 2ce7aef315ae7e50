//! Identifiers: 128-bit ids for swarm objects, 256-bit ids for containers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Length of a swarm object's id as text: SwarmKit's 25 characters of base 36.
pub const SWARM_ID_LEN: usize = 25;

/// A text that is not an identifier of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

fn write_base36(mut value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut digits = [b'0'; SWARM_ID_LEN];
    for slot in digits.iter_mut().rev() {
        *slot = b"0123456789abcdefghijklmnopqrstuvwxyz"[(value % 36) as usize];
        value /= 36;
    }
    f.write_str(std::str::from_utf8(&digits).expect("base 36 digits are ASCII"))
}

fn parse_base36(text: &str) -> Option<u128> {
    if text.len() != SWARM_ID_LEN {
        return None;
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        value.checked_mul(36)?.checked_add(u128::from(digit))
    })
}

macro_rules! swarm_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Written as 25 characters of base 36, ordered as its text is.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base36(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_base36(text).map($name).ok_or_else(|| ParseIdError {
                    text: text.to_owned(),
                    expected: "25 characters of 0-9 and a-z",
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

swarm_id!(/// A cluster.
    ClusterId);
swarm_id!(/// A node of a cluster.
    NodeId);
impl NodeId {
    /// The number that tells the node's task from the others of a service that has one for each node. Ids are drawn at
    /// random, so that no two of a cluster end alike.
    pub fn slot(self) -> u64 {
        self.0 as u64
    }
}

swarm_id!(/// A service.
    ServiceId);
swarm_id!(/// A task: one try at running one instance of a service.
    TaskId);
swarm_id!(/// A cluster-wide network.
    NetworkId);

/// A container, as Docker writes it: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub [u8; 32]);

impl ContainerId {
    /// The first twelve digits, as `docker ps` shows them.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ContainerId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let refused = || ParseIdError { text: text.to_owned(), expected: "64 hexadecimal digits" };
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(ContainerId(bytes))
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A source of identifiers, seeded once: by the system's randomness in a daemon, by the seed of a run in
/// the simulator. SplitMix64 (Steele, Lea, Flood 2014) twice over; unique, not secret.
#[derive(Clone, Debug)]
pub struct Ids {
    state: [u64; 2],
}

impl Ids {
    /// Starts the sequence that belongs to `seed`.
    pub fn new(seed: u128) -> Self {
        Ids { state: [seed as u64, (seed >> 64) as u64] }
    }

    /// The next number of the sequence.
    pub fn next_u64(&mut self) -> u64 {
        self.lane(0)
    }

    /// The next 128 bits of the sequence.
    pub fn next_u128(&mut self) -> u128 {
        u128::from(self.lane(0)) << 64 | u128::from(self.lane(1))
    }

    /// The next container id of the sequence.
    pub fn container(&mut self) -> ContainerId {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.next_u128().to_be_bytes());
        bytes[16..].copy_from_slice(&self.next_u128().to_be_bytes());
        // Docker never hands out an id whose short form could be read as a number.
        bytes[0] |= 0xa0;
        ContainerId(bytes)
    }

    fn lane(&mut self, lane: usize) -> u64 {
        // The second lane's odd increment differs, so equal halves of a seed do not run in step.
        const INCREMENT: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];
        self.state[lane] = self.state[lane].wrapping_add(INCREMENT[lane]);
        let mut mixed = self.state[lane];
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_id_survives_its_text() {
        let mut ids = Ids::new(7);
        for _ in 0..100 {
            let id = TaskId(ids.next_u128());
            assert_eq!(id.to_string().len(), SWARM_ID_LEN);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "zzzzzzzzzzzzzzzzzzzzzzzzz"] {
            assert!(text.parse::<ServiceId>().is_err(), "{text}");
        }
        assert!("xyz".parse::<ContainerId>().is_err());
    }

    #[test]
    fn ids_order_as_their_text() {
        let mut ids = Ids::new(1);
        let mut drawn: Vec<NodeId> = (0..100).map(|_| NodeId(ids.next_u128())).collect();
        drawn.sort();
        let texts: Vec<String> = drawn.iter().map(NodeId::to_string).collect();
        assert!(texts.is_sorted());
    }

    #[test]
    fn a_container_id_survives_its_text() {
        let id = Ids::new(3).container();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 12);
    }
}
