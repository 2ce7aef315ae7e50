//! The vocabulary of this crate: what a caller asks for, as plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_types::ip::Subnet;
use skep_types::port::Protocol;

use crate::error::PublishError;

/// Where a [`crate::Network`] keeps its things and how it names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory in which a sandbox `x` is the file `x`, a bind mount of its network namespace.
    pub netns_dir: PathBuf,
    /// Names the nft table, and through a hash the host ends of all veth pairs: `skep` for the default daemon.
    /// Two daemons that share a network namespace must differ in it.
    pub instance: String,
}

/// A bridge on the host, and how its containers reach the world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bridge {
    /// Name of the interface, at most 15 bytes: `docker0`, `sk-<id>`.
    pub name: String,
    /// The bridge's own address, the gateway of its containers.
    pub gateway: Ipv4Addr,
    /// Length of the network part of `gateway` in bits.
    pub prefix: u8,
    /// Largest packet in bytes. With an overlay it is what the way to the other nodes leaves, and at most
    /// [`Overlay::mtu`], whatever this says.
    pub mtu: u32,
    /// Whether containers reach the outside under the host's address; false routes them as they are.
    pub masquerade: bool,
    /// Whether containers reach nothing but each other and the host.
    pub internal: bool,
    /// Whether nodes send connections to their published ports here: its containers answer each through the node that it
    /// came by.
    #[serde(default)]
    pub ingress: bool,
    /// The gateway of its containers over IPv6, and their subnet by it; `None` is a bridge without IPv6.
    #[serde(default)]
    pub gateway6: Option<Address6>,
    /// How it reaches its addresses on other nodes, where it spans machines.
    #[serde(default)]
    pub overlay: Option<Overlay>,
}

/// A node's own part in a network that spans machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Overlay {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// The UDP port that all nodes take packets at.
    pub port: u16,
    /// The address that other nodes send to. It is sent from, too, if this host has it.
    pub local: Ipv4Addr,
    /// The node's own address on the network, unlike the gateway's only its own: packets that the node rewrites
    /// come back to it by this.
    pub address: Ipv4Addr,
    /// Largest packet in bytes that is asked for; the way to the other nodes may leave less.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Bytes of each packet that its carrier needs beside VXLAN's own headers: what encryption adds.
    #[serde(default)]
    pub overhead: u32,
    /// Who carries packets to other nodes.
    #[serde(default)]
    pub transport: Transport,
}

/// Who carries packets of a network between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// The kernel, in clear: the bridge has a VXLAN device.
    #[default]
    Vxlan,
    /// Another process, by a TAP device that the bridge has instead. What is for other nodes goes there and nowhere else,
    /// also while that process is not there.
    Process,
}

/// Addresses of a network that are on other nodes, with the addresses of those nodes that packets are sent to.
pub type Peers = BTreeMap<Ipv4Addr, Ipv4Addr>;

impl Bridge {
    /// The addresses behind this bridge; `None` when `prefix` exceeds 32.
    pub fn subnet(&self) -> Option<Subnet> {
        Subnet::containing(self.gateway, self.prefix)
    }
}

/// An IPv6 address with the length of its network part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address6 {
    /// The address.
    pub address: Ipv6Addr,
    /// Length of the network part in bits, 0 to 128.
    pub prefix: u8,
}

/// The virtual addresses of a network's services, and who answers for each. An address without backends refuses at once.
pub type VirtualServices = BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address Docker gives to the holder of `address`: `02:42` and the four bytes. As it follows from the
    /// address, a neighbour's cache stays right when an address passes to another container.
    pub fn of(address: Ipv4Addr) -> MacAddress {
        let [a, b, c, d] = address.octets();
        MacAddress([0x02, 0x42, a, b, c, d])
    }

    /// The address that [`MacAddress::of`] made this of; `None` for any other hardware address.
    pub(crate) fn address(self) -> Option<Ipv4Addr> {
        match self.0 {
            [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One interface of a sandbox: a veth whose other end is a port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the bridge.
    pub bridge: String,
    /// Name inside the sandbox: `eth0`.
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network part of `address` in bits.
    pub prefix: u8,
    /// Where a default route through this interface leads; `None` on an internal network. A sandbox has one default
    /// route: that of the endpoint with the highest priority, and among equals of the first interface (`eth2` comes
    /// before `eth10`). When it goes, the next takes its place.
    pub gateway: Option<Ipv4Addr>,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Docker's gateway priority: among endpoints with a gateway, the highest has the default route.
    #[serde(default)]
    pub priority: i64,
    /// Its IPv6 address; `None` keeps IPv6 off the interface.
    #[serde(default)]
    pub address6: Option<Address6>,
    /// As `gateway`, of IPv6.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
}

/// Who publishes: a container's or a service's id. A key owns the publications made under it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicationKey(pub String);

impl fmt::Display for PublicationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A port of the host and who answers there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    /// Transport.
    pub protocol: Protocol,
    /// The host address to answer on. `None` is every address, also of IPv6 where a backend has one; 0.0.0.0 and :: are
    /// all of their family.
    pub host_ip: Option<IpAddr>,
    /// The host's port; 0 asks for a free one from the ephemeral range.
    pub host_port: u16,
    /// Who answers, in turn: over IPv4 those with an address of it, over IPv6 the others. With nobody here the port stays
    /// reserved: TCP is refused, UDP is swallowed.
    pub backends: Vec<(IpAddr, u16)>,
}

/// Everything that should exist: what [`crate::Network::reconcile`] brings about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// All bridges.
    pub bridges: Vec<Bridge>,
    /// The peers of bridges with an overlay, by the name of the bridge.
    pub peers: BTreeMap<String, Peers>,
    /// All sandboxes by name, each with its interfaces.
    pub sandboxes: BTreeMap<String, Vec<Endpoint>>,
    /// The services of bridges as far as they are known, by the name of the bridge. What sandboxes have of a bridge that
    /// is not named here stays as it is until [`crate::Network::set_services`].
    pub services: BTreeMap<String, VirtualServices>,
    /// All publications by their owner. `host_port` must not be 0: say what was given out before.
    pub publications: BTreeMap<PublicationKey, Vec<Publication>>,
}

/// What [`crate::Network::reconcile`] found and did.
#[derive(Debug, Default)]
pub struct Report {
    /// What was missing or wrong and is right now, a phrase each.
    pub repaired: Vec<String>,
    /// What was ours and unwanted and is gone, a phrase each.
    pub removed: Vec<String>,
    /// What could not be brought about; everything else was.
    pub failed: Vec<String>,
    /// What rules of others keep from working, a sentence each: for the log.
    pub warnings: Vec<String>,
    /// Ports whose reservation another process took while no daemon ran, or that two keys claim. The former are
    /// served nonetheless, for rules come before sockets; of the latter the first key in order is served.
    pub contested: Vec<(PublicationKey, PublishError)>,
}
