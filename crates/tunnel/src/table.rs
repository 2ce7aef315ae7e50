//! What the threads that carry packets go by: one immutable table, replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::session::Session;

/// A network that is carried.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// The TAP device.
    pub(crate) tap: Arc<OwnedFd>,
    /// Where its addresses are that are on other nodes.
    pub(crate) peers: Arc<BTreeMap<Ipv4Addr, Ipv4Addr>>,
}

/// Everything that a packet's way depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) networks: BTreeMap<u32, Network>,
    /// Sessions to send with, by host.
    pub(crate) sending: BTreeMap<Ipv4Addr, Arc<Session>>,
    /// Sessions to receive with, by our names of them.
    pub(crate) receiving: HashMap<u32, Arc<Session>>,
}

/// The table of the moment, and what has been counted.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    version: AtomicU64,
    table: Mutex<Arc<Table>>,
    pub(crate) counters: Counters,
}

/// What happened to packets, since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Frames for an address that is on no host, or on one without a session for too long.
    pub(crate) unsent: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) forged: AtomicU64,
    /// Packets that are of no session, and no handshake either.
    pub(crate) unknown: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn replace(&self, table: Table) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// A thread's view of the table.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) shared: Arc<Shared>,
    version: u64,
    pub(crate) table: Arc<Table>,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>) -> View {
        View { shared, version: u64::MAX, table: Arc::default() }
    }

    /// Looks whether the table has been replaced; whether it was.
    pub(crate) fn refresh(&mut self) -> bool {
        let version = self.shared.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        self.version = version;
        self.table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner).clone();
        true
    }
}
