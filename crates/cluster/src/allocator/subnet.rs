//! Subnets of the cluster's pools, and VXLAN identifiers.

use skep_types::ip::Subnet;

/// The first VXLAN identifier that is given out: SwarmKit's.
pub(crate) const FIRST_VNI: u32 = 4096;
/// The last one that there is.
pub(crate) const LAST_VNI: u32 = (1 << 24) - 1;

/// The first subnet of `prefix` bits in one of the pools that overlaps with none that is used.
pub(crate) fn first_free(pools: &[Subnet], prefix: u8, used: impl Iterator<Item = Subnet>) -> Option<Subnet> {
    let mut used: Vec<Subnet> = used.collect();
    used.sort();
    pools.iter().find_map(|pool| first_free_in(*pool, prefix, &used))
}

/// `used` is in order.
fn first_free_in(pool: Subnet, prefix: u8, used: &[Subnet]) -> Option<Subnet> {
    // At least a gateway and one address.
    if !(pool.prefix()..=30).contains(&prefix) {
        return None;
    }
    let mut candidate = Subnet::containing(pool.network(), prefix)?;
    for used in used {
        if used.overlaps(candidate) {
            // The next one that begins after both end.
            let end = u32::from(used.broadcast()).max(u32::from(candidate.broadcast()));
            candidate = Subnet::containing(end.checked_add(1)?.into(), prefix)?;
        }
    }
    pool.contains_all(candidate).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_large_enough_is_taken() {
        let subnet = |text: &str| text.parse::<Subnet>().expect("a subnet");
        for (pools, prefix, used, expected) in [
            (&["10.0.0.0/8"][..], 24, &[][..], Some("10.0.0.0/24")),
            (&["10.0.0.0/8"], 24, &["10.0.1.0/24", "10.0.0.0/24"], Some("10.0.2.0/24")),
            (&["10.0.0.0/8"], 24, &["10.0.1.0/24"], Some("10.0.0.0/24")),
            // A small one in the middle, and a large one around.
            (&["10.0.0.0/8"], 24, &["10.0.0.64/28", "10.0.1.0/28", "10.0.1.128/28"], Some("10.0.2.0/24")),
            (&["10.0.0.0/8"], 24, &["10.0.0.0/14"], Some("10.4.0.0/24")),
            (&["10.0.0.0/8"], 16, &["10.0.5.0/24"], Some("10.1.0.0/16")),
            (&["10.0.0.0/23"], 24, &["10.0.0.0/24", "10.0.1.0/24"], None),
            (&["10.0.0.0/24", "10.9.0.0/24"], 24, &["10.0.0.0/24"], Some("10.9.0.0/24")),
            (&["255.255.255.0/24"], 24, &["255.255.255.0/24"], None),
            (&["10.0.0.0/24"], 16, &[], None),
            (&["10.0.0.0/24"], 31, &[], None),
        ] {
            let pools: Vec<Subnet> = pools.iter().map(|pool| subnet(pool)).collect();
            let found = first_free(&pools, prefix, used.iter().map(|used| subnet(used)));
            assert_eq!(found, expected.map(subnet), "{pools:?} {prefix} {used:?}");
        }
    }
}
