//! The one handle that callers hold: checks, plans, applies, remembers.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::attachments::Attachments;
use crate::error::{KernelError, LinkError, OpenError, PublishError};
use crate::kernel::Kernel;
use crate::model::{Bridge, Config, Desired, Endpoint, Peers, Publication, PublicationKey, Report};
use crate::names;
use crate::namespace;
use crate::plan::{self, Backend, FoundSandbox, Front, Operation, RuleChange, Services};
use crate::ports::{self, Ports};
use crate::reservation::Reservation;
use crate::vip::Virtual;

/// The network of one daemon, in the network namespace of the thread that opened it.
///
/// Dropping it changes nothing but the reservations of ports: containers stay connected and published.
#[derive(Debug)]
pub struct Network {
    kernel: Kernel,
    /// The bridges that have rules.
    bridges: BTreeMap<String, Bridge>,
    /// What is on other nodes, of bridges that have peers.
    peers: BTreeMap<String, Peers>,
    attachments: Attachments,
    services: Virtual,
    ports: Ports,
}

impl Network {
    /// Opens the kernel's sockets, turns IPv4 forwarding on and puts the unchanging part of the rules in place.
    ///
    /// What a predecessor left is not disturbed: bridges, sandboxes and published ports work on. Call
    /// [`Network::reconcile`] before anything else, so that this `Network` knows of them.
    pub fn open(config: Config) -> Result<Network, OpenError> {
        if !names::is_instance(&config.instance) {
            return Err(OpenError::Instance(config.instance));
        }
        fs::create_dir_all(&config.netns_dir)
            .map_err(|source| OpenError::Directory { path: config.netns_dir.clone(), source })?;
        let services = Virtual::new(&config.instance);
        let mut kernel = Kernel::open(config.netns_dir, &config.instance)?;
        kernel.enable_forwarding()?;
        if kernel.ensure_base_rules().is_err() {
            // A predecessor of another version laid the table out differently, or it is not ours at all.
            kernel.replace_rules(&[], &Services::new())?;
        }
        Ok(Network {
            kernel,
            bridges: BTreeMap::new(),
            peers: BTreeMap::new(),
            attachments: Attachments::default(),
            services,
            ports: Ports::default(),
        })
    }

    /// Makes the bridge be there as described, up, with its address and rules. Idempotent. A bridge of that name that
    /// somebody else made is used, and keeps what further addresses it has. The peers of one with an overlay stay.
    pub fn ensure_bridge(&mut self, bridge: &Bridge) -> Result<(), LinkError> {
        check_bridge(bridge)?;
        let found = self.kernel.observe_link(&bridge.name)?;
        if found.as_ref().is_some_and(|link| link.kind != "bridge") {
            return Err(LinkError::NotABridge(bridge.name.clone()));
        }
        let carrier = self.carrier_mtu(bridge)?;
        for operation in plan::plan_bridge(bridge, found.as_ref(), carrier) {
            self.kernel.apply(&operation)?;
        }
        let mtu = plan::bridge_mtu(bridge, carrier);
        if found.is_some_and(|link| link.mtu != mtu) {
            self.resize_endpoints(&bridge.name, mtu)?;
        }
        let known = self.bridges.insert(bridge.name.clone(), bridge.clone());
        let known_overlay = known.as_ref().and_then(|known| known.overlay);
        let had_ipv6 = known.as_ref().is_some_and(|known| known.gateway6.is_some());
        if known.as_ref() == Some(bridge) {
            return Ok(());
        }
        let mut changes: Vec<RuleChange> = known.clone().map(RuleChange::RemoveBridge).into_iter().collect();
        changes.push(RuleChange::AddBridge(bridge.clone()));
        let changed = self.commit(&changes);
        if changed.is_err() {
            // Nothing has changed in the rules, so nothing has in what is known of them.
            self.bridges.remove(&bridge.name);
            self.bridges.extend(known.map(|known| (known.name.clone(), known)));
        }
        changed?;
        if had_ipv6 || bridge.gateway6.is_some() {
            self.services.note_subnets6(self.bridges.values());
            self.kernel.replace_rules6(self.bridges.values(), &self.ports.services())?;
        }
        if known_overlay != bridge.overlay {
            let peers = self.peers.get(&bridge.name).cloned().unwrap_or_default();
            self.apply_overlay(bridge, &peers)?;
        }
        Ok(())
    }

