//! What the server knows.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// What is to be known of a network as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneConfig {
    /// The network's name: `web` on the network `shop` is `web.shop` as well, and what an address points to ends with it.
    /// `None` when it cannot be in a name.
    pub domain: Option<Name>,
    /// The network's subnets, as address and prefix length: addresses in them are of no interest to anybody else, so
    /// questions whose they are end here.
    pub subnets: Vec<(IpAddr, u8)>,
}

/// What somebody on a network (a service, a container) contributes to its names. Several may contribute to the same
/// name: it has the addresses of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The names, each once.
    pub records: Vec<Record>,
}

/// A name and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name.
    pub name: Name,
    /// Its addresses, IPv4 and IPv6, in any order: answers shuffle them. A name without addresses exists: questions for it
    /// are answered with nothing, rather than by somebody else's knowledge of that name.
    pub addresses: Vec<IpAddr>,
    /// Whether the addresses point back to this name.
    pub pointer: bool,
}

/// What a sandbox is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The file that its network namespace is bound to.
    pub netns: PathBuf,
    /// Its networks, by the keys of their zones: the first that has a name answers.
    pub networks: Vec<String>,
    /// The search domains of its `resolv.conf` (`--dns-search`); `None` for the host's. Some clients, busybox's among them, ask
    /// for `web` as `web.<search domain>` only: it is answered as `web` if nobody else knows that name.
    pub search: Option<Vec<Name>>,
    /// What it alone knows, before all networks: aliases of links, and what it is called itself.
    pub own: Entry,
    /// Who answers what no network knows.
    pub forwarding: Forwarding,
}

/// Who answers what no network knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarding {
    /// Nobody: all networks of the sandbox are internal.
    None,
    /// The resolvers of the host's `/etc/resolv.conf`, asked from the host's network namespace: they may be on its loopback.
    /// Changes of the file are followed.
    Host,
    /// These, in this order (`--dns`), asked from the sandbox, whose networks they may be on.
    Given(Vec<SocketAddr>),
}
