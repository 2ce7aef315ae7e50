//! What must hold of the objects at every position of the log.

use std::collections::BTreeMap;
use std::fmt;

use skep_types::{NodeId, ServiceId, TaskId, TaskState};

use crate::Objects;
use crate::objects::{is_live, is_wanted};

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
    /// More than one task is wanted in one slot.
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
            Violation::Homeless { task } => write!(f, "task {task} is assigned to no node"),
            Violation::Overcommitted { node } => write!(f, "more is reserved on node {node} than it has"),
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
    slots(objects, &mut violations);
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
        ("ports", kept.ports == rebuilt.ports),
        ("ingress", kept.ingress == rebuilt.ingress),
        ("slots", kept.slots == rebuilt.slots),
        ("tasks_of_node", kept.tasks_of_node == rebuilt.tasks_of_node),
        ("loads", kept.loads == rebuilt.loads),
        ("spread", kept.spread == rebuilt.spread),
        ("addresses", kept.addresses == rebuilt.addresses),
        ("backends", kept.backends == rebuilt.backends),
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
    for service in objects.services() {
        *held.entry(format!("service name {}", service.spec.name)).or_default() += 1;
        for port in &service.ports {
            *held.entry(format!("port {}/{}", port.published_port, port.protocol)).or_default() += 1;
        }
        for address in &service.virtual_ips {
            *held.entry(format!("address {}", address.address)).or_default() += 1;
        }
    }
    for node in objects.nodes() {
        if let Some(address) = node.ingress_address {
            *held.entry(format!("address {address}")).or_default() += 1;
        }
    }
    for task in objects.tasks().filter(|task| is_live(task)) {
        for attachment in &task.attachments {
            *held.entry(format!("address {}", attachment.address)).or_default() += 1;
        }
    }
    let shared = held.into_iter().filter(|(_, holders)| *holders > 1);
    violations.extend(shared.map(|(what, _)| Violation::Shared { what }));
}

fn slots(objects: &Objects, violations: &mut Vec<Violation>) {
    for (service, slot) in objects.index().tasks_of_slot.keys().copied() {
        let tasks = objects.tasks_of_slot(service, slot);
        let wanted: Vec<TaskId> = tasks.filter(|task| is_wanted(task)).map(|task| task.id).collect();
        if wanted.len() > 1 {
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

fn tasks(objects: &Objects, violations: &mut Vec<Violation>) {
    for task in objects.tasks() {
        if task.node.is_none() && task.status.state >= TaskState::Assigned {
            violations.push(Violation::Homeless { task: task.id });
        }
    }
    for service in objects.services() {
        let serving = objects
            .tasks_of(service.id)
            .filter(|task| task.status.state == TaskState::Running && task.desired == TaskState::Running);
        let mut addresses: Vec<_> =
            serving.flat_map(|task| &task.attachments).map(|attachment| attachment.address).collect();
        let mut backends = objects.endpoint(service.id).map(|endpoint| endpoint.backends).unwrap_or_default();
        addresses.sort();
        backends.sort();
        if !service.ports.is_empty() && addresses != backends {
            violations.push(Violation::Backend { service: service.id });
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
