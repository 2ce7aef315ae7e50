//! A node's work as a manager: its part in the consensus, and the listener for other nodes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use skep_cluster::Request;
use skep_types::node::{Member, NodeRole, NodeSpec};
use skep_types::tunnel::NETWORK_KEY_LIFE;
use skep_types::{NodeId, Time};
use tracing::{info, warn};

use super::desk::Desk;
use super::keys;
use super::shared::Shared;
use super::transport::ManagerTransport;
use crate::SwarmError;
use crate::founding::network_keys;
use crate::manager::{Manager, Setup};
use crate::wire::{CallError, Listener, SeatCall};

/// How long a manager that leaves tries to give up its seat, and a node that was removed may stay connected.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a manager that comes back waits for what its log holds.
const READING: Duration = Duration::from_secs(2);

/// A manager's office, open.
pub(crate) struct Office {
    pub(crate) manager: Manager,
    pub(crate) desk: Arc<Desk>,
    /// `None` once it is closed.
    listener: Mutex<Option<Listener>>,
    /// The nodes that were there at the last look.
    nodes: Mutex<BTreeSet<NodeId>>,
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl Office {
    /// Opens the log of this node's seat and listens; the node has the office from then on.
    ///
    /// # Errors
    /// When the log cannot be used or the address not be listened on.
    pub(crate) async fn open(shared: &Arc<Shared>) -> Result<Arc<Office>, SwarmError> {
        let record = shared.record();
        let address: SocketAddr = record.listen_addr.parse().map_err(|error| {
            SwarmError::Internal(format!("the listen address {} is none: {error}", record.listen_addr))
        })?;
        let seat = record.seat.expect("an office is opened with a seat");
        let (files, folder) = (shared.files.clone(), shared.folder.clone());
        let consensus = shared.on_disk(move || keys::consensus(&files, &folder, seat)).await?;
        let setup = Setup {
            consensus,
            transport: Arc::new(ManagerTransport::new(shared.connections.clone())),
            remote: Arc::new(shared.connections.clone()),
            announcer: shared.announcer.clone(),
        };
        let manager = Manager::start(setup).await.map_err(|error| SwarmError::internal(&error))?;
        let desk = Arc::new(Desk::new(Arc::clone(shared), manager.clone()));
        let listener = match Listener::start(address, shared.credentials.clone(), Arc::clone(&desk)).await {
            Ok(listener) => listener,
            Err(error) => {
                manager.stop().await;
                // SwarmKit's words (manager.go, `BindRemote`).
                let message =
                    format!("failed to listen on remote API address: listen tcp {address}: {error}");
                return Err(SwarmError::Unavailable(message));
            }
        };
        let address = listener.address();
        let office = Office { manager, desk, listener: Mutex::new(Some(listener)), nodes: Mutex::default() };
        let office = Arc::new(office);
        shared.set_office(Some(Arc::clone(&office)));
        info!(%address, "this node is open for others as a manager");
        Ok(office)
    }

    /// Waits until this manager has read its log as far as it can without the others, and a little for these.
    pub(crate) async fn until_read(&self) {
        let known = || self.manager.read(|objects| objects.cluster().is_some());
        let mut changes = self.manager.changes();
        let read = async { while !known() && changes.changed().await.is_ok() {} };
        // Without a majority of the others a log may hold nothing that is known to be agreed on.
        let _ = tokio::time::timeout(READING, read).await;
    }

    /// Has new secrets of encrypted networks made when that is due, where this manager leads.
    ///
    /// # Errors
    /// When the system has no randomness, or nothing can be agreed on.
    pub(crate) async fn rotate_network_keys(&self) -> Result<(), SwarmError> {
        if !self.manager.leads() {
            return Ok(());
        }
        let known = self.manager.read(|objects| {
            let cluster = objects.cluster()?;
            Some((cluster.network_keys.last().map_or(0, |key| key.number), cluster.network_keys_at))
        });
        let Some((last, made_at)) = known else { return Ok(()) };
        // The brain looks again, by its own clock.
        if last > 0 && Time::from(SystemTime::now()).since(made_at) < NETWORK_KEY_LIFE {
            return Ok(());
        }
        let keys = network_keys(last, if last == 0 { 2 } else { 1 })?;
        self.manager.request(Request::RotateNetworkKeys(keys)).await.map(drop)
    }

    /// Cuts the connections of nodes that were removed since the last call, after a moment in which they hear that
    /// they have no duties any more. Their calls are refused anyway.
    pub(crate) fn cut_off_removed(self: &Arc<Self>) {
        let nodes: BTreeSet<NodeId> =
            self.manager.read(|objects| objects.nodes().map(|node| node.id).collect());
        let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let removed: Vec<NodeId> = known.difference(&nodes).copied().collect();
        *known = nodes;
        drop(known);
        if removed.is_empty() {
            return;
        }
        let office = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            let Some(office) = office.upgrade() else { return };
            if let Some(listener) = &*office.listener.lock().unwrap_or_else(PoisonError::into_inner) {
                removed.iter().for_each(|node| listener.disconnect(*node));
            }
        });
    }

    /// Asks the leader for this node's seat. May be repeated.
    pub(crate) async fn take_seat(&self, shared: &Shared) -> Result<(), CallError> {
        let record = shared.record();
        let raft = record.seat.expect("an office is opened with a seat");
        let call = SeatCall { raft, address: record.advertise_addr };
        let ask = |address: String| {
            let (connections, call) = (shared.connections.clone(), call.clone());
            async move { connections.take_seat(&address, call).await }
        };
        shared.managers.ask_leader(ask).await
    }

    /// Gives up this node's seat as far as the others let it: they keep a quorum without it then.
    pub(crate) async fn give_up_seat(&self, shared: &Shared) {
        // The last one takes the cluster along.
        if self.manager.managers().len() <= 1 {
            return;
        }
        let ask = |address: String| {
            let connections = shared.connections.clone();
            async move { connections.give_up_seat(&address).await }
        };
        let given_up = async {
            // A leader hands the lead on with its seat.
            match self.manager.take_seat_back(shared.node()).await {
                Err(CallError::NotLeader { leader }) => {
                    shared.managers.follow(leader);
                    shared.managers.ask_leader(ask).await
                }
                answer => answer,
            }
        };
        match tokio::time::timeout(FAREWELL, given_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "this manager's seat stays with the others"),
            Err(_) => warn!("this manager's seat stays with the others: nobody answered in time"),
        }
    }

    /// Stops listening and leaves the log for the next time. Another leads, if there is another.
    pub(crate) async fn close(&self) {
        self.manager.abdicate().await;
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.stop().await;
        }
        self.manager.stop().await;
    }

    /// Makes this manager's state that of a cluster with it as the only manager. The others are workers from now on:
    /// one that comes back after all must not take part with what its log holds of the cluster of before.
    pub(crate) async fn seat_alone(&self, shared: &Shared) -> Result<(), SwarmError> {
        let record = shared.record();
        let raft = record.seat.expect("an office is opened with a seat");
        let member = Member { raft, address: record.advertise_addr };
        self.manager.request(Request::SetSeat { node: record.node, seat: Some(member) }).await?;
        // Whoever leads knows all that is committed.
        let others: Vec<_> = self.manager.read(|objects| {
            let seated = objects.nodes().filter(|node| node.manager.is_some() && node.id != record.node);
            seated.map(|node| node.id).collect()
        });
        for node in others {
            self.manager.request(Request::SetSeat { node, seat: None }).await?;
        }
        let others: Vec<NodeId> = self.manager.read(|objects| {
            let managers = objects.nodes().filter(|node| node.spec.role == NodeRole::Manager);
            managers.map(|node| node.id).filter(|id| *id != record.node).collect()
        });
        for node in others {
            self.demote(node).await?;
        }
        Ok(())
    }

    async fn demote(&self, id: NodeId) -> Result<(), SwarmError> {
        loop {
            let Some(node) = self.manager.read(|objects| objects.node(id).cloned()) else { return Ok(()) };
            let version = node.meta.version;
            let spec = Box::new(NodeSpec { role: NodeRole::Worker, ..node.spec });
            let demoted = self.manager.request(Request::UpdateNode { id, version, spec }).await;
            let moved = self.manager.read(|objects| objects.node(id).map(|node| node.meta.version));
            match demoted {
                // Its state changed meanwhile.
                Err(_) if moved != Some(version) => {}
                done => return done.map(drop),
            }
        }
    }
}
