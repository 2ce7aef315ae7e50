//! One manager: the real brain over its own disk and clock.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_cluster::{Change, Cluster, Objects};
use skep_types::{Ids, Time};

use crate::disk::Disk;

/// Where the machines' clocks stand when a run begins, so that wrong ones may lie before it.
pub(crate) const EPOCH: Duration = Duration::from_secs(100_000);

/// A manager.
#[derive(Debug)]
pub(crate) struct Manager {
    /// `None` while its process is down.
    pub cluster: Option<Cluster>,
    /// The name of its seat in the consensus.
    pub seat: u64,
    /// Raised whenever its process begins or ends.
    pub life: u64,
    /// Until when its process is stopped without ending.
    pub paused_until: Time,
    pub ids: Ids,
    pub disk: Disk,
    /// Whether it believes that it leads, and in which term.
    pub leads: Option<u64>,
    /// When it began to lead the last time.
    pub leads_since: Time,
    /// What it proposed and knows no end of.
    pub in_flight: Option<Vec<Change>>,
    /// Open sessions: the node and the session's number.
    pub sessions: BTreeMap<usize, u64>,
    pub wake_at: Option<Time>,
    /// Whether it was demoted and gave up its seat. Should its node be promoted again, another takes its place.
    pub retired: bool,
    /// How far its clock is ahead of the true time, which begins at [`EPOCH`], in nanoseconds.
    pub skew: i64,
}

impl Manager {
    pub fn new(ids: Ids) -> Manager {
        Manager {
            cluster: None,
            seat: ids.clone().next_u64(),
            life: 0,
            paused_until: Time(0),
            ids,
            disk: Disk::default(),
            leads: None,
            leads_since: Time(0),
            in_flight: None,
            sessions: BTreeMap::new(),
            wake_at: None,
            retired: false,
            skew: 0,
        }
    }

    /// Whether it takes in what is said to it.
    pub fn runs(&self, now: Time) -> bool {
        self.cluster.is_some() && self.paused_until <= now
    }

    pub fn objects(&self) -> Option<&Objects> {
        self.cluster.as_ref().map(Cluster::objects)
    }

    /// Its process ends, without a trace but what is on its disk.
    pub fn die(&mut self) {
        self.cluster = None;
        self.life += 1;
        self.leads = None;
        self.in_flight = None;
        self.sessions.clear();
        self.wake_at = None;
        self.paused_until = Time(0);
    }

    /// What its clock says.
    pub fn clock(&self, now: Time) -> Time {
        Time((now + EPOCH).0.saturating_add_signed(self.skew))
    }

    /// When its clock will say `at`.
    pub fn when(&self, at: Time) -> Time {
        Time(0) + Time(at.0.saturating_add_signed(-self.skew)).since(Time(0) + EPOCH)
    }
}
