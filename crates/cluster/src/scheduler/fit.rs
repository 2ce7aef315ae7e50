//! Whether a node can take a task, and the reason why not.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use skep_types::mount::MountSource;
use skep_types::node::{Availability, Node, NodeState, Plugin, PluginKind};
use skep_types::port::Protocol;
use skep_types::resources::Resources;
use skep_types::service::{PortSpec, TaskSpec};

use super::placed::Standing;

/// Why a node cannot take a task, in the order in which it is asked: SwarmKit's pipeline of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    /// Does not answer, or takes no new tasks.
    NotAvailable,
    /// Lacks CPU, memory or generic resources.
    Resources,
    /// Lacks a driver.
    Plugin,
    /// Is not what the constraints ask for.
    Constraints,
    /// Is of another platform than the image.
    Platform,
    /// Has a port that the task would publish there.
    HostPort,
    /// Has as many tasks of the service as it may.
    MaxReplicas,
}

impl Unfit {
    /// SwarmKit's words.
    pub fn explain(self, nodes: u64) -> String {
        let on = if nodes == 1 { "on 1 node".to_owned() } else { format!("on {nodes} nodes") };
        match self {
            Unfit::NotAvailable if nodes == 1 => "1 node not available for new tasks".to_owned(),
            Unfit::NotAvailable => format!("{nodes} nodes not available for new tasks"),
            Unfit::Resources => format!("insufficient resources {on}"),
            Unfit::Plugin => format!("missing plugin {on}"),
            Unfit::Constraints => format!("scheduling constraints not satisfied {on}"),
            Unfit::Platform => format!("unsupported platform {on}"),
            Unfit::HostPort => format!("host-mode port already in use {on}"),
            // Without a number, as it has always been.
            Unfit::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// How many nodes have each reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons(BTreeMap<Unfit, u64>);

impl Reasons {
    /// Counts a node.
    pub fn count(&mut self, reason: Unfit) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// The reasons, those of most nodes first: `2 nodes not available for new tasks; ...`.
    pub fn list(&self) -> String {
        let mut reasons: Vec<(Reverse<u64>, Unfit)> =
            self.0.iter().map(|(reason, nodes)| (Reverse(*nodes), *reason)).collect();
        reasons.sort();
        let words: Vec<String> =
            reasons.into_iter().map(|(Reverse(nodes), reason)| reason.explain(nodes)).collect();
        words.join("; ")
    }

    /// Why there is no node: `no suitable node (2 nodes not available for new tasks; ...)`.
    pub fn explain(&self) -> String {
        match self.list() {
            list if list.is_empty() => "no suitable node".to_owned(),
            list => format!("no suitable node ({list})"),
        }
    }
}

/// What a service's task asks of a node.
#[derive(Clone, Debug)]
pub(crate) struct Demand<'a> {
    pub spec: &'a TaskSpec,
    /// Ports that each task publishes on its node, where it asks for certain ones.
    pub ports: Vec<(Protocol, u16)>,
    /// Drivers that it needs.
    plugins: Vec<Plugin>,
}

impl<'a> Demand<'a> {
    pub fn new<'p>(spec: &'a TaskSpec, host_ports: impl Iterator<Item = &'p PortSpec>) -> Demand<'a> {
        let ports = host_ports.filter(|port| port.published_port != 0);
        let ports = ports.map(|port| (port.protocol, port.published_port)).collect();
        Demand { spec, ports, plugins: plugins(spec) }
    }

    /// Why a node cannot take the task; `None` where it can.
    pub fn unfit(&self, node: &Node, standing: &Standing) -> Option<Unfit> {
        let spec = self.spec;
        if node.state != NodeState::Ready || node.spec.availability != Availability::Active {
            return Some(Unfit::NotAvailable);
        }
        let lacks = |wanted: i64, total: i64, used: i64| wanted > 0 && wanted > total - used;
        let Resources { nano_cpus, memory_bytes, .. } = spec.reservations;
        let lacking = lacks(nano_cpus, node.description.nano_cpus, standing.nano_cpus)
            || lacks(memory_bytes, node.description.memory_bytes, standing.memory_bytes)
            || !spec.generic.is_empty()
                && node.description.generic.claim(&standing.generic, &spec.generic).is_none();
        if lacking {
            return Some(Unfit::Resources);
        }
        let known = &node.description.plugins;
        // Only a node that tells of its drivers can lack one.
        if !known.is_empty() && self.plugins.iter().any(|plugin| !known.contains(plugin)) {
            return Some(Unfit::Plugin);
        }
        if !spec.placement.allows(node) {
            return Some(Unfit::Constraints);
        }
        if !spec.placement.fits_platform(node) {
            return Some(Unfit::Platform);
        }
        if standing.lacks_port {
            return Some(Unfit::HostPort);
        }
        let most = spec.placement.max_replicas;
        (most > 0 && standing.of_service >= most).then_some(Unfit::MaxReplicas)
    }
}

/// The drivers that a task needs. As in SwarmKit, what every engine has is asked for too, and a log driver `none`
/// is none.
fn plugins(spec: &TaskSpec) -> Vec<Plugin> {
    let plugin = |kind: PluginKind, name: &str| Plugin { kind, name: name.to_owned() };
    let volumes =
        spec.container.mounts.iter().any(|mount| matches!(mount.source, MountSource::Volume { .. }));
    let volumes = volumes.then(|| plugin(PluginKind::Volume, "local"));
    let networks = (!spec.networks.is_empty()).then(|| plugin(PluginKind::Network, "overlay"));
    volumes.into_iter().chain(networks).collect()
}
