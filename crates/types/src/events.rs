//! Events, as `docker events` shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This engine.
    Local,
    /// The cluster.
    Swarm,
}

/// The kind of object that an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// container
    Container,
    /// image
    Image,
    /// volume
    Volume,
    /// network
    Network,
    /// daemon
    Daemon,
    /// service
    Service,
    /// node
    Node,
}

impl EventKind {
    /// The kind's name at the API.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Container => "container",
            EventKind::Image => "image",
            EventKind::Volume => "volume",
            EventKind::Network => "network",
            EventKind::Daemon => "daemon",
            EventKind::Service => "service",
            EventKind::Node => "node",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// What happened: `create`, `start`, `die`, `exec_create: sh`...
    pub action: String,
    /// Id of the object.
    pub id: String,
    /// Docker's attributes for this kind: name, image, exitCode, labels...
    pub attributes: BTreeMap<String, String>,
    /// Where it comes from.
    pub scope: Scope,
    /// When.
    pub time: Time,
}
