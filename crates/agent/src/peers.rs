//! Where a network's addresses on other nodes are: told in differences, and whole whenever it is not certain what is in
//! force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_types::Time;

use crate::agent::Retry;
use crate::event::PeerChange;

/// The peers of one network.
#[derive(Debug, Default)]
pub(crate) struct PeersDuty {
    wanted: BTreeMap<Ipv4Addr, IpAddr>,
    /// Addresses that are not in force as they are wanted.
    changed: BTreeSet<Ipv4Addr>,
    /// Whether all others are in force.
    known: bool,
    under_way: bool,
    pub(crate) retry: Retry,
}

impl PeersDuty {
    /// Takes the managers' newer word on one address; `None` is on no other node.
    pub(crate) fn want(&mut self, address: Ipv4Addr, host: Option<IpAddr>) {
        let before = match host {
            Some(host) => self.wanted.insert(address, host),
            None => self.wanted.remove(&address),
        };
        if before != host {
            self.changed.insert(address);
        }
    }

    /// Wants only addresses that `named` says.
    pub(crate) fn keep(&mut self, named: impl Fn(Ipv4Addr) -> bool) {
        let gone: Vec<Ipv4Addr> = self.wanted.keys().copied().filter(|address| !named(*address)).collect();
        for address in gone {
            self.want(address, None);
        }
    }

    /// What was brought into force may have gone.
    pub(crate) fn invalidate(&mut self) {
        self.known = false;
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Whether nobody wants any peer of the network.
    pub(crate) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && !self.under_way
    }

    fn in_force(&self) -> bool {
        self.known && self.changed.is_empty() && !self.under_way
    }

    /// Whether what needs the peers must wait; not for ever, where the last try failed.
    pub(crate) fn unsettled(&self) -> bool {
        !self.in_force() && self.retry.at.is_none()
    }

    /// What to bring into force now, if anything.
    pub(crate) fn begin(&mut self, now: Time) -> Option<PeerChange> {
        if self.under_way || self.in_force() || self.retry.waits(now) {
            return None;
        }
        self.retry.at = None;
        self.under_way = true;
        let changed = std::mem::take(&mut self.changed);
        if !self.known {
            return Some(PeerChange::All(self.wanted.clone()));
        }
        let (mut update, mut remove) = (BTreeMap::new(), BTreeSet::new());
        for address in changed {
            match self.wanted.get(&address) {
                Some(host) => {
                    update.insert(address, *host);
                }
                None => {
                    remove.insert(address);
                }
            }
        }
        Some(PeerChange::Changed { update, remove })
    }

    /// What was begun ended. After a failure nothing is certain, so everything is told anew.
    pub(crate) fn end(&mut self, result: &Result<(), String>, now: Time) {
        self.under_way = false;
        self.known = result.is_ok();
        match result {
            Ok(()) => self.retry.reset(),
            Err(_) => self.retry.failed(now),
        }
    }
}
