//! Networks and endpoints: kept as asked, each with at most one operation under way.

use skep_types::Time;
use skep_types::assignment::Endpoint;
use skep_types::network::Network;

use crate::agent::Retry;

/// Where a network stands on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkState {
    Absent,
    Ensuring,
    Ready,
    Removing,
}

/// A network that the managers named, or that a former agent left.
#[derive(Debug)]
pub(crate) struct NetworkDuty {
    /// `None` once it is no longer this node's.
    pub(crate) wanted: Option<Network>,
    pub(crate) state: NetworkState,
    pub(crate) retry: Retry,
}

impl NetworkDuty {
    pub(crate) fn wanted(network: Network) -> NetworkDuty {
        NetworkDuty { wanted: Some(network), state: NetworkState::Absent, retry: Retry::default() }
    }

    pub(crate) fn left_over() -> NetworkDuty {
        NetworkDuty { wanted: None, state: NetworkState::Ready, retry: Retry::default() }
    }

    /// Takes a new description of the network; a changed one is brought up again.
    pub(crate) fn update(&mut self, network: Network) {
        if self.state == NetworkState::Ready && self.wanted.as_ref() != Some(&network) {
            self.state = NetworkState::Absent;
        }
        self.wanted = Some(network);
    }
}

/// What is known of the table that serves an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A former agent may have left anything.
    Unknown,
    Nothing,
    Endpoint(Endpoint),
}

/// A service's endpoint: what is asked, what is in force, what is under way.
#[derive(Debug)]
pub(crate) struct EndpointDuty {
    wanted: Option<Endpoint>,
    applied: Applied,
    /// What the operation under way will bring into force.
    applying: Option<Option<Endpoint>>,
    pub(crate) retry: Retry,
}

impl EndpointDuty {
    pub(crate) fn new(wanted: Option<Endpoint>) -> EndpointDuty {
        EndpointDuty { wanted, applied: Applied::Unknown, applying: None, retry: Retry::default() }
    }

    /// Takes the managers' newer word.
    pub(crate) fn want(&mut self, endpoint: Option<Endpoint>) {
        if self.wanted != endpoint {
            self.retry.reset();
        }
        self.wanted = endpoint;
    }

    /// What the managers want served.
    pub(crate) fn wanted(&self) -> Option<&Endpoint> {
        self.wanted.as_ref()
    }

    fn in_force(&self) -> bool {
        match (&self.wanted, &self.applied) {
            (Some(wanted), Applied::Endpoint(applied)) => wanted == applied,
            (None, Applied::Nothing) => true,
            (_, Applied::Unknown | Applied::Nothing) | (None, Applied::Endpoint(_)) => false,
        }
    }

    /// Whether a task of this service must not be stopped yet. A table that cannot be changed does not hold
    /// a task up for ever: its failed operation is tried again later.
    pub(crate) fn unsettled(&self) -> bool {
        self.applying.is_some() || (!self.in_force() && self.retry.at.is_none())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.wanted.is_none() && self.applying.is_none() && self.in_force()
    }

    /// What to bring into force now, if anything.
    pub(crate) fn begin(&mut self, now: Time) -> Option<Option<Endpoint>> {
        if self.applying.is_some() || self.in_force() || self.retry.waits(now) {
            return None;
        }
        self.retry.at = None;
        self.applying = Some(self.wanted.clone());
        self.applying.clone()
    }

    pub(crate) fn end(&mut self, result: Result<(), String>, now: Time) {
        let Some(applying) = self.applying.take() else { return };
        match result {
            Ok(()) => {
                self.applied = applying.map_or(Applied::Nothing, Applied::Endpoint);
                self.retry.reset();
            }
            Err(_) => {
                self.applied = Applied::Unknown;
                self.retry.failed(now);
            }
        }
    }
}