    fn resize_endpoints(&mut self, bridge: &str, mtu: u32) -> Result<(), KernelError> {
        for sandbox in self.attachments.on_bridge(bridge) {
            let endpoints = self.attachments.endpoints(&sandbox).filter(|it| it.bridge == bridge);
            let interfaces: Vec<String> = endpoints.map(|it| it.interface.clone()).collect();
            for interface in interfaces {
                self.kernel.apply(&Operation::Resize { sandbox: sandbox.clone(), interface, mtu })?;
            }
        }
        Ok(())
    }

    /// The name of the device that a bridge with an overlay has while it has peers: for the process that carries its
    /// packets, where one does.
    pub fn overlay_device(&self, bridge: &str) -> String {
        self.kernel.names().overlay(bridge)
    }

    /// Makes `peers` all that is known of a bridge's addresses on other nodes. The bridge has an overlay.
    pub fn set_peers(&mut self, bridge: &str, peers: &Peers) -> Result<(), LinkError> {
        let known = self.overlay_bridge(bridge)?;
        self.peers.remove(bridge);
        self.note_peers(bridge, peers, &BTreeSet::new());
        self.apply_overlay(&known, peers)
    }

    /// Changes what is known of a bridge's addresses on other nodes: `update` are new or on another node than before,
    /// `remove` are on other nodes no longer. The cost depends on the size of the change alone, but for the first peer,
    /// which brings the device, and the last one, which takes it away. After an error some of it has happened;
    /// [`Network::set_peers`] makes it certain again.
    pub fn change_peers(
        &mut self,
        bridge: &str,
        update: &Peers,
        remove: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), LinkError> {
        let known = self.overlay_bridge(bridge)?;
        let has_peers = |network: &Network| network.peers.contains_key(bridge);
        let was_reached = has_peers(self);
        self.note_peers(bridge, update, remove);
        if !was_reached || !has_peers(self) {
            let peers = self.peers.get(bridge).cloned().unwrap_or_default();
            return self.apply_overlay(&known, &peers);
        }
        let (link, bridge) = (self.kernel.names().overlay(bridge), bridge.to_owned());
        let transport = known.overlay.map(|overlay| overlay.transport).unwrap_or_default();
        if !remove.is_empty() {
            let (link, bridge, addresses) = (link.clone(), bridge.clone(), remove.clone());
            self.kernel.apply(&Operation::RemovePeers { transport, link, bridge, addresses })?;
        }
        if !update.is_empty() {
            self.kernel.apply(&Operation::SetPeers { transport, link, bridge, peers: update.clone() })?;
        }
        Ok(())
    }

    fn overlay_bridge(&self, bridge: &str) -> Result<Bridge, LinkError> {
        let known = self.bridges.get(bridge).filter(|known| known.overlay.is_some());
        known.cloned().ok_or_else(|| LinkError::NoOverlay(bridge.to_owned()))
    }

    fn note_peers(&mut self, bridge: &str, update: &Peers, remove: &BTreeSet<Ipv4Addr>) {
        let known = self.peers.entry(bridge.to_owned()).or_default();
        known.retain(|address, _| !remove.contains(address));
        known.extend(update);
        if known.is_empty() {
            self.peers.remove(bridge);
        }
    }

    fn apply_overlay(&mut self, bridge: &Bridge, peers: &Peers) -> Result<(), LinkError> {
        let links = self.kernel.observe_links()?;
        for operation in plan::plan_overlay(self.kernel.names(), bridge, peers, &links) {
            self.kernel.apply(&operation)?;
        }
        Ok(())
    }

