//! What agent and leader say to each other in a session.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_types::assignment::{Assignment, StatusReport, TaskUsage};
use skep_types::node::{Member, Node, NodeDescription};
use skep_types::{NodeId, ServiceId};
use tokio::sync::mpsc;

use crate::wire::CallError;

/// What an agent opens its session with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) description: NodeDescription,
    /// The address that the node is reached at.
    pub(crate) address: IpAddr,
    /// The address that overlay networks reach it at; `None` follows `address`.
    pub(crate) data_path: Option<IpAddr>,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromAgent {
    /// What became of its tasks.
    Reports(Vec<StatusReport>),
    /// All that was said of tables up to the assignment of this number is in force.
    Acknowledged(u64),
    /// What its tasks of the services that it is to measure used since it said so last.
    Usage(Vec<TaskUsage>),
    /// It is there.
    Beat,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToAgent {
    /// What the node is responsible for. The first one in a session is complete.
    Assignment {
        /// The position of the log that it is as of.
        number: u64,
        assignment: Assignment,
    },
    /// For the node that the agent is part of.
    News(News),
    /// The tasks of these services are to be measured, and of no others.
    Measure(BTreeSet<ServiceId>),
    /// How often the agent must say something from now on.
    Beat(Duration),
}

/// What the leader tells a node, other than its duties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The node itself, when a session opens and whenever it changes: wanted role, labels...
    Node(Box<Node>),
    /// All managers, when a session opens and whenever they change.
    Managers(Vec<(NodeId, Member)>),
    /// The roots that the cluster trusts, PEM, and whether the node is to renew its certificate now.
    Authority { roots: String, renew: bool },
}

/// A session as its agent sees it. It ends when either half is dropped or closed.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) to_manager: mpsc::Sender<FromAgent>,
    pub(crate) from_manager: mpsc::Receiver<ToAgent>,
}

/// Finds the leader.
pub(crate) trait Connector: Send + Sync + 'static {
    /// Opens a session with whoever leads: in process where this node does, otherwise at the last known leader, then
    /// at all other managers. One try; the agent comes again after a pause.
    fn connect(&self, hello: Hello) -> impl Future<Output = Result<Link, CallError>> + Send;
}
