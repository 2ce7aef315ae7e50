//! The kernel's side: carries out operations and looks at what is there. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::KernelError;
use crate::model::{Address6, Bridge, Endpoint, Transport};
use crate::names::Names;
use crate::netlink::{Messages, Socket, Subsystem};
use crate::plan::{Actual, FoundInterface, FoundLink, FoundSandbox, Operation, RuleChange, Services};
use crate::route::{Address, DefaultRoute, Link, Veth};
use crate::{conntrack, mesh, namespace, overlay, redirect, route, rules, tap};

/// Names the attempt that an error belongs to.
pub(crate) trait Attempt<T> {
    /// Turns the error of `action` into a [`KernelError`].
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|error| KernelError { action: action(), source: error.into() })
    }
}

/// Sockets that are kept, and the helper that visits sandboxes.
#[derive(Debug)]
pub(crate) struct Kernel {
    netns_dir: PathBuf,
    table: String,
    names: Names,
    route: Socket,
    netfilter: Socket,
    worker: namespace::Worker,
}

impl Kernel {
    /// Opens the sockets in the calling thread's network namespace. Changes nothing.
    pub(crate) fn open(netns_dir: PathBuf, instance: &str) -> Result<Kernel, KernelError> {
        Ok(Kernel {
            netns_dir,
            table: instance.to_owned(),
            names: Names::new(instance),
            route: Socket::open(Subsystem::Route).attempt(|| "open a route socket".to_owned())?,
            netfilter: Socket::open(Subsystem::Netfilter).attempt(|| "open a netfilter socket".to_owned())?,
            worker: namespace::Worker::start().attempt(|| "start the namespace helper".to_owned())?,
        })
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The file that a sandbox's namespace is bound to.
    pub(crate) fn sandbox_path(&self, sandbox: &str) -> PathBuf {
        self.netns_dir.join(sandbox)
    }

    /// Turns IPv4 forwarding on for the whole namespace, unless it is.
    pub(crate) fn enable_forwarding(&self) -> Result<(), KernelError> {
        set_flag("/proc/sys/net/ipv4/ip_forward")
    }

    /// Puts the rules of IPv6 for these bridges in the place of the old ones, atomically. If containers of one are to leave
    /// it, forwarding of IPv6 is turned on for the whole namespace, without making the host forget its routers.
    pub(crate) fn replace_rules6<'b>(
        &mut self,
        bridges: impl Iterator<Item = &'b Bridge> + Clone,
        services: &Services,
    ) -> Result<(), KernelError> {
        let replaced =
            self.netfilter.transact(rules::replace6(&self.table, bridges.clone(), services, loopback6()));
        if !bridges.clone().any(|bridge| bridge.gateway6.is_some()) {
            // A kernel without IPv6 has no rules of ours either.
            return Ok(());
        }
        replaced.attempt(|| format!("replace nft table {} of IPv6", self.table))?;
        // Rules first: nothing is forwarded that they would refuse.
        match bridges.into_iter().any(|bridge| bridge.gateway6.is_some() && !bridge.internal) {
            true => namespace::forward_ipv6().attempt(|| "forward IPv6".to_owned()),
            false => Ok(()),
        }
    }

    /// Makes sure of the table's unchanging part, atomically. Bridges and services in it stay.
    pub(crate) fn ensure_base_rules(&mut self) -> Result<(), KernelError> {
        self.netfilter
            .transact(rules::base(&self.table))
            .attempt(|| format!("prepare nft table {}", self.table))
    }

    /// What rules of others keep from working, a sentence each.
    pub(crate) fn obstacles(&mut self) -> Result<Vec<String>, KernelError> {
        rules::obstacles(&mut self.netfilter).attempt(|| "look at the nft chains of others".to_owned())
    }

    /// Makes all changes of rules, or none.
    pub(crate) fn change_rules(&mut self, changes: &[RuleChange]) -> Result<(), KernelError> {
        self.netfilter
            .transact(rules::change(&self.table, changes))
            .attempt(|| format!("change nft table {}", self.table))
    }