    fn carrier_mtu(&mut self, bridge: &Bridge) -> Result<Option<u32>, KernelError> {
        if bridge.overlay.is_none() {
            return Ok(None);
        }
        Ok(plan::carrier_mtu(bridge, &self.kernel.observe_links()?))
    }

    /// Removes a bridge and its rules. Idempotent. A bridge that this instance did not create loses its rules and
    /// stays otherwise.
    pub fn remove_bridge(&mut self, name: &str) -> Result<(), LinkError> {
        names::check_interface(name)?;
        if let Some(bridge) = self.bridges.remove(name) {
            let change = RuleChange::RemoveBridge(bridge.clone());
            if let Err(error) = self.commit(&[change]) {
                self.bridges.insert(name.to_owned(), bridge);
                return Err(error.into());
            }
            if bridge.gateway6.is_some() {
                self.kernel.replace_rules6(self.bridges.values(), &self.ports.services())?;
            }
        }
        self.peers.remove(name);
        let overlay = self.kernel.names().overlay(name);
        if self
            .kernel
            .observe_link(&overlay)?
            .is_some_and(|link| matches!(link.kind.as_str(), "vxlan" | "tun") && link.ours)
        {
            self.kernel.apply(&Operation::DeleteLink { link: overlay })?;
        }
        if self.kernel.observe_link(name)?.is_some_and(|link| link.kind == "bridge" && link.ours) {
            self.kernel.apply(&Operation::DeleteLink { link: name.to_owned() })?;
        }
        Ok(())
    }

    /// Creates a network namespace with its loopback up, and returns the path under which it can be entered.
    /// A sandbox that exists already is kept as it is.
    pub fn create_sandbox(&mut self, sandbox: &str) -> Result<PathBuf, LinkError> {
        let path = self.checked_path(sandbox)?;
        if !self.is_sandbox(sandbox)? {
            self.kernel.apply(&Operation::CreateSandbox { sandbox: sandbox.to_owned() })?;
        }
        Ok(path)
    }

    /// Removes a sandbox with all interfaces in it, even while processes live in it. Idempotent.
    pub fn remove_sandbox(&mut self, sandbox: &str) -> Result<(), LinkError> {
        self.checked_path(sandbox)?;
        self.services.close(sandbox);
        self.attachments.remove_sandbox(sandbox);
        Ok(self.kernel.apply(&Operation::RemoveSandbox { sandbox: sandbox.to_owned() })?)
    }

    /// Gives a sandbox, running or not, an interface on a bridge, up, with address, routes and hardware address, the
    /// bridge's size of packets and its services. An interface that was attached under that name before is replaced.
    pub fn attach(&mut self, sandbox: &str, endpoint: &Endpoint) -> Result<(), LinkError> {
        self.checked_path(sandbox)?;
        names::check_interface(&endpoint.interface)?;
        names::check_interface(&endpoint.bridge)?;
        check_prefix(endpoint.prefix)?;
        let replaced = self.attachments.remove(sandbox, &endpoint.interface);
        self.attachments.add(sandbox, endpoint.clone());
        let routed = self.attachments.routed(sandbox, endpoint);
        let operation = Operation::Attach { sandbox: sandbox.to_owned(), endpoint: routed };
        let attached = match self.kernel.apply(&operation) {
            Ok(()) => self
                .answer_senders(sandbox, endpoint)
                .and_then(|()| Ok(self.settle_sandbox(sandbox, replaced)?)),
            // Looking for the reason only now spares every successful call the questions.
            Err(_) if !self.is_sandbox(sandbox)? => Err(LinkError::NoSandbox(sandbox.to_owned())),
            Err(_) if self.kernel.observe_link(&endpoint.bridge)?.is_none() => {
                Err(LinkError::NoBridge(endpoint.bridge.clone()))
            }
            Err(error) => Err(error.into()),
        };
        if attached.is_err() {
            self.attachments.remove(sandbox, &endpoint.interface);
            // Undo; the error that matters is the first one, and reconciliation would find the rest.
            let link = self.kernel.names().host_end(sandbox, &endpoint.interface);
            let _ = self.kernel.apply(&Operation::DeleteLink { link });
        }
        attached
    }

