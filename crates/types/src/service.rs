//! Services: what the user wants to run, how many, and how they are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::{DnsConfig, LogDriver};
use crate::generic::GenericRequest;
use crate::health::HealthCheck;
use crate::mount::Mount;
use crate::placement::Placement;
use crate::port::Protocol;
use crate::resources::Resources;
use crate::security::Privileges;
use crate::swarm::Secret;
use crate::ulimit::Rlimit;
use crate::{Meta, NetworkId, ServiceId, Time, Version};

/// A service's specification, as the user gave it. Every field works; what Skep cannot honour is refused
/// where JSON becomes this type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique name: letters, digits, `-` and `_`, the ends letters or digits; at most 63 characters.
    pub name: String,
    /// Labels of the service itself.
    pub labels: BTreeMap<String, String>,
    /// What each task runs; shared with the tasks made from it, of which there may be thousands.
    pub task: Arc<TaskSpec>,
    /// How many tasks.
    pub mode: ServiceMode,
    /// How a changed specification is rolled out.
    pub update: UpdateConfig,
    /// How a specification that was gone back to is rolled out.
    #[serde(default)]
    pub rollback: UpdateConfig,
    /// Published ports.
    pub ports: Vec<PortSpec>,
    /// How the service's name resolves.
    pub endpoint_mode: EndpointMode,
}

impl ServiceSpec {
    /// The labels that a task carries: all of them where a template may ask for one, else none.
    pub fn labels_for_templates(&self) -> BTreeMap<String, String> {
        if self.task.container.has_templates() { self.labels.clone() } else { BTreeMap::new() }
    }
}

/// How many tasks a service has, and whether they are to run on or to completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// A number of them.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on every node that its placement allows.
    Global,
    /// Tasks that run to completion, a number of times.
    ReplicatedJob {
        /// How many run at a time; 0 lets none run.
        max_concurrent: u64,
        /// How many are to complete.
        total_completions: u64,
    },
    /// One task that runs to completion on every node that its placement allows.
    GlobalJob,
}

impl ServiceMode {
    /// Whether the tasks run to completion, once in each iteration.
    pub fn is_job(self) -> bool {
        matches!(self, ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob)
    }

    /// Whether there is one task for each node.
    pub fn is_global(self) -> bool {
        matches!(self, ServiceMode::Global | ServiceMode::GlobalJob)
    }

    /// Whether two modes are of one kind: a service never changes from one kind to another.
    pub fn is_alike(self, other: ServiceMode) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// How often a job was asked to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Raised by every update: the tasks of older iterations are history.
    pub iteration: u64,
    /// When the present iteration was asked for.
    pub last_execution: Time,
    /// The version of the specification that the present iteration runs: another one than the service's while an update
    /// waits for the next iteration, and before the first one. `None` where it was not written down.
    #[serde(default)]
    pub spec_version: Option<Version>,
}

/// How a service's name resolves on its networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// To one virtual address on each.
    #[default]
    Vip,
    /// To the addresses of the tasks.
    Dnsrr,
}

/// How a port is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node, to any task.
    #[default]
    Ingress,
    /// On the node of each task, to that task.
    Host,
}

/// A published port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortSpec {
    /// Optional name.
    pub name: String,
    /// Transport.
    pub protocol: Protocol,
    /// Port inside the tasks.
    pub target_port: u16,
    /// Port on the nodes; 0 asks for a free one from 30000.
    pub published_port: u16,
    /// Where it answers.
    pub mode: PublishMode,
    /// The address of the nodes that it answers on; `None` is every one.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// A network that a service's tasks are on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// The network.
    pub network: NetworkId,
    /// What the service is called there besides its name.
    pub aliases: Vec<String>,
}

/// What a task runs and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The container.
    pub container: ServiceContainer,
    /// Upper bounds.
    pub limits: Resources,
    /// Set aside on the node.
    pub reservations: Resources,
    /// Generic resources that are set aside on the node, so many of each kind.
    #[serde(default)]
    pub generic: GenericRequest,
    /// What follows a task's end.
    pub restart: RestartPolicy,
    /// Where it may run.
    #[serde(default)]
    pub placement: Placement,
    /// Raised to restart tasks whose specification did not change.
    pub force_update: u64,
    /// The networks that it is on, each once; the one of the mesh is added where ports are published there.
    #[serde(default)]
    pub networks: Vec<NetworkAttachment>,
    /// How its output is kept; `None` is the engine's default.
    #[serde(default)]
    pub log: Option<LogDriver>,
}

impl TaskSpec {
    /// Whether two specifications run the same, though perhaps elsewhere.
    pub fn differs_in_placement_only(&self, other: &TaskSpec) -> bool {
        let TaskSpec {
            container,
            limits,
            reservations,
            generic,
            restart,
            placement: _,
            force_update,
            networks,
            log,
        } = self;
        (container, limits, reservations) == (&other.container, &other.limits, &other.reservations)
            && generic == &other.generic
            && (restart, force_update, networks) == (&other.restart, &other.force_update, &other.networks)
            && *log == other.log
    }
}

