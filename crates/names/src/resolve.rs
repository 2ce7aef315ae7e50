//! Decides what a question's answer is. Pure: no clock, no socket, no randomness.
//!
//! As libnetwork's resolver, which is what containers are used to: the first network that has a name answers; `web` on
//! the network `shop` is `web.shop` too; a name that exists is never asked of anybody else, whatever type is asked for.
//! Other than there, what can only be a name of ours (one label) or an address of ours (in a network's subnet) is said
//! not to exist at once, instead of being told to strangers (`docs/adr/0014-names.md`).

use std::collections::HashMap;
use std::net::IpAddr;

use crate::name::Name;
use crate::tables::{Forwarding, Record, View};
use crate::zone::Zone;

/// The zones of all networks, by their keys.
pub(crate) type Zones = HashMap<Box<str>, Zone>;

/// The types of record that make a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names of an address.
    Ptr,
    /// How to reach a service at the name (SVCB, HTTPS): asked for along with addresses.
    Service,
    /// All there is.
    Any,
    /// Anything else.
    Other,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// These; without any, the name exists and has nothing of that type.
    Addresses(Vec<IpAddr>),
    /// These names.
    Names(Vec<Name>),
    /// There is no such name.
    Missing,
    /// What the resolvers say.
    Forward,
}

/// Answers a question from a sandbox.
pub(crate) fn resolve(zones: &Zones, view: &View, name: &Name, kind: Kind) -> Answer {
    let networks = || view.networks.iter().filter_map(|network| zones.get(network.as_str()));
    if let Some(address) = name.address() {
        return resolve_address(networks(), view, address, kind);
    }
    let of_type = |mut addresses: Vec<IpAddr>| {
        addresses.retain(|address| match kind {
            Kind::A => address.is_ipv4(),
            Kind::Aaaa => address.is_ipv6(),
            Kind::Any => true,
            Kind::Ptr | Kind::Service | Kind::Other => false,
        });
        Answer::Addresses(addresses)
    };
    let own: Vec<&Record> = view.own.records.iter().filter(|record| record.name == *name).collect();
    if !own.is_empty() {
        return of_type(own.iter().flat_map(|record| &record.addresses).copied().collect());
    }
    if let Some(addresses) = networks().find_map(|zone| zone.addresses(name)) {
        return of_type(addresses);
    }
    let below = |zone: &Zone| {
        let short = name.as_str().strip_suffix(zone.domain()?.as_str())?.strip_suffix('.')?;
        zone.addresses(&Name::new(short)?)
    };
    if let Some(addresses) = networks().find_map(below) {
        return of_type(addresses);
    }
    let is_single = !name.as_str().contains('.');
    let is_for_addresses = matches!(kind, Kind::A | Kind::Aaaa | Kind::Service | Kind::Any);
    match view.forwarding {
        Forwarding::None => Answer::Missing,
        Forwarding::Host if is_single && is_for_addresses => Answer::Missing,
        Forwarding::Host | Forwarding::Given(_) => Answer::Forward,
    }
}

/// Answers a question that nobody had an answer to, for a name below one of the sandbox's search domains: by what is known of
/// the name without that.
pub(crate) fn resolve_searched(
    zones: &Zones,
    view: &View,
    search: &[Name],
    name: &Name,
    kind: Kind,
) -> Option<Answer> {
    let short = |domain: &Name| Name::new(name.as_str().strip_suffix(domain.as_str())?.strip_suffix('.')?);
    let mut answers = search.iter().filter_map(short).map(|name| resolve(zones, view, &name, kind));
    answers.find(|answer| matches!(answer, Answer::Addresses(_)))
}

/// Answers a question for the name of an address.
fn resolve_address<'z>(
    networks: impl Iterator<Item = &'z Zone>,
    view: &View,
    address: IpAddr,
    kind: Kind,
) -> Answer {
    let points = |record: &&Record| record.pointer && record.addresses.contains(&address);
    let mut names: Vec<Name> =
        view.own.records.iter().filter(points).map(|record| record.name.clone()).collect();
    let mut is_ours = false;
    for zone in networks {
        is_ours |= zone.contains(address);
        if names.is_empty() {
            let full =
                |name: &Name| zone.domain().and_then(|domain| name.below(domain)).unwrap_or(name.clone());
            names = zone.names(address).into_iter().map(full).collect();
        }
    }
    let asks_for_names = matches!(kind, Kind::Ptr | Kind::Any);
    match (names.is_empty(), &view.forwarding) {
        (false, _) if asks_for_names => Answer::Names(names),
        (false, _) => Answer::Addresses(Vec::new()),
        (true, Forwarding::None) => Answer::Missing,
        (true, _) if is_ours => Answer::Missing,
        (true, Forwarding::Host | Forwarding::Given(_)) => Answer::Forward,
    }
}

#[cfg(test)]
mod tests;