    /// Puts a new table in the place of the old one, atomically.
    pub(crate) fn replace_rules(
        &mut self,
        bridges: &[Bridge],
        services: &Services,
    ) -> Result<(), KernelError> {
        self.netfilter
            .transact(rules::replace(&self.table, bridges, services))
            .attempt(|| format!("replace nft table {}", self.table))
    }

    /// Forgets UDP flows to these fronts that nobody, or the wrong one, answers.
    pub(crate) fn forget_stale_flows(&mut self, services: &Services) -> Result<(), KernelError> {
        let doing = || "forget stale UDP flows".to_owned();
        let local = route::addresses(&mut self.route).attempt(doing)?;
        let mut local: BTreeSet<IpAddr> = local.iter().map(|it| it.address.into()).collect();
        let local6 = route::addresses6(&mut self.route).attempt(doing)?;
        local.extend(local6.iter().map(|(_, it)| IpAddr::from(it.address)));
        conntrack::forget_stale(&mut self.netfilter, services, &local).attempt(doing)
    }

    /// Carries out one operation.
    pub(crate) fn apply(&mut self, operation: &Operation) -> Result<(), KernelError> {
        self.carry_out(operation).attempt(|| operation.to_string())
    }

    fn carry_out(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::CreateBridge { bridge, mac } => {
                let alias = self.names.alias();
                self.transact(|messages, _| {
                    route::create_bridge(messages, bridge, *mac, &alias);
                    Ok(())
                })
            }
            Operation::RemoveAddress { link, address, prefix } => self.transact(|messages, socket| {
                let link = index_of(socket, link)?;
                route::delete_address(messages, Address { link, address: *address, prefix: *prefix });
                Ok(())
            }),
            Operation::AddAddress { link, address, prefix } => self.transact(|messages, socket| {
                route::add_address(messages, index_of(socket, link)?, *address, *prefix);
                Ok(())
            }),
            Operation::SetAddresses6 { link, addresses, stale } => {
                if !addresses.is_empty() {
                    namespace::enable_ipv6(link)?;
                }
                self.transact(|messages, socket| {
                    let link = index_of(socket, link)?;
                    stale.iter().for_each(|it| route::delete_address6(messages, link, *it));
                    if let Some((first, others)) = addresses.split_first() {
                        route::set_address6(messages, link, *first);
                        others.iter().for_each(|it| route::set_silent_address6(messages, link, *it));
                    }
                    Ok(())
                })
            }
            Operation::RaiseBridge { bridge, mtu } => {
                self.transact(|messages, _| {
                    route::bring_up(messages, bridge, Some(*mtu));
                    Ok(())
                })?;
                // Neighbours hear at once of another hardware address. Where settings cannot be written, they find out.
                let _ = set_flag(&format!("/proc/sys/net/ipv4/conf/{bridge}/arp_notify"));
                set_flag(&local_clients_file(bridge)).map_err(|error| error.source)
            }
            Operation::AnswerLoopback6 { bridge } => {
                let allowed = self.transact(|messages, socket| {
                    route::answer_loopback6(messages, index_of(socket, bridge)?);
                    Ok(())
                });
                let is_there = |error: &io::Error| error.raw_os_error() == Some(libc::EEXIST);
                allowed.or_else(|error| if is_there(&error) { Ok(()) } else { Err(error) })
            }
            Operation::SetMac { link, mac } => self.transact(|messages, _| {
                route::set_mac(messages, link, *mac);
                Ok(())
            }),
            Operation::CreateOverlay { link, bridge, vxlan } => {
                let bridge = index_of(&mut self.route, bridge)?;
                let alias = self.names.alias();
                overlay::create(&mut self.route, link, vxlan, bridge, &alias).inspect_err(|error| {
                    // Undo what was made of it; one that another interface keeps out was not made.
                    if error.raw_os_error() != Some(libc::EEXIST) {
                        let _ = self.delete_links(std::slice::from_ref(link));
                    }
                })
            }
            Operation::CreateTap { link, bridge, mtu } => {
                let bridge = index_of(&mut self.route, bridge)?;
                tap::create(link)?;
                let alias = self.names.alias();
                overlay::adopt_tap(&mut self.route, link, *mtu, bridge, &alias).inspect_err(|_| {
                    // Undo; the error that matters is the first one.
                    let _ = self.delete_links(std::slice::from_ref(link));
                })
            }
            Operation::ConnectOverlay { transport, link, bridge, mtu } => {
                let bridge = index_of(&mut self.route, bridge)?;
                overlay::connect(&mut self.route, *transport, link, *mtu, bridge)
            }
            Operation::SetPeers { transport, link, bridge, peers } => {
                let links = (index_of(&mut self.route, link)?, index_of(&mut self.route, bridge)?);
                let subnet6 = self.subnet6(links.1)?;
                overlay::set_peers(&mut self.route, *transport, links, peers, subnet6)
            }
            Operation::RemovePeers { transport, link, bridge, addresses } => {
                let links = (index_of(&mut self.route, link)?, index_of(&mut self.route, bridge)?);
                let subnet6 = self.subnet6(links.1)?;
                overlay::remove_peers(&mut self.route, *transport, links, addresses, subnet6)
            }
            Operation::ForgetNeighbours { bridge, addresses } => {
                let bridge = index_of(&mut self.route, bridge)?;
                let subnet6 = self.subnet6(bridge)?;
                overlay::forget_neighbours(&mut self.route, bridge, addresses, subnet6)
            }
            Operation::DeleteLink { link } => self.delete_links(std::slice::from_ref(link)),
            Operation::CreateSandbox { sandbox } => self.create_sandbox(sandbox),
            Operation::RemoveSandbox { sandbox } => self.remove_sandbox(sandbox),
            Operation::Attach { sandbox, endpoint } => self.attach(sandbox, endpoint),
            Operation::Connect { link, bridge } => self.transact(|messages, socket| {
                let bridge = index_of(socket, bridge)?;
                route::connect(messages, link, bridge);
                Ok(())
            }),
            Operation::Configure { sandbox, endpoint } => self.configure(sandbox, endpoint),
            Operation::AnswerSenders { sandbox, interface, network, network6 } => {
                self.change_rules_inside(sandbox, mesh::answer_senders(interface, *network, *network6))
            }
            Operation::ForgetSenders { sandbox, interface } => {
                mesh::forget_senders(&mut self.netfilter_of(sandbox)?, interface)
            }
            Operation::Resize { sandbox, interface, mtu } => self.resize(sandbox, interface, *mtu),
        }
    }

    fn transact(
        &mut self,
        fill: impl FnOnce(&mut Messages, &mut Socket) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut messages = Messages::default();
        fill(&mut messages, &mut self.route)?;
        self.route.transact(messages)
    }

    /// Deletes links; those that are gone already do not matter.
    fn delete_links(&mut self, links: &[String]) -> io::Result<()> {
        for link in links {
            let deleted = self.transact(|messages, _| {
                route::delete_link(messages, link);
                Ok(())
            });
            match deleted {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn create_sandbox(&mut self, sandbox: &str) -> io::Result<()> {
        let path = self.sandbox_path(sandbox);
        namespace::place(&path)?;
        self.worker.create(path.clone()).inspect_err(|_| {
            // The file is of no use without a namespace; the error that matters is the first one.
            let _ = namespace::forget(&path);
        })
    }

    /// The host ends are disconnected at once, so that nobody answers any more for an address that another container
    /// may get. Deleting them takes the kernel 15 to 30 ms each: it does that by itself when the namespace ends, many
    /// at a time.
    fn remove_sandbox(&mut self, sandbox: &str) -> io::Result<()> {
        let path = self.sandbox_path(sandbox);
        let disconnected = namespace::open(&path).and_then(|found| match found {
            Some(namespace) => self.disconnect_all(sandbox, namespace),
            None => Ok(()),
        });
        namespace::forget(&path).and(disconnected)
    }

    fn disconnect_all(&mut self, sandbox: &str, namespace: OwnedFd) -> io::Result<()> {
        let inside = self.worker.inside(namespace, route::links)?;
        inside
            .iter()
            .filter(|link| link.kind == "veth")
            .map(|link| self.disconnect(&self.names.host_end(sandbox, &link.name)))
            .fold(Ok(()), Result::and)
    }

    fn disconnect(&mut self, host_end: &str) -> io::Result<()> {
        let Some(link) = route::link(&mut self.route, host_end)? else { return Ok(()) };
        let dying = self.names.dying_end(link.index);
        let disconnected = self.transact(|messages, _| {
            route::disconnect(messages, link.index, &dying);
            Ok(())
        });
        match disconnected {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    fn attach(&mut self, sandbox: &str, endpoint: &Endpoint) -> io::Result<()> {
        let host_end = self.names.host_end(sandbox, &endpoint.interface);
        match self.create_veth(sandbox, endpoint, &host_end) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.delete_links(std::slice::from_ref(&host_end))?;
                self.create_veth(sandbox, endpoint, &host_end)?;
            }
            other => other?,
        }
        self.configure(sandbox, endpoint).inspect_err(|_| {
            // Undo; the error that matters is the first one, and reconciliation would find the rest.
            let _ = self.delete_links(std::slice::from_ref(&host_end));
        })
    }

    fn create_veth(&mut self, sandbox: &str, endpoint: &Endpoint, host_end: &str) -> io::Result<()> {
        let namespace = self.open_sandbox(sandbox)?;
        self.transact(|messages, socket| {
            let bridge = found(route::link(socket, &endpoint.bridge)?, &endpoint.bridge)?;
            let veth = Veth {
                host_name: host_end,
                mtu: bridge.mtu,
                peer_name: &endpoint.interface,
                peer_mac: endpoint.mac,
                peer_namespace: namespace.as_fd(),
            };
            route::create_veth(messages, &veth);
            route::connect(messages, host_end, bridge.index);
            Ok(())
        })
    }

    /// Adds the address and the route that an interface lacks.
    fn configure(&mut self, sandbox: &str, endpoint: &Endpoint) -> io::Result<()> {
        let namespace = self.open_sandbox(sandbox)?;
        let endpoint = endpoint.clone();
        self.worker.inside(namespace, move |socket| configure_inside(socket, &endpoint))
    }

    fn change_rules_inside(&self, sandbox: &str, rules: Messages) -> io::Result<()> {
        self.netfilter_of(sandbox)?.transact(rules)
    }

    /// An IPv6 address of a bridge that has one: those of its network are alike but for the last 32 bits.
    fn subnet6(&mut self, bridge: u32) -> io::Result<Option<Ipv6Addr>> {
        let addresses = route::addresses6(&mut self.route)?;
        Ok(addresses.iter().find(|(link, _)| *link == bridge).map(|(_, found)| found.address))
    }

    fn resize(&mut self, sandbox: &str, interface: &str, mtu: u32) -> io::Result<()> {
        let host_end = self.names.host_end(sandbox, interface);
        self.transact(|messages, _| {
            route::set_mtu(messages, &host_end, mtu);
            Ok(())
        })?;
        let (namespace, interface) = (self.open_sandbox(sandbox)?, interface.to_owned());
        self.worker.inside(namespace, move |socket| {
            let mut messages = Messages::default();
            route::set_mtu(&mut messages, &interface, mtu);
            socket.transact(messages)
        })
    }

    fn open_sandbox(&self, sandbox: &str) -> io::Result<OwnedFd> {
        namespace::open(&self.sandbox_path(sandbox))?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no sandbox {sandbox}")))
    }

    /// Has a sandbox's questions for names go to that port.
    pub(crate) fn redirect_names(&self, sandbox: &str, port: u16) -> Result<(), KernelError> {
        let rules = redirect::rules(&self.names.redirection(), port);
        let work = move |_: &mut Socket| Socket::open(Subsystem::Netfilter)?.transact(rules);
        let redirected = self.open_sandbox(sandbox).and_then(|namespace| self.worker.inside(namespace, work));
        redirected.attempt(|| format!("bring the questions of sandbox {sandbox} to their server"))
    }

    /// Opens a netfilter socket in a sandbox.
    pub(crate) fn netfilter_of(&self, sandbox: &str) -> io::Result<Socket> {
        self.worker.netfilter(self.open_sandbox(sandbox)?)
    }

    /// Looks at one link of the host.
    pub(crate) fn observe_link(&mut self, name: &str) -> Result<Option<FoundLink>, KernelError> {
        let doing = || format!("look at interface {name}");
        let Some(link) = route::link(&mut self.route, name).attempt(doing)? else { return Ok(None) };
        let addresses = route::addresses(&mut self.route).attempt(doing)?;
        let addresses6 = route::addresses6(&mut self.route).attempt(doing)?;
        Ok(Some(FoundLink {
            addresses6: addresses6_of(&addresses6, link.index),
            local_clients6: route::loopback_links6(&mut self.route).attempt(doing)?.contains(&link.index),
            ..self.found_link(&link, &addresses, None)
        }))
    }

    /// Looks at all links of the host and into all sandboxes.
    pub(crate) fn observe(&mut self) -> Result<Actual, KernelError> {
        Ok(Actual { links: self.observe_links()?, sandboxes: self.observe_sandboxes()? })
    }

    /// Looks at all links of the host.
    pub(crate) fn observe_links(&mut self) -> Result<BTreeMap<String, FoundLink>, KernelError> {
        let doing = || "look at the host's interfaces".to_owned();
        let links = route::links(&mut self.route).attempt(doing)?;
        let addresses = route::addresses(&mut self.route).attempt(doing)?;
        let names: BTreeMap<u32, &String> = links.iter().map(|link| (link.index, &link.name)).collect();
        let mut found: BTreeMap<String, FoundLink> = links
            .iter()
            .map(|link| {
                let master = link.master.and_then(|index| names.get(&index)).map(|name| (*name).clone());
                (link.name.clone(), self.found_link(link, &addresses, master))
            })
            .collect();
        let addresses6 = route::addresses6(&mut self.route).attempt(doing)?;
        let loopback6 = route::loopback_links6(&mut self.route).attempt(doing)?;
        let tables = overlay::Tables::read(&mut self.route).attempt(doing)?;
        for link in &links {
            let Some(seen) = found.get_mut(&link.name).filter(|seen| seen.ours) else { continue };
            seen.addresses6 = addresses6_of(&addresses6, link.index);
            seen.local_clients6 = loopback6.contains(&link.index);
            seen.neighbours = tables.neighbours(link.index);
            let links = (link.index, link.master.unwrap_or(0));
            seen.vxlan = link.vxlan.map(|vxlan| (vxlan, tables.peers(Transport::Vxlan, links)));
            seen.tap = (link.kind == "tun").then(|| tables.peers(Transport::Process, links));
        }
        Ok(found)
    }

    fn found_link(&self, link: &Link, addresses: &[Address], master: Option<String>) -> FoundLink {
        let local_clients = link.kind == "bridge"
            && fs::read(local_clients_file(&link.name)).is_ok_and(|value| value.starts_with(b"1"));
        FoundLink {
            kind: link.kind.clone(),
            up: link.up,
            mtu: link.mtu,
            master,
            ours: link.alias == self.names.alias(),
            local_clients,
            local_clients6: false,
            addresses: addresses_of(addresses, link.index),
            addresses6: BTreeSet::new(),
            mac: link.mac,
            vxlan: None,
            tap: None,
            neighbours: BTreeSet::new(),
        }
    }

    fn observe_sandbox(&self, path: &Path) -> io::Result<FoundSandbox> {
        Ok(match namespace::open(path)? {
            None => FoundSandbox::Empty,
            Some(namespace) => FoundSandbox::Namespace(self.worker.inside(namespace, observe_inside)?),
        })
    }

    fn observe_sandboxes(&self) -> Result<BTreeMap<String, FoundSandbox>, KernelError> {
        let listing = || format!("list {}", self.netns_dir.display());
        let mut sandboxes = BTreeMap::new();
        for entry in fs::read_dir(&self.netns_dir).attempt(listing)? {
            let entry = entry.attempt(listing)?;
            // A name that is no text is none of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let sandbox = self.observe_sandbox(&entry.path()).unwrap_or_else(|error| {
                FoundSandbox::Unseen(format!("cannot look into sandbox {name}: {error}"))
            });
            sandboxes.insert(name, sandbox);
        }
        Ok(sandboxes)
    }
}