/// The container of a service's task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceContainer {
    /// Image reference or id.
    pub image: String,
    /// Labels of the containers.
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entrypoint; `None` keeps it.
    pub command: Option<Vec<String>>,
    /// Replaces the image's command; `None` keeps it.
    pub args: Option<Vec<String>>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// Working directory; empty keeps the image's.
    pub dir: String,
    /// User and group; empty keeps the image's.
    pub user: String,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Host name; empty is the container's short id.
    pub hostname: String,
    /// Whether a small init process is PID 1.
    pub init: bool,
    /// Whether standard streams are a terminal.
    pub tty: bool,
    /// Whether standard input stays open.
    pub open_stdin: bool,
    /// Whether the root file system refuses writes.
    pub read_only: bool,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Lines for /etc/hosts: `address name...`.
    pub hosts: Vec<String>,
    /// Added to Docker's default capabilities.
    pub cap_add: BTreeSet<String>,
    /// Taken from them.
    pub cap_drop: BTreeSet<String>,
    /// Signal that asks the process to end; empty keeps the image's, or SIGTERM.
    pub stop_signal: String,
    /// Time between that signal and SIGKILL; `None` is 10 s.
    pub stop_grace: Option<Duration>,
    /// How its health is probed; `None` follows the image.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// What names are resolved by.
    #[serde(default)]
    pub dns: DnsConfig,
    /// Kernel parameters by dotted name.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Limits of processes.
    #[serde(default)]
    pub ulimits: Vec<Rlimit>,
    /// How readily the kernel kills it for want of memory, -1000 to 1000.
    #[serde(default)]
    pub oom_score_adj: i32,
    /// What its processes may do to the kernel, where anything was said of that.
    #[serde(default)]
    pub privileges: Option<Privileges>,
    /// Who the image's registry is asked as: the header `X-Registry-Auth` as the client sent it. No answer shows it.
    /// SwarmKit's `PullOptions`.
    #[serde(default)]
    pub registry_auth: Option<Secret>,
}

/// When an ended task is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never.
    None,
    /// When it ended with an error.
    OnFailure,
    /// Always.
    Any,
}

/// What follows a task's end. SwarmKit's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When to replace it.
    pub condition: RestartCondition,
    /// Wait before the replacement starts.
    pub delay: Duration,
    /// Replacements of one slot before giving up; 0 is no bound.
    pub max_attempts: u64,
    /// Time over which attempts are counted; zero counts all.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// What follows a failed update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// Stop updating.
    Pause,
    /// Go on.
    Continue,
    /// Go back to the specification before. A rollback itself that fails is paused.
    Rollback,
}

/// What comes first where a task replaces another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// The old task stops, then the new one starts.
    #[default]
    StopFirst,
    /// The new task runs, then the old one stops.
    StartFirst,
}

/// How a changed specification is rolled out. SwarmKit's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Tasks at a time; 0 is all.
    pub parallelism: u64,
    /// Wait between batches.
    pub delay: Duration,
    /// What follows a failure.
    pub failure_action: FailureAction,
    /// A task that fails within this time of its start counts as a failed update.
    pub monitor: Duration,
    /// Failed tasks tolerated, in thousandths of all.
    pub max_failure_permille: u32,
    /// What comes first.
    #[serde(default)]
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_permille: 0,
            order: UpdateOrder::StopFirst,
        }
    }
}

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// `updating`
    Updating,
    /// `paused`
    Paused,
    /// `completed`
    Completed,
    /// `rollback_started`: the specification before is being rolled out.
    RollbackStarted,
    /// `rollback_paused`
    RollbackPaused,
    /// `rollback_completed`
    RollbackCompleted,
}

impl UpdateState {
    /// The state's name at the API.
    pub fn name(self) -> &'static str {
        match self {
            UpdateState::Updating => "updating",
            UpdateState::Paused => "paused",
            UpdateState::Completed => "completed",
            UpdateState::RollbackStarted => "rollback_started",
            UpdateState::RollbackPaused => "rollback_paused",
            UpdateState::RollbackCompleted => "rollback_completed",
        }
    }
}

/// An update's progress, kept with the service so that a new leader goes on where the last one stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub completed_at: Option<Time>,
    /// In SwarmKit's words: `update in progress`, `update completed`...
    pub message: String,
}

/// A virtual address of a service on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIp {
    /// The network.
    pub network: NetworkId,
    /// The address.
    pub address: Ipv4Addr,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What the user wants now.
    pub spec: ServiceSpec,
    /// What the user wanted before the last update.
    pub previous_spec: Option<ServiceSpec>,
    /// Raised whenever `spec.task` changes: tasks of another version are out of date.
    pub spec_version: Version,
    /// The published ports with their numbers filled in.
    pub ports: Vec<PortSpec>,
    /// Its virtual addresses.
    pub virtual_ips: Vec<VirtualIp>,
    /// The last update's progress.
    pub update_status: Option<UpdateStatus>,
    /// A job's iteration; `None` for services that are no jobs.
    #[serde(default)]
    pub job: Option<JobStatus>,
    /// What was last done about the number of its replicas because of its load.
    #[serde(default)]
    pub scaled: Option<Scaled>,
}

/// A change of the number of replicas that follows from a service's load, not from a user's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// When.
    pub at: Time,
    /// The number before.
    pub from: u64,
    /// The number after.
    pub to: u64,
    /// Why, for people.
    pub reason: String,
}

impl Service {
    /// Whether it is going back to what it was.
    pub fn goes_back(&self) -> bool {
        self.update_status.as_ref().is_some_and(|status| status.state == UpdateState::RollbackStarted)
    }

    /// What a rolling update of the service follows: another configuration while it goes back to what it was.
    pub fn rollout_config(&self) -> &UpdateConfig {
        if self.goes_back() { &self.spec.rollback } else { &self.spec.update }
    }

    /// The ports that are published on every node.
    pub fn ingress_ports(&self) -> impl Iterator<Item = &PortSpec> + Clone {
        self.ports.iter().filter(|port| port.mode == PublishMode::Ingress)
    }

    /// The ports that each task publishes on its own node.
    pub fn host_ports(&self) -> impl Iterator<Item = &PortSpec> + Clone {
        self.ports.iter().filter(|port| port.mode == PublishMode::Host)
    }
}
