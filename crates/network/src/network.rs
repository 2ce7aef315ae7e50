//! The one handle that callers hold: checks, plans, applies, remembers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::error::{KernelError, LinkError, OpenError, PublishError};
use crate::kernel::Kernel;
use crate::model::{Bridge, Config, Desired, Endpoint, Publication, PublicationKey, Report};
use crate::names;
use crate::namespace;
use crate::plan::{self, FoundSandbox, Front, Operation, RuleChange, Services};
use crate::ports::{self, Ports};
use crate::reservation::Reservation;

/// The network of one daemon, in the network namespace of the thread that opened it.
///
/// Dropping it changes nothing but the reservations of ports: containers stay connected and published.
#[derive(Debug)]
pub struct Network {
    kernel: Kernel,
    /// The bridges that have rules.
    bridges: BTreeMap<String, Bridge>,
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
        let mut kernel = Kernel::open(config.netns_dir, &config.instance)?;
        kernel.enable_forwarding()?;
        if kernel.ensure_base_rules().is_err() {
            // A predecessor of another version laid the table out differently, or it is not ours at all.
            kernel.replace_rules(&[], &Services::new())?;
        }
        Ok(Network { kernel, bridges: BTreeMap::new(), ports: Ports::default() })
    }

    /// Makes the bridge be there as described, up, with its address and rules. Idempotent. A bridge of that name that
    /// somebody else made is used, and keeps what further addresses it has.
    pub fn ensure_bridge(&mut self, bridge: &Bridge) -> Result<(), LinkError> {
        check_bridge(bridge)?;
        let found = self.kernel.observe_link(&bridge.name)?;
        if found.as_ref().is_some_and(|link| link.kind != "bridge") {
            return Err(LinkError::NotABridge(bridge.name.clone()));
        }
        for operation in plan::plan_bridge(bridge, found.as_ref()) {
            self.kernel.apply(&operation)?;
        }
        let known = self.bridges.insert(bridge.name.clone(), bridge.clone());
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
        Ok(changed?)
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
        Ok(self.kernel.apply(&Operation::RemoveSandbox { sandbox: sandbox.to_owned() })?)
    }

    /// Gives a sandbox an interface on a bridge, up, with address, routes and hardware address, and the bridge's size
    /// of packets. An interface that was attached under that name before is replaced.
    pub fn attach(&mut self, sandbox: &str, endpoint: &Endpoint) -> Result<(), LinkError> {
        self.checked_path(sandbox)?;
        names::check_interface(&endpoint.interface)?;
        names::check_interface(&endpoint.bridge)?;
        check_prefix(endpoint.prefix)?;
        let operation = Operation::Attach { sandbox: sandbox.to_owned(), endpoint: endpoint.clone() };
        match self.kernel.apply(&operation) {
            Ok(()) => Ok(()),
            // Looking for the reason only now spares every successful call the questions.
            Err(_) if !self.is_sandbox(sandbox)? => Err(LinkError::NoSandbox(sandbox.to_owned())),
            Err(_) if self.kernel.observe_link(&endpoint.bridge)?.is_none() => {
                Err(LinkError::NoBridge(endpoint.bridge.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes an interface away from a sandbox. Idempotent.
    pub fn detach(&mut self, sandbox: &str, interface: &str) -> Result<(), LinkError> {
        self.checked_path(sandbox)?;
        names::check_interface(interface)?;
        let link = self.kernel.names().host_end(sandbox, interface);
        Ok(self.kernel.apply(&Operation::DeleteLink { link })?)
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
        let wanted = ports.iter().map(checked_front).collect::<Result<Vec<_>, _>>()?;
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
        self.reconcile_links(&valid(desired, &mut report), &mut report)?;
        self.bridges = desired
            .bridges
            .iter()
            .filter(|bridge| check_bridge(bridge).is_ok())
            .map(|bridge| (bridge.name.clone(), bridge.clone()))
            .collect();
        self.ports = Ports::default();
        for (key, publications) in &desired.publications {
            self.adopt(key, publications, &mut report);
        }
        self.replace_rules()?;
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
            match checked_front(publication) {
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
        let bridges: Vec<Bridge> = self.bridges.values().cloned().collect();
        self.kernel.replace_rules(&bridges, &self.ports.services())
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

fn checked_front(publication: &Publication) -> Result<ports::Wanted, PublishError> {
    let address = match publication.host_ip {
        None | Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => None,
        Some(IpAddr::V4(address)) => Some(address),
        Some(address @ IpAddr::V6(_)) => return Err(PublishError::HostAddress(address)),
    };
    if let Some((backend, _)) = publication.backends.iter().find(|(_, port)| *port == 0) {
        return Err(PublishError::BackendPort(*backend));
    }
    let front = Front { protocol: publication.protocol, port: publication.host_port, address };
    Ok((front, publication.backends.clone()))
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
