//! Which address a node listens on and which it tells the others. Moby's rules and words
//! (daemon/cluster/listen_addr.go, listen_addr_linux.go).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use skep_types::ip::Subnet;
use skep_types::swarm::{CLUSTER_PORT, DATA_PATH_PORT};

use crate::SwarmError;
use crate::interfaces::Interface;

/// Moby's `errNoIP`; the stock client adds " - specify one with --advertise-addr".
const NO_ADDRESS: &str = "could not find the system's IP address";
const BAD_LISTEN: &str =
    "listen address must be an IP address or network interface (with optional port number)";
const BAD_ADVERTISE: &str =
    "advertise address must be a non-zero IP address or network interface (with optional port number)";
const BAD_DEFAULT_ADVERTISE: &str =
    "default advertise address must be a non-zero IP address or network interface (without a port number)";
const BAD_DATA_PATH: &str = "data path address must be a non-zero IP address or network interface";

/// An address and a port of the cluster's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

fn invalid(message: impl Into<String>) -> SwarmError {
    SwarmError::InvalidParameter(message.into())
}

/// Splits `host:port`, `[host]:port` or `host` without a port.
fn split(text: &str) -> Result<(&str, Option<u16>), SwarmError> {
    let port = |port: &str| port.parse().map_err(|_| invalid(format!("invalid port in address {text}")));
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| invalid(format!("could not parse address {text}")))?;
        return match rest.strip_prefix(':') {
            Some(number) => Ok((host, Some(port(number)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(invalid(format!("could not parse address {text}"))),
        };
    }
    match text.split_once(':') {
        // More than one colon without brackets is an IPv6 address.
        Some((host, number)) if !number.contains(':') => Ok((host, Some(port(number)?))),
        Some(_) | None => Ok((text, None)),
    }
}

/// The address of the interface called `name`; `None` when there is no such interface.
fn of_interface(name: &str, interfaces: &[Interface]) -> Option<Result<IpAddr, SwarmError>> {
    let interface = interfaces.iter().find(|interface| interface.name == name)?;
    let single = |v4: bool, version: &str| -> Result<Option<IpAddr>, SwarmError> {
        let mut addresses = interface.addresses.iter().filter(|address| address.is_ipv4() == v4);
        match (addresses.next(), addresses.next()) {
            (Some(first), Some(second)) => Err(invalid(format!(
                "interface {name} has more than one {version} address ({first} and {second})"
            ))),
            (first, _) => Ok(first.copied()),
        }
    };
    let unusable = || invalid(format!("interface {name} has no usable IPv4 or IPv6 address"));
    let found = single(true, "IPv4").and_then(|v4| match v4 {
        Some(address) => Ok(address),
        None => single(false, "IPv6")?.ok_or_else(unusable),
    });
    Some(found)
}

/// Reads an address that may be given as an interface.
fn resolve(host: &str, interfaces: &[Interface], refusal: &str) -> Result<IpAddr, SwarmError> {
    match of_interface(host, interfaces) {
        Some(found) => found,
        None => host.parse().map_err(|_| invalid(refusal)),
    }
}

fn resolve_specified(host: &str, interfaces: &[Interface], refusal: &str) -> Result<IpAddr, SwarmError> {
    let address = resolve(host, interfaces, refusal)?;
    if address.is_unspecified() { Err(invalid(refusal)) } else { Ok(address) }
}

/// Where to listen.
pub(crate) fn listen(text: &str, interfaces: &[Interface]) -> Result<Place, SwarmError> {
    if text.is_empty() {
        return Err(invalid("invalid ListenAddr \"\": invalid empty address"));
    }
    let (host, port) = split(text)?;
    Ok(Place { address: resolve(host, interfaces, BAD_LISTEN)?, port: port.unwrap_or(CLUSTER_PORT) })
}

/// What to tell the others: as asked, else the daemon's default, else the machine's only address.
pub(crate) fn advertise(
    text: &str,
    default: &str,
    listen_port: u16,
    interfaces: &[Interface],
    own_subnets: &[Subnet],
) -> Result<Place, SwarmError> {
    if !text.is_empty() {
        let (host, port) = split(text)?;
        let address = resolve_specified(host, interfaces, BAD_ADVERTISE)?;
        return Ok(Place { address, port: port.unwrap_or(listen_port) });
    }
    let address = match default {
        "" => detect(interfaces, own_subnets)?,
        default => resolve_specified(default, interfaces, BAD_DEFAULT_ADVERTISE)?,
    };
    Ok(Place { address, port: listen_port })
}

/// A manager to join at, `host:port`.
pub(crate) fn remote(text: &str) -> Result<String, SwarmError> {
    if text.is_empty() {
        return Err(invalid("invalid remoteAddr \"\": invalid empty address"));
    }
    let text = text.strip_prefix("tcp://").unwrap_or(text);
    let (host, port) = split(text)?;
    let port = port.unwrap_or(CLUSTER_PORT);
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The address from which this machine reaches `remote`, `host:port`. Nothing is sent.
pub(crate) async fn towards(remote: &str) -> Result<IpAddr, SwarmError> {
    let found = async {
        let targets: Vec<SocketAddr> = tokio::net::lookup_host(remote).await?.collect();
        let unspecified = |target: &SocketAddr| match target.ip() {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let first = targets.first().ok_or_else(|| std::io::Error::other("the name has no address"))?;
        let socket = tokio::net::UdpSocket::bind(unspecified(first)).await?;
        socket.connect(first).await?;
        Ok::<_, std::io::Error>(socket.local_addr()?.ip())
    };
    // Moby's words (daemon/cluster/noderunner.go).
    found.await.map_err(|error| SwarmError::Internal(format!("could not find local IP address: {error}")))
}

/// The address of the overlay networks' traffic; `None` follows the advertised one.
pub(crate) fn data_path(text: &str, interfaces: &[Interface]) -> Result<Option<IpAddr>, SwarmError> {
    if text.is_empty() {
        return Ok(None);
    }
    resolve_specified(text, interfaces, BAD_DATA_PATH).map(Some)
}

/// The UDP port of the overlay networks' traffic.
pub(crate) fn data_path_port(port: u32) -> Result<u16, SwarmError> {
    match port {
        0 => Ok(DATA_PATH_PORT),
        1024..=49151 => Ok(u16::try_from(port).expect("the range is below 65536")),
        _ => Err(invalid(format!("Datapath port number is not in valid range (1024-49151) : {port}"))),
    }
}

fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let special = address.is_unspecified() || address.is_loopback() || address.is_link_local();
            !(special || address.is_multicast() || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
            !(special || address.is_unicast_link_local())
        }
    }
}

/// The machine's only address: of its hardware, or where there is none (in a container, whose interfaces
/// are veths) of everything but our own networks.
fn detect(interfaces: &[Interface], own_subnets: &[Subnet]) -> Result<IpAddr, SwarmError> {
    let usable = |interface: &&Interface| interface.up && !interface.loopback;
    let hardware: Vec<&Interface> =
        interfaces.iter().filter(usable).filter(|interface| interface.kind.is_empty()).collect();
    let ours = |address: &IpAddr| match address {
        IpAddr::V4(address) => own_subnets.iter().any(|subnet| subnet.contains(*address)),
        IpAddr::V6(_) => false,
    };
    let candidates = if hardware.is_empty() {
        interfaces.iter().filter(usable).filter(|interface| !interface.addresses.iter().any(ours)).collect()
    } else {
        hardware
    };
    let mut chosen: Option<(IpAddr, &str)> = None;
    for interface in candidates {
        let Some(address) = only_global(interface)? else { continue };
        if let Some((other, name)) = chosen {
            return Err(invalid(format!(
                "could not choose an IP address to advertise since this system has multiple addresses on \
                 different interfaces ({other} on {name} and {address} on {})",
                interface.name
            )));
        }
        chosen = Some((address, &interface.name));
    }
    chosen.map(|(address, _)| address).ok_or_else(|| invalid(NO_ADDRESS))
}

/// An interface's only address that others can reach, IPv4 before IPv6.
fn only_global(interface: &Interface) -> Result<Option<IpAddr>, SwarmError> {
    let mut first: [Option<IpAddr>; 2] = [None, None];
    for address in interface.addresses.iter().filter(|address| is_global(address)) {
        let slot = &mut first[usize::from(address.is_ipv6())];
        if let Some(other) = slot {
            return Err(invalid(format!(
                "could not choose an IP address to advertise since this system has multiple addresses on \
                 interface {} ({other} and {address})",
                interface.name
            )));
        }
        *slot = Some(*address);
    }
    Ok(first[0].or(first[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, kind: &str, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let (name, kind) = (name.to_owned(), kind.to_owned());
        let loopback = name == "lo";
        Interface { name, kind, addresses, up: true, loopback, ..Interface::default() }
    }

    fn told(text: &str, interfaces: &[Interface]) -> String {
        let own = ["172.17.0.0/16".parse().expect("a subnet")];
        match advertise(text, "", 2377, interfaces, &own) {
            Ok(place) => place.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_only_address_is_advertised() {
        let lo = interface("lo", "", &["127.0.0.1", "::1"]);
        let eth0 = interface("eth0", "", &["192.0.2.7", "fe80::1"]);
        let docker0 = interface("docker0", "bridge", &["172.17.0.1"]);
        let veth = interface("eth0", "veth", &["10.9.0.2"]);
        let cases = [
            (vec![lo.clone(), eth0.clone(), docker0.clone()], "192.0.2.7:2377"),
            (vec![lo.clone(), veth.clone(), docker0.clone()], "10.9.0.2:2377"),
            (vec![lo.clone(), interface("e", "", &["2001:db8::1"])], "[2001:db8::1]:2377"),
            (vec![lo.clone()], NO_ADDRESS),
            (vec![lo.clone(), docker0], NO_ADDRESS),
            (
                vec![lo.clone(), eth0.clone(), interface("eth1", "", &["198.51.100.2"])],
                "could not choose an IP address to advertise since this system has multiple addresses on \
                 different interfaces (192.0.2.7 on eth0 and 198.51.100.2 on eth1)",
            ),
            (
                vec![interface("eth0", "", &["192.0.2.7", "192.0.2.8"])],
                "could not choose an IP address to advertise since this system has multiple addresses on \
                 interface eth0 (192.0.2.7 and 192.0.2.8)",
            ),
        ];
        for (interfaces, expected) in cases {
            assert_eq!(told("", &interfaces), expected);
        }
    }

    #[test]
    fn an_address_or_an_interface_can_be_named() {
        let interfaces = [
            interface("lo", "", &["127.0.0.1", "::1"]),
            interface("eth0", "", &["192.0.2.7", "192.0.2.8"]),
            interface("eth1", "", &[]),
        ];
        let cases = [
            ("127.0.0.1", "127.0.0.1:2377"),
            ("192.0.2.9:4000", "192.0.2.9:4000"),
            ("lo", "127.0.0.1:2377"),
            ("lo:99", "127.0.0.1:99"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("2001:db8::1", "[2001:db8::1]:2377"),
            ("0.0.0.0", BAD_ADVERTISE),
            ("nowhere", BAD_ADVERTISE),
            ("eth0", "interface eth0 has more than one IPv4 address (192.0.2.7 and 192.0.2.8)"),
            ("eth1", "interface eth1 has no usable IPv4 or IPv6 address"),
            ("1.2.3.4:x", "invalid port in address 1.2.3.4:x"),
        ];
        for (text, expected) in cases {
            assert_eq!(told(text, &interfaces), expected, "{text}");
        }
        assert_eq!(
            advertise("", "lo", 7, &interfaces, &[]).map(|place| place.to_string()),
            Ok("127.0.0.1:7".into())
        );
        let refused = advertise("", "nowhere", 7, &interfaces, &[]);
        assert_eq!(refused, Err(invalid(BAD_DEFAULT_ADVERTISE)));
    }

    #[test]
    fn listening_defaults_to_the_cluster_s_port() {
        assert_eq!(listen("0.0.0.0", &[]).map(|place| place.to_string()), Ok("0.0.0.0:2377".into()));
        assert_eq!(listen("[::]:9", &[]).map(|place| place.to_string()), Ok("[::]:9".into()));
        assert_eq!(listen("here", &[]), Err(invalid(BAD_LISTEN)));
        assert!(listen("", &[]).is_err());
    }

    #[test]
    fn a_manager_to_join_at_has_a_port() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:2377"),
            ("192.0.2.1:9", "192.0.2.1:9"),
            ("tcp://host:9", "host:9"),
            ("[2001:db8::1]", "[2001:db8::1]:2377"),
        ] {
            assert_eq!(remote(text), Ok(expected.to_owned()));
        }
        assert_eq!(remote(""), Err(invalid("invalid remoteAddr \"\": invalid empty address")));
    }

    #[test]
    fn the_data_path_has_its_range() {
        assert_eq!(data_path_port(0), Ok(4789));
        assert_eq!(data_path_port(5000), Ok(5000));
        assert!(data_path_port(80).is_err());
        assert!(data_path_port(70000).is_err());
    }
}