fn configure_inside(socket: &mut Socket, endpoint: &Endpoint) -> io::Result<()> {
    let link = found(route::link(socket, &endpoint.interface)?, &endpoint.interface)?;
    let mut messages = Messages::default();
    if !link.up {
        route::bring_up(&mut messages, &endpoint.interface, None);
    }
    route::add_address(&mut messages, link.index, endpoint.address, endpoint.prefix);
    if let Some(address) = endpoint.address6 {
        namespace::enable_ipv6(&endpoint.interface)?;
        route::set_address6(&mut messages, link.index, address);
    }
    if let Some(gateway) = endpoint.gateway {
        route::set_default_route(&mut messages, link.index, gateway);
    }
    if let Some(gateway) = endpoint.gateway6 {
        route::set_default_route6(&mut messages, link.index, gateway);
    }
    match socket.transact(messages) {
        // A half-made interface has some of it. The kernel has carried out the other messages all the same.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => verify_inside(socket, endpoint),
        other => other,
    }
}

/// Whether everything is there after some of it was there before.
fn verify_inside(socket: &mut Socket, endpoint: &Endpoint) -> io::Result<()> {
    let interfaces = observe_inside(socket)?;
    let complete =
        interfaces.get(&endpoint.interface).is_some_and(|it| crate::plan::is_configured(it, endpoint));
    complete.then_some(()).ok_or_else(|| io::Error::from_raw_os_error(libc::EEXIST))
}

