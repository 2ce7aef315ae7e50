//! Builds sandboxes and their networks as standard input says, a line each, and answers each line with one: `ok`, what was
//! asked for, or `error` and why. `bench/network` runs one on each of its hosts; everything it builds goes with the
//! namespace of the host. It is one way to try a network without a daemon:
//!
//!     stage FOLDER
//!     bridge NAME GATEWAY/PREFIX
//!     overlay NAME GATEWAY/PREFIX VNI OWN-ADDRESS HOST-ADDRESS
//!     ingress NAME GATEWAY/PREFIX VNI OWN-ADDRESS HOST-ADDRESS
//!     peers BRIDGE ADDRESS=HOST-ADDRESS...
//!     sandbox NAME BRIDGE ADDRESS            answers with the file of its namespace
//!     services BRIDGE VIRTUAL-ADDRESS BACKEND...
//!     publish PORT BACKEND:PORT...
//!     crowd BRIDGE SERVICES BACKENDS         so many services; answers with the time of the call in microseconds
//!     change BRIDGE SERVICES BACKENDS        another backend for one of them; answers so, too

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use skep_network::{
    Bridge, Config, Endpoint, MacAddress, Network, Overlay, Publication, PublicationKey, Transport,
    VirtualServices,
};
use skep_types::port::Protocol;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Where the virtual addresses of a crowd begin, and those of its backends.
const CROWD: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);
const CROWD_BACKENDS: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 0);

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("which folder may have the namespaces' files?")?;
    let mut stage = Stage {
        network: Network::open(Config { netns_dir: PathBuf::from(folder), instance: "stage".to_owned() })?,
        bridges: BTreeMap::new(),
        changes: 0,
    };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = stage.act(&words).unwrap_or_else(|error| format!("error {line}: {error}"));
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}

struct Stage {
    network: Network,
    bridges: BTreeMap<String, Bridge>,
    /// Changes of crowds so far, so that no two are the same.
    changes: u32,
}

impl Stage {
    fn act(&mut self, words: &[&str]) -> Outcome<String> {
        match words {
            ["bridge", name, subnet] => self.bridge(name, subnet, None, false)?,
            [kind @ ("overlay" | "ingress"), name, subnet, vni, own, host] => {
                let overlay = Overlay {
                    vni: vni.parse()?,
                    port: 4789,
                    local: host.parse()?,
                    address: own.parse()?,
                    mtu: None,
                    overhead: 0,
                    transport: Transport::Vxlan,
                };
                self.bridge(name, subnet, Some(overlay), *kind == "ingress")?;
            }
            ["peers", bridge, peers @ ..] => {
                let parse = |peer: &&str| -> Outcome<(Ipv4Addr, Ipv4Addr)> {
                    let (address, host) = peer.split_once('=').ok_or("an address and a host, please")?;
                    Ok((address.parse()?, host.parse()?))
                };
                self.network.set_peers(bridge, &peers.iter().map(parse).collect::<Result<_, _>>()?)?;
            }
            ["sandbox", name, bridge, address] => return self.sandbox(name, bridge, address.parse()?),
            ["services", bridge, address, backends @ ..] => {
                let backends = backends.iter().map(|it| it.parse()).collect::<Result<_, _>>()?;
                let update = VirtualServices::from([(address.parse()?, backends)]);
                self.network.change_services(bridge, &update, &[].into())?;
            }
            ["publish", port, backends @ ..] => self.publish(port.parse()?, backends)?,
            ["crowd", bridge, services, backends] => {
                let crowd =
                    (0..services.parse()?).map(|number| member(number, backends.parse().unwrap_or(1)));
                let crowd: VirtualServices = crowd.collect();
                let begun = Instant::now();
                self.network.set_services(bridge, &crowd)?;
                return Ok(begun.elapsed().as_micros().to_string());
            }
            ["change", bridge, services, backends] => {
                self.changes += 1;
                let (address, mut answering) =
                    member(self.changes * 7919 % services.parse::<u32>()?, backends.parse()?);
                if let Some(last) = answering.last_mut() {
                    *last = Ipv4Addr::from(u32::from(CROWD_BACKENDS) + 0x7f_ffff - self.changes);
                }
                let update = VirtualServices::from([(address, answering)]);
                let begun = Instant::now();
                self.network.change_services(bridge, &update, &[].into())?;
                return Ok(begun.elapsed().as_micros().to_string());
            }
            _ => return Err("what is that?".into()),
        }
        Ok("ok".to_owned())
    }

    fn bridge(&mut self, name: &str, subnet: &str, overlay: Option<Overlay>, ingress: bool) -> Outcome<()> {
        let (gateway, prefix) = subnet.split_once('/').ok_or("an address and a prefix, please")?;
        let bridge = Bridge {
            name: name.to_owned(),
            gateway: gateway.parse()?,
            prefix: prefix.parse()?,
            mtu: 1500,
            masquerade: true,
            internal: false,
            ingress,
            gateway6: None,
            overlay,
        };
        self.network.ensure_bridge(&bridge)?;
        self.bridges.insert(name.to_owned(), bridge);
        Ok(())
    }

    fn sandbox(&mut self, name: &str, bridge: &str, address: Ipv4Addr) -> Outcome<String> {
        let bridge = self.bridges.get(bridge).ok_or("no such bridge")?;
        let path = self.network.create_sandbox(name)?;
        let endpoint = Endpoint {
            bridge: bridge.name.clone(),
            interface: "eth0".to_owned(),
            address,
            prefix: bridge.prefix,
            gateway: Some(bridge.gateway),
            mac: MacAddress::of(address),
            priority: 0,
            address6: None,
            gateway6: None,
        };
        self.network.attach(name, &endpoint)?;
        Ok(path.display().to_string())
    }

    fn publish(&mut self, port: u16, backends: &[&str]) -> Outcome<()> {
        let parse = |backend: &&str| -> Outcome<(IpAddr, u16)> {
            let backend: SocketAddr = backend.parse()?;
            Ok((backend.ip(), backend.port()))
        };
        let backends = backends.iter().map(parse).collect::<Result<_, _>>()?;
        let publication = Publication { protocol: Protocol::Tcp, host_ip: None, host_port: port, backends };
        self.network.publish(PublicationKey(port.to_string()), vec![publication])?;
        Ok(())
    }
}

/// A service of a crowd.
fn member(number: u32, backends: u32) -> (Ipv4Addr, Vec<Ipv4Addr>) {
    let backend = |place| Ipv4Addr::from(u32::from(CROWD_BACKENDS) + number * backends + place);
    (Ipv4Addr::from(u32::from(CROWD) + number), (0..backends).map(backend).collect())
}
