//! Which addresses of a bridge's subnet are taken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use skep_types::ip::Subnet;

/// The addresses of one bridge.
///
/// An address that was given back is given again only after every other free one: whoever still remembers its last
/// owner finds nobody there rather than somebody else.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    /// Where addresses that nobody chose come from.
    range: Subnet,
    reserved: BTreeSet<Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// Offset in `range` of the address to try next.
    next: u32,
}

/// Why an address that was asked for is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Outside,
    Taken,
}

impl Addresses {
    /// None is taken but the subnet's own, its broadcast address and those `reserved`, such as the gateway's.
    pub(crate) fn new(
        subnet: Subnet,
        range: Option<Subnet>,
        reserved: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Addresses {
        let mut reserved: BTreeSet<Ipv4Addr> = reserved.into_iter().collect();
        if subnet.prefix() < 31 {
            reserved.extend([subnet.network(), subnet.broadcast()]);
        }
        Addresses { subnet, range: range.unwrap_or(subnet), reserved, taken: BTreeSet::new(), next: 0 }
    }

    /// Takes the next free address; `None` when all are taken.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let size = 1u64 << (32 - self.range.prefix());
        for _ in 0..size {
            let candidate = self.range.nth(self.next);
            self.next = if u64::from(self.next) + 1 >= size { 0 } else { self.next + 1 };
            if let Some(address) = candidate
                && !self.reserved.contains(&address)
                && self.taken.insert(address)
            {
                return Some(address);
            }
        }
        None
    }

    /// Takes a given address.
    pub(crate) fn take_exact(&mut self, address: Ipv4Addr) -> Result<(), Refused> {
        if !self.subnet.contains(address) {
            return Err(Refused::Outside);
        }
        if self.reserved.contains(&address) || !self.taken.insert(address) {
            return Err(Refused::Taken);
        }
        if self.range.contains(address) {
            // Go on after the youngest address also when this is rebuilt from what is in use.
            let offset = u32::from(address) - u32::from(self.range.network());
            self.next = self.next.max(offset.saturating_add(1));
        }
        Ok(())
    }

    pub(crate) fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn a_returned_address_is_the_last_to_be_given_again() {
        let mut addresses = Addresses::new(subnet("10.0.0.0/29"), None, [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 0, 0, 2)));
        addresses.give_back(Ipv4Addr::new(10, 0, 0, 2));
        let given: Vec<u8> = std::iter::from_fn(|| addresses.take()).map(|it| it.octets()[3]).collect();
        assert_eq!(given, [3, 4, 5, 6, 2]);
    }

    #[test]
    fn chosen_addresses_may_lie_outside_the_range_but_not_the_subnet() {
        let gateway = Ipv4Addr::new(10, 0, 0, 254);
        let mut addresses = Addresses::new(subnet("10.0.0.0/24"), Some(subnet("10.0.0.8/30")), [gateway]);
        assert_eq!(addresses.take_exact(Ipv4Addr::new(10, 0, 0, 9)), Ok(()));
        assert_eq!(addresses.take_exact(Ipv4Addr::new(10, 0, 0, 9)), Err(Refused::Taken));
        assert_eq!(addresses.take_exact(gateway), Err(Refused::Taken));
        assert_eq!(addresses.take_exact(Ipv4Addr::new(10, 0, 1, 9)), Err(Refused::Outside));
        assert_eq!(addresses.take_exact(Ipv4Addr::new(10, 0, 0, 100)), Ok(()));
        let given: Vec<u8> = std::iter::from_fn(|| addresses.take()).map(|it| it.octets()[3]).collect();
        assert_eq!(given, [10, 11, 8]);
    }
}