    /// An interface that published ports lead to and that could not answer is taken away again.
    fn answer_senders(&mut self, sandbox: &str, endpoint: &Endpoint) -> Result<(), LinkError> {
        let bridge = self.bridges.get(&endpoint.bridge);
        let operation = bridge.and_then(|bridge| plan::answer_senders(sandbox, endpoint, bridge));
        if let Some(operation) = operation {
            self.kernel.apply(&operation).inspect_err(|_| {
                let link = self.kernel.names().host_end(sandbox, &endpoint.interface);
                // The error that matters is the first one, and reconciliation would find the rest.
                let _ = self.kernel.apply(&Operation::DeleteLink { link });
            })?;
        }
        Ok(())
    }

    /// Takes an interface away from a sandbox, running or not; the default route passes to the next interface that has a
    /// gateway. Idempotent.
    pub fn detach(&mut self, sandbox: &str, interface: &str) -> Result<(), LinkError> {
        self.checked_path(sandbox)?;
        names::check_interface(interface)?;
        let link = self.kernel.names().host_end(sandbox, interface);
        if self.is_sandbox(sandbox)? {
            let (sandbox, interface) = (sandbox.to_owned(), interface.to_owned());
            self.kernel.apply(&Operation::ForgetSenders { sandbox, interface })?;
        }
        self.kernel.apply(&Operation::DeleteLink { link })?;
        match self.attachments.remove(sandbox, interface) {
            Some(gone) => Ok(self.settle_sandbox(sandbox, Some(gone))?),
            None => Ok(()),
        }
    }

    /// Has what the sandbox's processes ask at 127.0.0.11, port 53, UDP and TCP, go to another port of that address, where their
    /// server is. It holds for as long as the sandbox is there. Idempotent.
    pub fn redirect_names(&mut self, sandbox: &str, port: u16) -> Result<(), LinkError> {
        self.checked_path(sandbox)?;
        match self.kernel.redirect_names(sandbox, port) {
            Err(_) if !self.is_sandbox(sandbox)? => Err(LinkError::NoSandbox(sandbox.to_owned())),
            redirected => {
                redirected?;
                Ok(self.note_own_rules(sandbox)?)
            }
        }
    }

    /// Makes `ports` the publications of `key`, in the place of those it had, in one atomic change of the rules.
    /// Returns them with every `host_port` filled in. On an error nothing has changed, but for
    /// [`PublishError::StaleFlows`].
    ///
    /// Connections to backends that stay are not disturbed; what is known of UDP flows to others is forgotten, so that
    /// their next packet is answered by a backend that is there.
    pub fn publish(
        &mut self,
        key: PublicationKey,
        ports: Vec<Publication>,
    ) -> Result<Vec<Publication>, PublishError> {
        let wanted = ports.iter().map(checked_fronts).collect::<Result<Vec<_>, _>>()?;
        let taken = self.ports.take(&key, &wanted)?;
        let after: Services = taken.services().clone();
        let before = self.ports.replace(&key, taken);
        let changed = self.commit(&plan::plan_services(before.services(), &after));
        if let Err(error) = changed {
            self.ports.replace(&key, before);
            self.ports.regain(&key, Reservation::take);
            return Err(error.into());
        }
        let stale = udp_changes(before.services(), &after);
        self.ports.regain(&key, Reservation::take_at_once);
        // Only now may other processes have the ports that are no longer wanted.
        drop(before);
        if !stale.is_empty() {
            self.kernel.forget_stale_flows(&stale).map_err(PublishError::StaleFlows)?;
        }
        Ok(ports::filled_in(ports, &self.ports, &key))
    }

