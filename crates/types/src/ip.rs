//! Subnets, and address pools over them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An IPv4 subnet, `10.0.0.0/24`. Host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: u32,
    prefix: u8,
}

/// A text that is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subnet: expected an address and prefix length, such as 10.0.0.0/24")]
pub struct ParseSubnetError(String);

impl Subnet {
    /// The subnet of `prefix` bits that contains `address`; `None` for a prefix above 32.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Subnet> {
        (prefix <= 32).then(|| Subnet { address: u32::from(address) & mask(prefix), prefix })
    }

    /// Length of the network part in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The network's own address, all host bits zero.
    pub fn network(self) -> Ipv4Addr {
        self.address.into()
    }

    /// The broadcast address, all host bits one.
    pub fn broadcast(self) -> Ipv4Addr {
        (self.address | !mask(self.prefix)).into()
    }

    /// The address `offset` places after the network's own, if it lies inside.
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(self.address.checked_add(offset)?);
        self.contains(address).then_some(address)
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.address
    }

    /// Whether every address of `other` lies inside.
    pub fn contains_all(self, other: Subnet) -> bool {
        self.prefix <= other.prefix && self.contains(other.network())
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Subnet) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.address & mask(prefix) == other.address & mask(prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// An IPv6 subnet, `fd00::/64`. Host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet6 {
    address: u128,
    prefix: u8,
}

impl Subnet6 {
    /// The subnet of `prefix` bits that contains `address`; `None` for a prefix above 128.
    pub fn containing(address: Ipv6Addr, prefix: u8) -> Option<Subnet6> {
        (prefix <= 128).then(|| Subnet6 { address: u128::from(address) & mask6(prefix), prefix })
    }

    /// Length of the network part in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The network's own address, all host bits zero.
    pub fn network(self) -> Ipv6Addr {
        self.address.into()
    }

    /// Whether the address lies in the subnet.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        u128::from(address) & mask6(self.prefix) == self.address
    }

    /// The first address after the network's own.
    pub fn first_host(self) -> Ipv6Addr {
        (self.address | 1).into()
    }

    /// The address whose low 32 bits are `low`; `None` where the prefix leaves fewer.
    pub fn with_low_bits(self, low: Ipv4Addr) -> Option<Ipv6Addr> {
        (self.prefix <= 96).then(|| (self.address | u128::from(u32::from(low))).into())
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Subnet6) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.address & mask6(prefix) == other.address & mask6(prefix)
    }
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = ParseSubnetError;
    fn from_str(text: &str) -> Result<Subnet6, ParseSubnetError> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: Ipv6Addr = address.parse().ok()?;
            let subnet = Subnet6::containing(address, prefix.parse().ok()?)?;
            (subnet.network() == address).then_some(subnet)
        });
        parsed.ok_or_else(|| ParseSubnetError(text.to_owned()))
    }
}

impl Serialize for Subnet6 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet6 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;
    fn from_str(text: &str) -> Result<Subnet, ParseSubnetError> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: Ipv4Addr = address.parse().ok()?;
            let subnet = Subnet::containing(address, prefix.parse().ok()?)?;
            (subnet.network() == address).then_some(subnet)
        });
        parsed.ok_or_else(|| ParseSubnetError(text.to_owned()))
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The addresses of one subnet and which of them are taken.
///
/// An address that was given back is given out again only after every other free one: whoever still
/// remembers its last owner finds nobody there rather than somebody else.
#[derive(Clone, Debug)]
pub struct AddressPool {
    subnet: Subnet,
    taken: BTreeSet<Ipv4Addr>,
    next: u32,
}

impl AddressPool {
    /// A pool with the network, broadcast and gateway (first host) addresses taken.
    pub fn new(subnet: Subnet) -> AddressPool {
        AddressPool { subnet, taken: BTreeSet::new(), next: 2 }
    }

    /// The subnet that the pool covers.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The gateway: the first host address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.nth(1).unwrap_or(self.subnet.network())
    }

    /// Takes the next free address; `None` when all are taken.
    pub fn take(&mut self) -> Option<Ipv4Addr> {
        let hosts = 1u64 << (32 - self.subnet.prefix);
        for _ in 0..hosts {
            if u64::from(self.next) >= hosts.saturating_sub(1) {
                self.next = 2;
            }
            let candidate = self.subnet.nth(self.next);
            self.next = self.next.saturating_add(1);
            if let Some(address) = candidate
                && address != self.subnet.broadcast()
                && self.taken.insert(address)
            {
                return Some(address);
            }
        }
        None
    }

    /// Takes a given address; false when it is taken, reserved or outside.
    pub fn take_exact(&mut self, address: Ipv4Addr) -> bool {
        let reserved = [self.subnet.network(), self.subnet.broadcast(), self.gateway()];
        let taken =
            self.subnet.contains(address) && !reserved.contains(&address) && self.taken.insert(address);
        if taken {
            // Continue after the youngest address also when the pool is rebuilt from what is in use.
            self.next = self.next.max(u32::from(address) - self.subnet.address + 1);
        }
        taken
    }

    /// Gives an address back.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }

    /// How many addresses are taken.
    pub fn in_use(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_address_is_the_last_to_be_given_again() {
        let mut pool = AddressPool::new("10.0.0.0/29".parse().expect("a subnet"));
        let first = pool.take();
        assert_eq!(first, Some(Ipv4Addr::new(10, 0, 0, 2)));
        pool.give_back(Ipv4Addr::new(10, 0, 0, 2));
        let given: Vec<u8> = std::iter::from_fn(|| pool.take()).map(|address| address.octets()[3]).collect();
        assert_eq!(given, [3, 4, 5, 6, 2]);
    }

    #[test]
    fn reserved_and_foreign_addresses_cannot_be_taken() {
        let mut pool = AddressPool::new("10.0.0.0/24".parse().expect("a subnet"));
        for address in ["10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.2"] {
            assert!(!pool.take_exact(address.parse().expect("an address")), "{address}");
        }
        assert!(pool.take_exact(Ipv4Addr::new(10, 0, 0, 9)));
        assert!(!pool.take_exact(Ipv4Addr::new(10, 0, 0, 9)));
    }

    #[test]
    fn subnets_are_read_strictly() {
        for text in ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "x/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        let wide: Subnet = "10.0.0.0/8".parse().expect("a subnet");
        assert!(wide.overlaps("10.200.0.0/16".parse().expect("a subnet")));
        assert!(!wide.overlaps("11.0.0.0/16".parse().expect("a subnet")));
        assert!(wide.contains_all("10.200.0.0/16".parse().expect("a subnet")));
        for text in ["fd00::", "fd00::1/64", "fd00::/129", "10.0.0.0/8"] {
            assert!(text.parse::<Subnet6>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_ends_in_the_ipv4_address() {
        let subnet: Subnet6 = "fd00:1::/64".parse().expect("a subnet");
        let address = subnet.with_low_bits(Ipv4Addr::new(10, 0, 1, 2));
        assert_eq!(address.map(|address| address.to_string()), Some("fd00:1::a00:102".to_owned()));
        let narrow: Subnet6 = "fd00::/112".parse().expect("a subnet");
        assert_eq!(narrow.with_low_bits(Ipv4Addr::new(10, 0, 1, 2)), None);
        assert!(subnet.overlaps("fd00:1::/48".parse().expect("a subnet")) && !subnet.overlaps(narrow));
    }
}
