//! What an agent is told, and what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use skep_types::assignment::{Assignment, Duty, Endpoint, Overlay};
use skep_types::container::ClusterAttachment;
use skep_types::network::Network;
use skep_types::records::RecordChange;
use skep_types::tunnel::{Tunnel, TunnelPeer};
use skep_types::{ContainerId, NetworkId, ServiceId, Task, TaskId};

/// What happened. Errors are texts that end up in a task's status, so they must be fit for the user's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// What a former agent left on this machine. Comes before the first assignment, or not at all.
    Recovered(Recovered),
    /// What the managers said last before this daemon was started. Nothing that it does not name is given up. Comes
    /// after [`AgentEvent::Recovered`] and before the first assignment, or not at all; until that comes, the agent is
    /// alone.
    Remembered(Vec<Duty>),
    /// No manager is heard any more. Until one assigns everything anew, tasks that end are restarted here.
    Alone,
    /// The managers' word on what this node is responsible for.
    Assigned {
        /// Later ones have numbers that are not smaller. What one number says of tables is in one assignment.
        number: u64,
        /// The word.
        assignment: Assignment,
    },
    /// [`Operation::EnsureNetwork`] ended.
    NetworkEnsured {
        /// Which network.
        network: NetworkId,
        /// Why it is not there.
        result: Result<(), String>,
    },
    /// [`Operation::RemoveNetwork`] ended.
    NetworkRemoved {
        /// Which network.
        network: NetworkId,
        /// Why it is still there.
        result: Result<(), String>,
    },
    /// [`Operation::UpdatePeers`] ended.
    PeersUpdated {
        /// Which network.
        network: NetworkId,
        /// Why not all of it is as asked.
        result: Result<(), String>,
    },
    /// [`Operation::UpdateRecords`] ended.
    RecordsUpdated {
        /// Which network.
        network: NetworkId,
        /// Why not all of it is as asked.
        result: Result<(), String>,
    },
    /// [`Operation::SetTunnel`] ended.
    TunnelSet {
        /// Why it is not as asked.
        result: Result<(), String>,
    },
    /// [`Operation::ServeEndpoint`] or [`Operation::RemoveEndpoint`] ended.
    EndpointApplied {
        /// Whose endpoint.
        service: ServiceId,
        /// Why it is not as asked.
        result: Result<(), String>,
    },
    /// [`Operation::Prepare`] ended.
    Prepared {
        /// Which task.
        task: TaskId,
        /// The created container.
        result: Result<ContainerId, String>,
    },
    /// [`Operation::Start`] ended.
    Started {
        /// Which task.
        task: TaskId,
        /// How it began.
        result: Result<Launched, String>,
    },
    /// [`Operation::AwaitReady`] ended.
    Ready {
        /// Which task.
        task: TaskId,
        /// Why it will not be ready. That it does not run, or was waited for in vain, is no error.
        result: Result<(), String>,
    },
    /// [`Operation::Watch`] ended: the container runs, but its health check failed.
    Unhealthy {
        /// Which task.
        task: TaskId,
    },
    /// [`Operation::Watch`] ended: the container no longer runs.
    Exited {
        /// Which task.
        task: TaskId,
        /// The exit code, or why nobody knows it.
        result: Result<i32, String>,
    },
    /// [`Operation::Drain`] ended.
    Drained {
        /// Which task.
        task: TaskId,
    },
    /// [`Operation::Stop`] ended.
    Stopped {
        /// Which task.
        task: TaskId,
        /// The exit code where it is known; an error when the container may still run.
        result: Result<Option<i32>, String>,
    },
    /// [`Operation::Remove`] ended.
    Removed {
        /// Which task.
        task: TaskId,
        /// Why the container is still there. That there was none is no error.
        result: Result<(), String>,
    },
    /// The time that `wake_at` named has come.
    Tick,
}

/// How a container began to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Its first process.
    pub pid: u32,
    /// What more it takes to be ready.
    pub health: Watched,
}

/// Whether a container's health is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// It counts as healthy while it runs.
    No,
    /// It is healthy once its probes say so.
    Yes,
}

/// What a former agent left on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Containers that carry a task's id.
    pub containers: Vec<(TaskId, ContainerId, Observed)>,
    /// Cluster-wide networks.
    pub networks: Vec<NetworkId>,
    /// Services whose endpoints are served.
    pub endpoints: Vec<ServiceId>,
}

/// The state that a container was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Never started.
    Created,
    /// Runs, with this first process, and is not known to be healthy yet.
    Starting(u32),
    /// Runs, with this first process.
    Running(u32),
    /// Ended with this exit code.
    Exited(i32),
}

/// Where addresses of a network are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Exactly these and no others.
    All(BTreeMap<Ipv4Addr, IpAddr>),
    /// The difference to what the last operation, which succeeded, brought about.
    Changed {
        /// New or moved.
        update: BTreeMap<Ipv4Addr, IpAddr>,
        /// No longer on another node.
        remove: BTreeSet<Ipv4Addr>,
    },
}

/// What is to be done. Each is answered by one [`AgentEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make a cluster-wide network known here, with this node's own place on it where it spans machines. The peers
    /// that were told before may be forgotten by it.
    EnsureNetwork(Network, Option<Overlay>),
    /// Take it away.
    RemoveNetwork(NetworkId),
    /// Know where a network's addresses on other nodes are.
    UpdatePeers {
        /// Which network; it was ensured.
        network: NetworkId,
        /// What to know.
        change: PeerChange,
    },
    /// Answer for names on a network, and serve the virtual addresses that they lead to.
    UpdateRecords {
        /// Which network; it was ensured.
        network: NetworkId,
        /// What to answer.
        change: RecordChange,
    },
    /// Take part in encrypted networks like this, or in none, and know exactly these other nodes.
    SetTunnel {
        /// This node's own part.
        tunnel: Option<Tunnel>,
        /// The others.
        peers: Vec<TunnelPeer>,
    },
    /// Serve a service's published ports with exactly these backends.
    ServeEndpoint(Endpoint),
    /// Serve them no longer.
    RemoveEndpoint(ServiceId),
    /// Create a task's container. One that exists under the task's name is the answer, not an error.
    Prepare {
        /// The task.
        task: Box<Task>,
        /// Its networks and addresses.
        attachments: Vec<ClusterAttachment>,
    },
    /// Start the container.
    Start {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
    },
    /// Answer once the container listens on all of these TCP ports, or after `limit`, and is healthy, where its health
    /// is probed.
    AwaitReady {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
        /// Ports inside the container.
        ports: Vec<u16>,
        /// The longest wait for the ports.
        limit: Duration,
    },
    /// Answer once the container does not run, or is unhealthy.
    Watch {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
    },
    /// Answer once nobody who came from outside is connected to the container any more, it does not run, or `limit` has
    /// passed. No new connections are sent to it.
    Drain {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
        /// The longest wait.
        limit: Duration,
    },
    /// Stop the container and answer once it has ended. That there is none is no error.
    Stop {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
        /// Signal that asks the process to end; empty keeps the container's own.
        signal: String,
        /// Time between that signal and SIGKILL; `None` keeps the container's own.
        grace: Option<Duration>,
    },
    /// Remove the container with its anonymous volumes.
    Remove {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
    },
}
