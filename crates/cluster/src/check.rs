//! What must hold of the objects at every position of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use skep_types::network::Network;
use skep_types::service::{EndpointMode, ServiceMode};
use skep_types::{NetworkId, NodeId, ServiceId, Task, TaskId, TaskState};

use crate::Objects;
use crate::objects::{is_live, is_wanted};
use crate::orchestrator::cron;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An index does not say what the objects say.
    Index {
        /// Which.
        index: &'static str,
    },
    /// Two live holders of one thing (a name, a port, an address).
    Shared {
        /// What is held twice.
        what: String,
    },
    /// More than one task of one specification is wanted in one slot.
    Slot {
        /// The slot.
        service: ServiceId,
        /// Its number.
        slot: u64,
        /// The wanted tasks.
        wanted: Vec<TaskId>,
    },
    /// An address is served that no running task of the service has.
    Backend {
        /// Which service.
        service: ServiceId,
    },
    /// A service's names lead elsewhere than to its tasks, or it lacks a virtual address.
    Record {
        /// Which service.
        service: ServiceId,
    },
    /// A node has a network that it does not need, or lacks one.
    Networks {
        /// Which node.
        node: NodeId,
    },
    /// A task is past its assignment and has no node.
    Homeless {
        /// Which task.
        task: TaskId,
    },
    /// More is reserved on a node than it has.
    Overcommitted {
        /// Which node.
        node: NodeId,
    },
    /// A node has more tasks of a service than the service's bound for each node.
    Crowded {
        /// Which node.
        node: NodeId,
        /// The service.
        service: ServiceId,
    },
    /// A task is elsewhere than on the one node that it may be on.
    Pinned {
        /// Which task.
        task: TaskId,
    },
    /// A job runs more than it may at a time, or something again that completed.
    Job {
        /// Which service.
        service: ServiceId,
    },
    /// A restart policy's bound was passed.
    Attempts {
        /// The slot.
        service: ServiceId,
        /// Its number.
        slot: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Index { index } => write!(f, "the index {index} is out of step with the objects"),
            Violation::Shared { what } => write!(f, "{what} has two holders"),
            Violation::Slot { service, slot, wanted } => {
                write!(f, "slot {slot} of service {service} has {} wanted tasks: {wanted:?}", wanted.len())
            }
            Violation::Backend { service } => {
                write!(f, "service {service} is said to be reached at an address where no task runs")
            }
            Violation::Record { service } => {
                write!(f, "the names of service {service} do not lead to its tasks")
            }
            Violation::Networks { node } => write!(f, "node {node} has not the networks that it needs"),
            Violation::Homeless { task } => write!(f, "task {task} is assigned to no node"),
            Violation::Overcommitted { node } => write!(f, "more is reserved on node {node} than it has"),
            Violation::Crowded { node, service } => {
                write!(f, "node {node} has more tasks of service {service} than a node may")
            }
            Violation::Pinned { task } => write!(f, "task {task} is not where it may be alone"),
            Violation::Job { service } => {
                write!(f, "job {service} runs more than it may, or again what completed")
            }
            Violation::Attempts { service, slot } => {
                write!(f, "slot {slot} of service {service} was restarted more often than its policy allows")
            }
        }
    }
}

/// Everything that is wrong with the objects: nothing, or there is a bug. Looks at everything; meant for
/// tests and the simulator.
pub fn check(objects: &Objects) -> Vec<Violation> {
    let mut violations = Vec::new();
    indexes(objects, &mut violations);
    holders(objects, &mut violations);
    records(objects, &mut violations);
    slots(objects, &mut violations);
    modes(objects, &mut violations);
    tasks(objects, &mut violations);
    violations
}

fn indexes(objects: &Objects, violations: &mut Vec<Violation>) {
    let (kept, rebuilt) = (objects.index(), objects.rebuilt_index());
    let compared = [
        ("node_names", kept.node_names == rebuilt.node_names),
        ("managers", kept.managers == rebuilt.managers),
        ("unaddressed", kept.unaddressed == rebuilt.unaddressed),
        ("service_names", kept.service_names == rebuilt.service_names),
        ("network_names", kept.network_names == rebuilt.network_names),
        ("node_of_slot", kept.node_of_slot == rebuilt.node_of_slot),
        ("autoscaled", kept.autoscaled == rebuilt.autoscaled),
        ("global_services", kept.global_services == rebuilt.global_services),
        ("ports", kept.ports == rebuilt.ports),
        ("ingress", kept.ingress == rebuilt.ingress),
        ("slots", kept.slots == rebuilt.slots),
        ("tasks_of_node", kept.tasks_of_node == rebuilt.tasks_of_node),
        ("loads", kept.loads == rebuilt.loads),
        ("spread", kept.spread == rebuilt.spread),
        ("generic", kept.generic == rebuilt.generic),
        ("addresses", kept.addresses == rebuilt.addresses),
        ("backends", kept.backends == rebuilt.backends),
        ("host_ports", kept.host_ports == rebuilt.host_ports),
        ("services_on", kept.services_on == rebuilt.services_on),
        ("guests_on", kept.guests_on == rebuilt.guests_on),
        ("guests_of_node", kept.guests_of_node == rebuilt.guests_of_node),
        ("presence", kept.presence == rebuilt.presence),
        ("ports_of_node", kept.ports_of_node == rebuilt.ports_of_node),
        ("unallocated", kept.unallocated == rebuilt.unallocated),
        ("unassigned", kept.unassigned == rebuilt.unassigned),
        ("tasks_of_slot", every_task_in_one_slot(objects)),
    ];
    let wrong = compared.into_iter().filter(|(_, equal)| !equal);
    violations.extend(wrong.map(|(index, _)| Violation::Index { index }));
}

