//! What differs between the table of IPv4 and that of IPv6, which are laid out alike.

use std::net::IpAddr;

use skep_types::ip::{Subnet, Subnet6};

use super::encode::{self, FAMILY_IPV4, FAMILY_IPV6, Register, shown_as};
use crate::model::Bridge;

/// One of the two tables of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Four,
    Six,
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Four } else { Family::Six }
    }

    /// The kernel's number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::Four => FAMILY_IPV4,
            Family::Six => FAMILY_IPV6,
        }
    }

    /// Bytes of an address.
    pub(crate) fn address_len(self) -> u32 {
        match self {
            Family::Four => 4,
            Family::Six => 16,
        }
    }

    /// The register after an address in the first ones, `place` further.
    pub(super) fn after_address(self, place: u32) -> Register {
        Register::at(self.address_len() / 4 + place)
    }

    /// Where the source's address is in the header.
    pub(crate) fn source_offset(self) -> u32 {
        match self {
            Family::Four => 12,
            Family::Six => 8,
        }
    }

    /// Where the destination's address is in the header.
    pub(super) fn destination_offset(self) -> u32 {
        self.source_offset() + self.address_len()
    }

    /// nft's number for an address.
    pub(super) fn shown_as(self) -> u32 {
        match self {
            Family::Four => shown_as::IPV4_ADDRESS,
            Family::Six => shown_as::IPV6_ADDRESS,
        }
    }

    /// The beginning of every address that is the host's alone.
    pub(super) fn loopback(self) -> &'static [u8] {
        match self {
            Family::Four => &[127],
            Family::Six => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        }
    }

    /// The addresses behind a bridge; `None` when it has none of the family.
    pub(super) fn network_of(self, bridge: &Bridge) -> Option<NetworkPart> {
        match self {
            Family::Four => bridge.subnet().map(NetworkPart::from),
            Family::Six => {
                let gateway = bridge.gateway6?;
                Subnet6::containing(gateway.address, gateway.prefix).map(NetworkPart::from)
            }
        }
    }
}

/// What the addresses of a network have in common, as bytes to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkPart {
    family: Family,
    mask: Vec<u8>,
    network: Vec<u8>,
}

impl From<Subnet> for NetworkPart {
    fn from(subnet: Subnet) -> NetworkPart {
        let hosts = u32::from(subnet.network()) ^ u32::from(subnet.broadcast());
        NetworkPart {
            family: Family::Four,
            mask: (!hosts).to_be_bytes().to_vec(),
            network: subnet.network().octets().to_vec(),
        }
    }
}

impl From<Subnet6> for NetworkPart {
    fn from(subnet: Subnet6) -> NetworkPart {
        let hosts = u128::MAX.checked_shr(u32::from(subnet.prefix())).unwrap_or(0);
        NetworkPart {
            family: Family::Six,
            mask: (!hosts).to_be_bytes().to_vec(),
            network: subnet.network().octets().to_vec(),
        }
    }
}

impl NetworkPart {
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Goes on if the packet's sender is of the network.
    pub(crate) fn is_senders<'r, 'm>(&self, rule: &'r mut encode::Rule<'m>) -> &'r mut encode::Rule<'m> {
        self.sender(rule).is(Register::at(0), &self.network)
    }

    /// Goes on if the packet's sender is of any other network.
    pub(crate) fn is_not_senders<'r, 'm>(&self, rule: &'r mut encode::Rule<'m>) -> &'r mut encode::Rule<'m> {
        self.sender(rule).is_not(Register::at(0), &self.network)
    }

    fn sender<'r, 'm>(&self, rule: &'r mut encode::Rule<'m>) -> &'r mut encode::Rule<'m> {
        rule.ip_header(self.family.source_offset(), self.family.address_len(), Register::at(0))
            .mask(Register::at(0), &self.mask)
    }

    /// Goes on if the first register has an address of the network, whose family's addresses have four bytes.
    pub(crate) fn has<'r, 'm>(&self, rule: &'r mut encode::Rule<'m>) -> &'r mut encode::Rule<'m> {
        rule.mask(Register::at(0), &self.mask).is(Register::at(0), &self.network)
    }
}
