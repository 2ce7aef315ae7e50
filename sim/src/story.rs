//! The story of a run: a line for everything that happened.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use skep_cluster::{Change, Refusal, Request};
use skep_types::id::SWARM_ID_LEN;
use skep_types::service::{Service, ServiceSpec};
use skep_types::{ServiceId, Time};

/// Lines that are remembered.
const KEPT: usize = 200_000;
/// Lines of an excerpt.
const EXCERPT: usize = 60;
/// The mark of a line that tells a fault.
const FAULT: &str = "!! ";

/// The newest lines, and a digest of all.
#[derive(Debug, Default)]
pub(crate) struct Story {
    lines: VecDeque<String>,
    digest: DefaultHasher,
}

impl Story {
    pub fn tell(&mut self, now: Time, line: &str) {
        let line = format!("{:10.4} {line}", now.0 as f64 / 1e9);
        line.hash(&mut self.digest);
        if self.lines.len() >= KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Tells of something that breaks or heals.
    pub fn fault(&mut self, now: Time, line: &str) {
        self.tell(now, &format!("{FAULT}{line}"));
    }

    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    /// The faults, and what names the ids that `what` names; only the last lines of each.
    pub fn excerpt(&self, what: &str) -> Vec<String> {
        let ids: Vec<&str> = what
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| word.len() == SWARM_ID_LEN)
            .collect();
        let concerns = |line: &str| ids.iter().any(|id| line.contains(id));
        let mut left = [EXCERPT, EXCERPT / 2];
        let mut chosen: Vec<String> = Vec::new();
        for line in self.lines.iter().rev() {
            let kind = if concerns(line) {
                0
            } else if line.contains(FAULT) {
                1
            } else {
                continue;
            };
            if let Some(left) = left.get_mut(kind).filter(|left| **left > 0) {
                *left -= 1;
                chosen.push(line.clone());
            }
        }
        chosen.reverse();
        chosen
    }
}

/// A change in a few words, for the story.
pub(crate) fn brief(change: &Change) -> String {
    match change {
        Change::PutCluster(_) => "cluster".to_owned(),
        Change::PutNode(node) => {
            let role = node.spec.role;
            format!("node {} {:?} {:?} {role:?}", node.id, node.state, node.spec.availability)
        }
        Change::RemoveNode(id) => format!("node {id} removed"),
        Change::PutNetwork(network) => format!("network {}", network.name),
        Change::RemoveNetwork(id) => format!("network {id} removed"),
        Change::PutService(service) => brief_service(service),
        Change::RemoveService(id) => format!("service {id} removed"),
        Change::Update { service, step, .. } => format!("update of {service}: {step:?}"),
        Change::CreateTask(task) => format!(
            "task {} for {}.{} on {:?}, {:?}, wanted {}, not before {:?}",
            task.id, task.service, task.slot, task.node, task.cause, task.desired, task.not_before
        ),
        Change::Allocate { task, .. } => format!("task {task} allocated"),
        Change::Assign { task, node, .. } => format!("task {task} to {node}"),
        Change::SetDesired { task, desired, .. } => format!("task {task} wanted {desired}"),
        Change::SetStatus { task, status, .. } => format!("task {task} is {} {}", status.state, status.error),
        Change::Move { service, tasks, .. } => {
            format!("{} tasks of service {service} are to move", tasks.len())
        }
        Change::Scale { service, scaled } => {
            format!("service {service} from {} to {} tasks: {}", scaled.from, scaled.to, scaled.reason)
        }
        Change::RemoveTask(id) => format!("task {id} forgotten"),
        Change::PutGuest(guest) => {
            format!("guest {} on {} has {}", guest.container.short(), guest.node, guest.address)
        }
        Change::RemoveGuests(guests) => format!("{} guests forgotten", guests.len()),
    }
}

fn brief_service(service: &Service) -> String {
    let (mode, image) = (service.spec.mode, &service.spec.task.container.image);
    format!("service {} {} {mode:?} {image} v{}", service.spec.name, service.id, service.spec_version.0)
}

/// A request in a few words, for the story.
pub(crate) fn brief_request(request: &Request) -> String {
    let spec = |id: Option<ServiceId>, spec: &ServiceSpec| {
        let restart = &spec.task.restart;
        format!(
            "{} {id:?} {:?} {} ports {} restart {:?} {:?} max {} update {:?}",
            spec.name,
            spec.mode,
            spec.task.container.image,
            spec.ports.len(),
            restart.condition,
            restart.delay,
            restart.max_attempts,
            spec.update
        )
    };
    match request {
        Request::CreateCluster { .. } => "create the cluster".to_owned(),
        Request::UpdateCluster { spec, .. } => format!("keep {} tasks of history", spec.task_history_limit),
        Request::AddNode(node) => format!("add node {}", node.id),
        Request::UpdateNode { id, spec, .. } => format!("node {id} {:?}", spec.availability),
        Request::SetSeat { node, seat } => format!("seat of node {node}: {seat:?}"),
        Request::RemoveNode { id, .. } => format!("remove node {id}"),
        Request::CreateService(service) => format!("create {}", spec(None, service)),
        Request::UpdateService { id, spec: service, .. } => format!("update {}", spec(Some(*id), service)),
        Request::RollBackService { id, .. } => format!("roll back service {id}"),
        Request::Rebalance(id) => format!("rebalance service {id}"),
        Request::RemoveService(id) => format!("remove service {id}"),
        Request::RotateNetworkKeys(keys) => format!("network keys {keys:?}"),
        Request::CreateNetwork(network) => format!("create {network:?}"),
        Request::RemoveNetwork(id) => format!("remove network {id}"),
        Request::Attach { node, container, network, .. } => {
            format!("attach {} on node {node} to network {network}", container.short())
        }
        Request::Detach { node, container, network } => {
            format!("detach {} on node {node} from network {network}", container.short())
        }
        Request::KeepGuests { node, guests } => format!("keep {} guests on node {node}", guests.len()),
    }
}

/// A refusal in a few words, for the story.
pub(crate) fn brief_refusal(refusal: &Refusal) -> String {
    format!("{:?}, {refusal}", refusal.kind)
}