fn every_task_in_one_slot(objects: &Objects) -> bool {
    let listed = objects.index().tasks_of_slot.iter();
    let pairs = listed.flat_map(|(key, ids)| ids.iter().map(move |id| (*id, *key)));
    let by_slot: BTreeMap<TaskId, (ServiceId, u64)> = pairs.clone().collect();
    let tasks = objects.tasks().map(|task| (task.id, (task.service, task.slot)));
    pairs.count() == by_slot.len() && by_slot == tasks.collect()
}

fn holders(objects: &Objects, violations: &mut Vec<Violation>) {
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let mut hold = |what: String| *held.entry(what).or_default() += 1;
    let at = |network: NetworkId, address: Ipv4Addr| format!("address {address} of network {network}");
    for service in objects.services() {
        hold(format!("service name {}", service.spec.name));
        service
            .ingress_ports()
            .for_each(|port| hold(format!("port {}/{}", port.published_port, port.protocol)));
        service.virtual_ips.iter().for_each(|given| hold(at(given.network, given.address)));
    }
    for network in objects.networks() {
        hold(format!("network name {}", network.name));
        hold(format!("VXLAN identifier {}", network.vni));
        // Held by nobody else either.
        let reserved = [network.subnet.network(), network.subnet.broadcast(), network.gateway()];
        reserved.into_iter().for_each(|address| hold(at(network.id, address)));
        objects.guests_on(network.id).for_each(|guest| hold(at(network.id, guest.address)));
    }
    if let Some(ingress) = objects.ingress() {
        let own = objects.nodes().filter_map(|node| node.ingress_address);
        own.for_each(|address| hold(at(ingress.id, address)));
    }
    for task in objects.tasks().filter(|task| is_live(task)) {
        task.attachments.iter().for_each(|given| hold(at(given.network, given.address)));
    }
    let shared = held.into_iter().filter(|(_, holders)| *holders > 1);
    violations.extend(shared.map(|(what, _)| Violation::Shared { what }));
    let networks: Vec<&Network> = objects.networks().collect();
    for (place, one) in networks.iter().enumerate() {
        for other in networks.iter().skip(place + 1).filter(|other| other.subnet.overlaps(one.subnet)) {
            violations.push(Violation::Shared {
                what: format!("{} of {} and {}", one.subnet, one.name, other.name),
            });
        }
    }
}

/// Names lead to the tasks that run and are to run, and to virtual addresses of networks that services are on.
fn records(objects: &Objects, violations: &mut Vec<Violation>) {
    for service in objects.services() {
        let on: BTreeSet<NetworkId> = service.spec.task.networks.iter().map(|on| on.network).collect();
        let ingress = objects.ingress().map(|ingress| ingress.id);
        let expected: BTreeSet<NetworkId> = match service.spec.endpoint_mode {
            EndpointMode::Dnsrr => BTreeSet::new(),
            EndpointMode::Vip => {
                let publishes = service.ingress_ports().next().is_some();
                on.iter().copied().chain(ingress.filter(|_| publishes)).collect()
            }
        };
        let given: BTreeSet<NetworkId> = service.virtual_ips.iter().map(|given| given.network).collect();
        let mut right = given == expected && given.len() == service.virtual_ips.len();
        for network in on {
            right &= objects.network(network).is_some();
            let serving = objects
                .tasks_of(service.id)
                .filter(|task| task.status.state == TaskState::Running && task.desired == task.goal());
            let attached =
                serving.flat_map(|task| &task.attachments).filter(|given| given.network == network);
            let mut addresses: Vec<Ipv4Addr> = attached.map(|given| given.address).collect();
            let record = objects.record(service.id, network);
            let mut told: Vec<Ipv4Addr> =
                record.into_iter().flat_map(|record| record.tasks).map(|task| task.address).collect();
            addresses.sort();
            told.sort();
            right &= addresses == told;
        }
        if !right {
            violations.push(Violation::Record { service: service.id });
        }
    }
    for node in objects.nodes() {
        let live = objects.tasks_on(node.id).filter(|task| is_live(task)).flat_map(|task| &task.attachments);
        let guests = objects.guests_of(node.id).map(|guest| guest.network);
        let needed: BTreeSet<NetworkId> = live.map(|given| given.network).chain(guests).collect();
        let wrong = objects.networks().any(|network| {
            objects.has_network(node.id, network.id) != (network.ingress || needed.contains(&network.id))
        });
        if wrong {
            violations.push(Violation::Networks { node: node.id });
        }
    }
}