    /// Withdraws all publications of `key`. Idempotent.
    pub fn unpublish(&mut self, key: &PublicationKey) -> Result<(), KernelError> {
        match self.publish(key.clone(), Vec::new()) {
            Ok(_) => Ok(()),
            Err(PublishError::Kernel(error) | PublishError::StaleFlows(error)) => Err(error),
            Err(error) => Err(KernelError {
                action: format!("withdraw the ports of {key}"),
                source: io::Error::other(error),
            }),
        }
    }

    /// At daemon start: makes the kernel hold `desired` and nothing else of ours. Sandboxes that are right are not
    /// touched, and established connections survive. What fails is reported and does not stop the rest; an error means
    /// that the kernel could not be looked at or that the rules could not be written.
    pub fn reconcile(&mut self, desired: &Desired) -> Result<Report, KernelError> {
        let mut report = Report::default();
        let valid = valid(desired, &mut report);
        self.reconcile_links(&valid, &mut report)?;
        self.attachments = Attachments::of(&valid.sandboxes);
        self.bridges = desired
            .bridges
            .iter()
            .filter(|bridge| check_bridge(bridge).is_ok())
            .map(|bridge| (bridge.name.clone(), bridge.clone()))
            .collect();
        let overlays = self.bridges.values().filter(|bridge| bridge.overlay.is_some());
        let peers = overlays.filter_map(|bridge| desired.peers.get_key_value(&bridge.name));
        self.peers = peers.map(|(bridge, peers)| (bridge.clone(), peers.clone())).collect();
        self.ports = Ports::default();
        for (key, publications) in &desired.publications {
            self.adopt(key, publications, &mut report);
        }
        self.replace_rules()?;
        self.services.note_subnets6(self.bridges.values());
        self.reconcile_services(&desired.services, &mut report);
        let udp = udp_changes(&Services::new(), &self.ports.services());
        if !udp.is_empty() {
            self.kernel.forget_stale_flows(&udp)?;
        }
        report.warnings = self.kernel.obstacles()?;
        Ok(report)
    }

    fn reconcile_links(&mut self, desired: &Desired, report: &mut Report) -> Result<(), KernelError> {
        let actual = self.kernel.observe()?;
        report.failed.extend(actual.sandboxes.values().filter_map(|sandbox| match sandbox {
            FoundSandbox::Unseen(why) => Some(why.clone()),
            FoundSandbox::Empty | FoundSandbox::Namespace(_) => None,
        }));
        for operation in plan::plan(self.kernel.names(), desired, &actual) {
            match self.kernel.apply(&operation) {
                Err(error) => report.failed.push(format!("{error}: {}", error.source)),
                Ok(()) => match operation {
                    Operation::DeleteLink { .. } | Operation::RemoveSandbox { .. } => {
                        report.removed.push(operation.to_string());
                    }
                    _ => report.repaired.push(operation.to_string()),
                },
            }
        }
        Ok(())
    }

    /// Takes over publications that a predecessor made: they are served even where their reservation was lost.
    fn adopt(&mut self, key: &PublicationKey, publications: &[Publication], report: &mut Report) {
        for publication in publications {
            match checked_fronts(publication) {
                Ok(wanted) => {
                    report
                        .contested
                        .extend(self.ports.adopt(key, wanted).err().map(|why| (key.clone(), why)));
                }
                Err(error) => report.contested.push((key.clone(), error)),
            }
        }
    }

    /// Makes the changes in one transaction. When the table is not what it should be, because somebody flushed it, the
    /// whole of what is known is written anew.
    fn commit(&mut self, changes: &[RuleChange]) -> Result<(), KernelError> {
        if changes.is_empty() || self.kernel.change_rules(changes).is_ok() {
            return Ok(());
        }
        self.replace_rules()
    }

