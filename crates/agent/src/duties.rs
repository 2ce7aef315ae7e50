//! Networks and endpoints: kept as asked, each with at most one operation under way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use skep_types::Time;
use skep_types::assignment::{Endpoint, Overlay};
use skep_types::network::Network;
use skep_types::tunnel::{Tunnel, TunnelPeer};

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
    /// This node's own place on it, where it spans machines.
    overlay: Option<Overlay>,
    /// What the operation under way will bring about.
    ensuring: Option<(Network, Option<Overlay>)>,
    pub(crate) state: NetworkState,
    /// Whether the machine may have something of it.
    pub(crate) leaves_something: bool,
    pub(crate) retry: Retry,
}

impl NetworkDuty {
    pub(crate) fn wanted(network: Network) -> NetworkDuty {
        NetworkDuty {
            wanted: Some(network),
            state: NetworkState::Absent,
            leaves_something: false,
            ..NetworkDuty::left_over()
        }
    }

    pub(crate) fn left_over() -> NetworkDuty {
        NetworkDuty {
            wanted: None,
            overlay: None,
            ensuring: None,
            state: NetworkState::Ready,
            leaves_something: true,
            retry: Retry::default(),
        }
    }

    /// Takes a new description of the network; a changed one is brought up again.
    pub(crate) fn update(&mut self, network: Network) {
        if self.state == NetworkState::Ready && self.wanted.as_ref() != Some(&network) {
            self.state = NetworkState::Absent;
        }
        self.wanted = Some(network);
    }

    /// Takes this node's place on the network; another one is brought up as a changed network is.
    pub(crate) fn place(&mut self, overlay: Option<Overlay>) {
        if self.state == NetworkState::Ready && self.overlay != overlay {
            self.state = NetworkState::Absent;
        }
        self.overlay = overlay;
    }

    /// It is wanted no more, and stays as it is until the last task on it has ended.
    pub(crate) fn forsake(&mut self) {
        self.wanted = None;
        if self.state == NetworkState::Absent && self.leaves_something && self.retry.at.is_none() {
            self.state = NetworkState::Ready;
        }
    }

    /// Whether it is there as it is wanted, so that its peers can be told.
    pub(crate) fn is_up(&self) -> bool {
        self.wanted.is_some() && self.stands()
    }

    /// Whether it is there, so that names on it can be told: also where nobody wants it any more, since what is on it
    /// is not called by a name when it is stopped.
    pub(crate) fn stands(&self) -> bool {
        self.state == NetworkState::Ready
    }

    /// Whether it is there, or is about to be: not where the last try failed.
    pub(crate) fn is_coming(&self) -> bool {
        self.wanted.is_some() && (self.stands() || self.retry.at.is_none())
    }

    /// Whether names on it are in force, or can be.
    pub(crate) fn has_names(&self) -> bool {
        self.stands() || self.is_coming()
    }

    /// What to bring up now, if the network is wanted.
    pub(crate) fn begin(&mut self) -> Option<(Network, Option<Overlay>)> {
        self.ensuring = self.wanted.clone().map(|network| (network, self.overlay));
        self.state = NetworkState::Ensuring;
        self.leaves_something = true;
        self.retry.at = None;
        self.ensuring.clone()
    }

    /// It was brought up as it was wanted when that began; what is wanted now may differ.
    pub(crate) fn ensured(&mut self) {
        self.retry.reset();
        let ensured = self.ensuring.take();
        let still_wanted = self.wanted.is_none()
            || ensured.is_some_and(|(network, overlay)| {
                self.wanted.as_ref() == Some(&network) && self.overlay == overlay
            });
        self.state = if still_wanted { NetworkState::Ready } else { NetworkState::Absent };
    }
}

/// What is known of a table in the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied<T> {
    /// A former agent may have left anything.
    Unknown,
    Nothing,
    Table(T),
}

/// A table that clients are served by: what is asked, what is in force, what is under way.
#[derive(Debug)]
pub(crate) struct TableDuty<T> {
    wanted: Option<T>,
    applied: Applied<T>,
    /// What the operation under way will bring into force.
    applying: Option<Option<T>>,
    /// The number of the oldest assignment whose word is not in force, while one is not.
    since: u64,
    /// That of the first one that the operation under way knows nothing of.
    later: Option<u64>,
    /// Why the last attempt failed.
    trouble: Option<String>,
    pub(crate) retry: Retry,
}

/// A node's part in encrypted networks, and the others that may take part.
pub(crate) type TunnelDuty = TableDuty<(Option<Tunnel>, BTreeMap<IpAddr, TunnelPeer>)>;

/// A service's endpoint.
pub(crate) type EndpointDuty = TableDuty<Endpoint>;

impl<T: Clone + PartialEq> TableDuty<T> {
    /// A table that was named by an assignment of this number, or left by a former agent (before all numbers).
    pub(crate) fn new(wanted: Option<T>, number: u64) -> TableDuty<T> {
        TableDuty {
            wanted,
            applied: Applied::Unknown,
            applying: None,
            since: number,
            later: None,
            trouble: None,
            retry: Retry::default(),
        }
    }

    /// Takes the managers' newer word.
    pub(crate) fn want(&mut self, table: Option<T>, number: u64) {
        if self.wanted == table {
            return;
        }
        self.retry.reset();
        if self.applying.is_some() {
            self.later = self.later.or(Some(number));
        } else if self.in_force() {
            self.since = number;
        }
        self.wanted = table;
    }

    /// What the managers want served.
    pub(crate) fn wanted(&self) -> Option<&T> {
        self.wanted.as_ref()
    }

    /// Why clients are not served as they should be: for the status of those that would answer them. Empty when they are,
    /// `None` while nobody knows yet.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or_else(|| self.in_force().then_some(""))
    }

    fn in_force(&self) -> bool {
        match (&self.wanted, &self.applied) {
            (Some(wanted), Applied::Table(applied)) => wanted == applied,
            (None, Applied::Nothing) => true,
            (_, Applied::Unknown | Applied::Nothing) | (None, Applied::Table(_)) => false,
        }
    }

    /// Whether a task of this service must not be stopped yet. A table that cannot be changed does not hold
    /// a task up for ever: its failed operation is tried again later.
    pub(crate) fn unsettled(&self) -> bool {
        self.applying.is_some() || (!self.in_force() && self.retry.at.is_none())
    }

    /// The number of the first assignment that cannot be acknowledged for this table. One that fails again and again
    /// holds nothing up: it would make each end of any task wait for as long as the managers are willing to.
    pub(crate) fn holds_back(&self) -> Option<u64> {
        let holds = (self.applying.is_some() || !self.in_force()) && !self.retry.keeps_failing();
        holds.then_some(self.since)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.wanted.is_none() && self.applying.is_none() && self.in_force()
    }

    /// What to bring into force now, if anything.
    pub(crate) fn begin(&mut self, now: Time) -> Option<Option<T>> {
        if self.applying.is_some() || self.in_force() || self.retry.waits(now) {
            return None;
        }
        self.retry.at = None;
        self.applying = Some(self.wanted.clone());
        self.applying.clone()
    }

    pub(crate) fn end(&mut self, result: Result<(), String>, now: Time) {
        let Some(applying) = self.applying.take() else { return };
        let later = self.later.take();
        match result {
            Ok(()) => {
                self.applied = applying.map_or(Applied::Nothing, Applied::Table);
                self.since = later.unwrap_or(self.since);
                self.retry.reset();
                self.trouble = None;
            }
            Err(error) => {
                self.applied = Applied::Unknown;
                self.retry.failed(now);
                self.trouble = Some(error);
            }
        }
    }
}