fn slots(objects: &Objects, violations: &mut Vec<Violation>) {
    for (service, slot) in objects.index().tasks_of_slot.keys().copied() {
        let tasks = objects.tasks_of_slot(service, slot);
        let wanted: Vec<&Task> = tasks.filter(|task| is_wanted(task)).collect();
        // A successor that is started first is of another specification, or takes the place of what is to move.
        let staying = || wanted.iter().filter(|task| !task.moves).map(|task| task.spec_version);
        if staying().count() > staying().collect::<BTreeSet<_>>().len() {
            let wanted = wanted.iter().map(|task| task.id).collect();
            violations.push(Violation::Slot { service, slot, wanted });
        }
        let Some(service) = objects.service(service) else { continue };
        let policy = &service.spec.task.restart;
        let history = objects.restart_history(service.id, slot);
        let history = history.filter(|history| history.spec_version == service.spec_version);
        let restarts = history.map_or(0, |history| history.total);
        if policy.max_attempts > 0 && policy.window.is_zero() && restarts > policy.max_attempts {
            violations.push(Violation::Attempts { service: service.id, slot });
        }
    }
}

/// Bounds for each node: tasks that were made under one bound are never more than it on a node. What a lower bound
/// finds there stays.
fn crowded(objects: &Objects, violations: &mut Vec<Violation>) {
    let mut counts: BTreeMap<(NodeId, ServiceId, u64), u64> = BTreeMap::new();
    for task in objects.tasks().filter(|task| is_live(task) && is_wanted(task)) {
        let most = task.spec.placement.max_replicas;
        if let Some(node) = task.node.filter(|_| most > 0) {
            *counts.entry((node, task.service, most)).or_default() += 1;
        }
    }
    let over = counts.into_iter().filter(|((_, _, most), count)| count > most);
    violations.extend(over.map(|((node, service, _), _)| Violation::Crowded { node, service }));
}

/// What services of one task a node and jobs promise.
fn modes(objects: &Objects, violations: &mut Vec<Violation>) {
    for task in objects.tasks() {
        let astray =
            |pinned: NodeId| pinned.slot() != task.slot || task.node.is_some_and(|node| node != pinned);
        let mode = objects.service(task.service).map(|service| service.spec.mode);
        let unpinned = mode.is_some_and(|mode| mode.is_global() != task.pinned.is_some());
        if task.pinned.is_some_and(astray) || unpinned {
            violations.push(Violation::Pinned { task: task.id });
        }
    }
    for service in objects.services().filter(|service| service.spec.mode.is_job()) {
        let present =
            || objects.tasks_of(service.id).filter(|task| !objects.is_past(task) && is_wanted(task));
        let slots: BTreeSet<u64> = present().map(|task| task.slot).collect();
        // A slot that completed keeps its one task.
        let twice = slots.len() != present().count();
        let completed = present().filter(|task| task.status.state == TaskState::Complete).count() as u64;
        // What runs of a job that waits for its time was begun by other numbers.
        let too_many = !cron::awaits_run(service)
            && match service.spec.mode {
                ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
                    slots.len() as u64 - completed > max_concurrent
                        || slots.last().is_some_and(|last| *last >= total_completions)
                }
                ServiceMode::GlobalJob | ServiceMode::Global | ServiceMode::Replicated { .. } => false,
            };
        if twice || too_many || service.job.is_none() {
            violations.push(Violation::Job { service: service.id });
        }
    }
}

fn tasks(objects: &Objects, violations: &mut Vec<Violation>) {
    for task in objects.tasks() {
        if task.node.is_none() && task.status.state >= TaskState::Assigned {
            violations.push(Violation::Homeless { task: task.id });
        }
    }
    let ingress = objects.ingress().map(|ingress| ingress.id);
    for service in objects.services() {
        let serving = objects
            .tasks_of(service.id)
            .filter(|task| task.status.state == TaskState::Running && task.desired == task.goal());
        let mut addresses: Vec<_> = serving
            .flat_map(|task| &task.attachments)
            .filter(|given| Some(given.network) == ingress)
            .map(|given| given.address)
            .collect();
        let mut backends = objects.endpoint(service.id).map(|endpoint| endpoint.backends).unwrap_or_default();
        addresses.sort();
        backends.sort();
        if service.ingress_ports().next().is_some() && addresses != backends {
            violations.push(Violation::Backend { service: service.id });
        }
    }
    crowded(objects, violations);
    for (node, generic) in &objects.index().generic {
        let Some(node) = objects.node(*node) else { continue };
        if !generic.fits(&node.description.generic) {
            violations.push(Violation::Overcommitted { node: node.id });
        }
    }
    for (node, load) in &objects.index().loads {
        let Some(node) = objects.node(*node) else { continue };
        let over_cpus = load.nano_cpus > node.description.nano_cpus.max(0);
        let over_memory = load.memory_bytes > node.description.memory_bytes.max(0);
        if over_cpus || over_memory {
            violations.push(Violation::Overcommitted { node: node.id });
        }
    }
}
