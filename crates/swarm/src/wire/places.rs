//! How many strangers, callers that have shown no certificate (yet), are listened to at the same time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Strangers in all.
const STRANGERS: usize = 256;
/// Strangers from one address. Half of the whole would let two attackers keep everybody out.
const STRANGERS_OF_ONE_ADDRESS: usize = 32;

/// Counts strangers. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A stranger's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// A place for one more stranger, if there is one.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= STRANGERS {
            return None;
        }
        let of_address = taken.entry(address).or_default();
        if *of_address >= STRANGERS_OF_ONE_ADDRESS {
            return None;
        }
        *of_address += 1;
        drop(taken);
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = Places::default();
        let greedy = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let held: Vec<Place> = std::iter::from_fn(|| places.take(greedy)).collect();
        assert_eq!(held.len(), STRANGERS_OF_ONE_ADDRESS);
        let mapped = "::ffff:192.0.2.1".parse().expect("it is an address");
        assert!(places.take(mapped).is_none(), "it is the same address");
        assert!(places.take(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))).is_some());
        drop(held);
        assert!(places.take(greedy).is_some());
        assert!(places.taken.lock().expect("nobody panics").is_empty());
    }

    #[test]
    fn all_addresses_together_are_bounded() {
        let places = Places::default();
        let addresses = (0..STRANGERS as u32 * 2).map(|address| IpAddr::V4(Ipv4Addr::from_bits(address)));
        let held: Vec<Place> = addresses.filter_map(|address| places.take(address)).collect();
        assert_eq!(held.len(), STRANGERS);
    }
}