fn observe_inside(socket: &mut Socket) -> io::Result<BTreeMap<String, FoundInterface>> {
    let addresses = route::addresses(socket)?;
    let routes: Vec<DefaultRoute> = route::default_routes(socket)?;
    let (addresses6, routes6) = (route::addresses6(socket)?, route::default_routes6(socket)?);
    let answering = mesh::answering(&mut Socket::open(Subsystem::Netfilter)?)?;
    let interfaces = route::links(socket)?.into_iter().map(|link| {
        let gateways = routes.iter().filter(|it| it.link == link.index).map(|it| it.gateway).collect();
        let addresses = addresses_of(&addresses, link.index);
        let interface = FoundInterface {
            up: link.up,
            mtu: link.mtu,
            addresses,
            gateways,
            addresses6: addresses6_of(&addresses6, link.index),
            gateways6: routes6.iter().filter(|(index, _)| *index == link.index).map(|it| it.1).collect(),
            answers_senders: answering.contains(&link.name),
        };
        (link.name, interface)
    });
    Ok(interfaces.collect())
}

fn addresses_of(addresses: &[Address], link: u32) -> BTreeSet<(Ipv4Addr, u8)> {
    addresses.iter().filter(|it| it.link == link).map(|it| (it.address, it.prefix)).collect()
}

fn addresses6_of(addresses: &[(u32, Address6)], link: u32) -> BTreeSet<Address6> {
    addresses.iter().filter(|(index, _)| *index == link).map(|(_, address)| *address).collect()
}

fn found(link: Option<Link>, name: &str) -> io::Result<Link> {
    link.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}")))
}

fn index_of(socket: &mut Socket, name: &str) -> io::Result<u32> {
    Ok(found(route::link(socket, name)?, name)?.index)
}

/// What the kernel does with bridged frames decides whether [::1] can be answered.
fn loopback6() -> rules::Loopback6 {
    match fs::read("/proc/sys/net/bridge/bridge-nf-call-ip6tables") {
        Ok(value) if value.starts_with(b"1") => rules::Loopback6::Refused,
        _ => rules::Loopback6::Answered,
    }
}

fn local_clients_file(bridge: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet")
}

/// Sets a kernel setting to 1 unless it is: a system that mounts them read-only may have prepared it.
fn set_flag(file: &str) -> Result<(), KernelError> {
    let doing = || format!("set {file} to 1");
    if fs::read(file).attempt(doing)?.starts_with(b"1") {
        return Ok(());
    }
    fs::write(file, "1").attempt(doing)
}
