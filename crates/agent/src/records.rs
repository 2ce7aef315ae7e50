//! What is called how on a network: told in differences, and whole whenever it is not certain what is in force.

use std::collections::BTreeSet;

use skep_types::assignment::ServiceRecord;
use skep_types::network::Guest;
use skep_types::records::{RecordChange, Records};
use skep_types::{ContainerId, ServiceId, Time};

use crate::agent::Retry;

/// The names of one network.
#[derive(Debug, Default)]
pub(crate) struct RecordsDuty {
    wanted: Records,
    /// Those that are not in force as they are wanted.
    services: BTreeSet<ServiceId>,
    guests: BTreeSet<ContainerId>,
    /// Whether all others are in force.
    known: bool,
    /// Whether they were told once, since the network was last brought up anew.
    told: bool,
    under_way: bool,
    /// The number of the oldest assignment whose word is not in force, while one is not.
    since: Option<u64>,
    /// That of the first one that the operation under way knows nothing of.
    later: Option<u64>,
    pub(crate) retry: Retry,
}

impl RecordsDuty {
    /// Takes the managers' newer word on one service; `None` is not on the network.
    pub(crate) fn want_service(&mut self, id: ServiceId, record: Option<ServiceRecord>, number: u64) {
        let before = match record.clone() {
            Some(record) => self.wanted.services.insert(id, record),
            None => self.wanted.services.remove(&id),
        };
        if before != record {
            self.services.insert(id);
            self.note(number);
        }
    }

    /// Takes the managers' newer word on one guest; `None` is not on the network.
    pub(crate) fn want_guest(&mut self, id: ContainerId, guest: Option<Guest>, number: u64) {
        let before = match guest.clone() {
            Some(guest) => self.wanted.guests.insert(id, guest),
            None => self.wanted.guests.remove(&id),
        };
        if before != guest {
            self.guests.insert(id);
            self.note(number);
        }
    }

    fn note(&mut self, number: u64) {
        let noted = if self.under_way { &mut self.later } else { &mut self.since };
        noted.get_or_insert(number);
    }

    /// Wants only what is named.
    pub(crate) fn keep(
        &mut self,
        service: impl Fn(ServiceId) -> bool,
        guest: impl Fn(ContainerId) -> bool,
        number: u64,
    ) {
        let services: Vec<_> = self.wanted.services.keys().copied().filter(|id| !service(*id)).collect();
        services.into_iter().for_each(|id| self.want_service(id, None, number));
        let guests: Vec<_> = self.wanted.guests.keys().copied().filter(|id| !guest(*id)).collect();
        guests.into_iter().for_each(|id| self.want_guest(id, None, number));
    }

    /// What was brought into force may have gone.
    pub(crate) fn invalidate(&mut self) {
        self.known = false;
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Whether nobody wants any name of the network.
    pub(crate) fn is_idle(&self) -> bool {
        self.wanted == Records::default() && !self.under_way
    }

    /// Whether a container may be made that asks for these names: not for ever, where they cannot be told.
    pub(crate) fn is_told(&self) -> bool {
        self.told || self.retry.at.is_some()
    }

    fn in_force(&self) -> bool {
        self.known && self.services.is_empty() && self.guests.is_empty() && !self.under_way
    }

    /// Whether what was taken out of them must not be stopped yet; not for ever, where the last try failed.
    pub(crate) fn unsettled(&self) -> bool {
        !self.in_force() && self.retry.at.is_none()
    }

    /// The number of the first assignment that cannot be acknowledged for these names.
    pub(crate) fn holds_back(&self) -> Option<u64> {
        self.since.filter(|_| !self.retry.keeps_failing())
    }

    /// What to bring into force now, if anything.
    pub(crate) fn begin(&mut self, now: Time) -> Option<RecordChange> {
        if self.under_way || self.in_force() || self.retry.waits(now) {
            return None;
        }
        self.retry.at = None;
        self.under_way = true;
        let (services, guests) = (std::mem::take(&mut self.services), std::mem::take(&mut self.guests));
        if !self.known {
            return Some(RecordChange::All(self.wanted.clone()));
        }
        let mut update = Records::default();
        let (mut services_gone, mut guests_gone) = (BTreeSet::new(), BTreeSet::new());
        for id in services {
            match self.wanted.services.get(&id) {
                Some(record) => drop(update.services.insert(id, record.clone())),
                None => drop(services_gone.insert(id)),
            }
        }
        for id in guests {
            match self.wanted.guests.get(&id) {
                Some(guest) => drop(update.guests.insert(id, guest.clone())),
                None => drop(guests_gone.insert(id)),
            }
        }
        Some(RecordChange::Changed { update, services: services_gone, guests: guests_gone })
    }

    /// What was begun ended. After a failure nothing is certain, so everything is told anew.
    pub(crate) fn end(&mut self, result: &Result<(), String>, now: Time) {
        self.under_way = false;
        self.known = result.is_ok();
        let later = self.later.take();
        match result {
            Ok(()) => {
                self.told = true;
                self.since = later;
                self.retry.reset();
            }
            Err(_) => {
                self.since = self.since.or(later);
                self.retry.failed(now);
            }
        }
    }
}
