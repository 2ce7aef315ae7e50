//! The step: one event in, decisions out.

use std::net::IpAddr;

use skep_types::assignment::{Assignment, StatusReport};
use skep_types::node::NodeDescription;
use skep_types::{Ids, NodeId, Time};

use crate::{Change, Objects, Reply, Request, RequestId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This manager leads from now on; its objects hold all that is committed.
    Started,
    /// This manager leads no longer. Open requests are answered with "unavailable".
    Deposed,
    /// A user asks for a change.
    Request(RequestId, Request),
    /// An agent reports on its tasks. A report may come twice, and late.
    Reports(NodeId, Vec<StatusReport>),
    /// An agent opened a session: it is sent everything it is responsible for, and then differences. It
    /// must follow up with reports on all tasks that it knows.
    NodeReady {
        /// Which node.
        node: NodeId,
        /// What it tells of itself.
        description: Box<NodeDescription>,
        /// The address that it is reached at.
        address: IpAddr,
    },
    /// An agent's session ended and its time of grace passed.
    NodeLost {
        /// Which node.
        node: NodeId,
        /// Why, for the user: `heartbeat failure`.
        reason: String,
    },
    /// The proposal in flight is durable, at this position of the log.
    Committed {
        /// The position.
        index: u64,
    },
    /// The log took the proposal in flight not, and never will (a full disk). It is made anew later.
    Refused {
        /// Why, for whoever asked.
        reason: String,
    },
    /// An entry that another manager proposed was committed.
    Applied {
        /// Its position.
        index: u64,
        /// What it holds.
        changes: Vec<Change>,
    },
    /// The time of [`Output::wake_at`] has come.
    Tick,
}

/// What is to be done, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Append these to the log as one entry, unless empty, then say [`Event::Committed`]. Never given
    /// while another proposal is in flight.
    pub propose: Vec<Change>,
    /// Answer these requests.
    pub replies: Vec<Reply>,
    /// Send these to the nodes' agents, in this order. What cannot be delivered ends the agent's session.
    pub sends: Vec<(NodeId, Assignment)>,
    /// Say [`Event::Tick`] at this time; replaces what earlier steps said.
    pub wake_at: Option<Time>,
}

/// A manager's view of the cluster, and the decisions of the one that leads.
#[derive(Debug)]
pub struct Cluster {
    objects: Objects,
}

impl Cluster {
    /// A manager that does not lead yet, over what its log gave so far.
    pub fn new(objects: Objects) -> Cluster {
        Cluster { objects }
    }

    /// The committed state.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Everything a leader decides. Reads no clock and draws no id of its own.
    pub fn step(&mut self, _event: Event, _now: Time, _ids: &mut Ids) -> Output {
        todo!()
    }
}