    fn replace_rules(&mut self) -> Result<(), KernelError> {
        let (bridges, services): (Vec<Bridge>, _) =
            (self.bridges.values().cloned().collect(), self.ports.services());
        self.kernel.replace_rules(&bridges, &services)?;
        self.kernel.replace_rules6(bridges.iter(), &services)
    }

    fn checked_path(&self, sandbox: &str) -> Result<PathBuf, LinkError> {
        names::check_sandbox(sandbox)?;
        Ok(self.kernel.sandbox_path(sandbox))
    }

    fn is_sandbox(&self, sandbox: &str) -> Result<bool, LinkError> {
        let path = self.kernel.sandbox_path(sandbox);
        let found = namespace::open(&path)
            .map_err(|source| KernelError { action: format!("open {}", path.display()), source })?;
        Ok(found.is_some())
    }
}

/// What of `desired` can be done at all; the rest is reported.
fn valid(desired: &Desired, report: &mut Report) -> Desired {
    let mut valid = Desired { publications: BTreeMap::new(), ..desired.clone() };
    valid.bridges.retain(|bridge| keep(check_bridge(bridge), report));
    valid.sandboxes.retain(|sandbox, _| keep(names::check_sandbox(sandbox), report));
    for endpoints in valid.sandboxes.values_mut() {
        endpoints.retain(|endpoint| {
            let checked = names::check_interface(&endpoint.interface)
                .and_then(|()| names::check_interface(&endpoint.bridge))
                .and_then(|()| check_prefix(endpoint.prefix));
            keep(checked, report)
        });
    }
    valid
}

fn keep(checked: Result<(), LinkError>, report: &mut Report) -> bool {
    report.failed.extend(checked.as_ref().err().map(LinkError::to_string));
    checked.is_ok()
}

fn check_bridge(bridge: &Bridge) -> Result<(), LinkError> {
    names::check_interface(&bridge.name)?;
    check_prefix(bridge.prefix)
}

fn check_prefix(prefix: u8) -> Result<(), LinkError> {
    if prefix <= 32 { Ok(()) } else { Err(LinkError::Prefix(prefix)) }
}

/// Where a publication answers, and who does: over IPv6 on every address only where somebody has one.
fn checked_fronts(publication: &Publication) -> Result<ports::Wanted, PublishError> {
    if let Some((backend, _)) = publication.backends.iter().find(|(_, port)| *port == 0) {
        return Err(PublishError::BackendPort(*backend));
    }
    let (four, six): (Vec<Backend>, Vec<Backend>) =
        publication.backends.iter().partition(|(backend, _)| backend.is_ipv4());
    let front = |address| Front { protocol: publication.protocol, port: publication.host_port, address };
    match publication.host_ip {
        None => {
            let six = Some(six).filter(|six| !six.is_empty());
            let six = six.map(|six| (front(Ipv6Addr::UNSPECIFIED.into()), six));
            Ok([(front(Ipv4Addr::UNSPECIFIED.into()), four)].into_iter().chain(six).collect())
        }
        Some(address @ IpAddr::V4(_)) => Ok(vec![(front(address), four)]),
        Some(address @ IpAddr::V6(_)) if six.is_empty() && !four.is_empty() => {
            Err(PublishError::NobodyOverIpv6(address))
        }
        Some(address @ IpAddr::V6(_)) => Ok(vec![(front(address), six)]),
    }
}

/// The UDP fronts that answer differently than before, with who answers now.
fn udp_changes(before: &Services, after: &Services) -> Services {
    let is_udp = |front: &Front| front.protocol == skep_types::port::Protocol::Udp;
    before
        .keys()
        .chain(after.keys())
        .filter(|front| is_udp(front) && before.get(front) != after.get(front))
        .map(|front| (*front, after.get(front).cloned().unwrap_or_default()))
        .collect()
}
