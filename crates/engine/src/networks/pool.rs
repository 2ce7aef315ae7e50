//! Which subnet the default bridge takes.

use std::net::Ipv4Addr;

use skep_types::ip::Subnet;

/// The first of `pools` that overlaps none of `routes`; the first at all when every one does, as a bridge that is
/// reachable from the host is better than none.
pub(crate) fn choose(preferred: Option<Subnet>, pools: &[Subnet], routes: &[Subnet]) -> Option<Subnet> {
    let is_free = |pool: &Subnet| !routes.iter().any(|route| route.overlaps(*pool));
    let candidates = || preferred.into_iter().chain(pools.iter().copied());
    candidates().find(is_free).or_else(|| candidates().next())
}

/// The host's routes, from the text of /proc/net/route, without default routes and those through `own`, the bridge
/// itself. Lines that make no sense are passed over.
pub(crate) fn routes(text: &str, own: &str) -> Vec<Subnet> {
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (interface, destination, mask) =
            (*fields.first()?, number(fields.get(1)?)?, number(fields.get(7)?)?);
        if interface == own || mask == 0 {
            return None;
        }
        Subnet::containing(Ipv4Addr::from(destination), mask.count_ones() as u8)
    };
    text.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        docker0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        torn\n";

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        assert_eq!(routes(ROUTES, "docker0"), [subnet("172.17.0.0/16")]);
        assert_eq!(routes("", "docker0"), []);
    }

    #[test]
    fn a_pool_that_overlaps_a_route_is_passed_over() {
        let pools = [subnet("172.17.0.0/16"), subnet("172.18.0.0/16")];
        assert_eq!(choose(None, &pools, &[]), Some(pools[0]));
        assert_eq!(choose(None, &pools, &[subnet("172.17.3.0/24")]), Some(pools[1]));
        assert_eq!(choose(Some(pools[1]), &pools, &[]), Some(pools[1]));
        assert_eq!(choose(Some(pools[1]), &pools, &[pools[1]]), Some(pools[0]));
        assert_eq!(choose(None, &pools, &[subnet("172.0.0.0/8")]), Some(pools[0]));
        assert_eq!(choose(None, &[], &[]), None);
    }
}
