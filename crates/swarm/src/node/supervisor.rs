//! Keeps a node what its cluster wants it to be: worker or manager, with a certificate that holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_identity::Role;
use skep_types::node::{Node, NodeRole};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::keys;
use super::office::Office;
use super::shared::Shared;
use crate::SwarmError;
use crate::founding;
use crate::session::News;

/// Wait after a step that failed.
const RETRY: Duration = Duration::from_secs(1);
/// The longest sleep before a look at the clock: clocks jump, and machines sleep.
const LOOK: Duration = Duration::from_secs(600);

/// The actor.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    news: mpsc::Receiver<News>,
    /// What the leader told last of this node.
    node: Option<Node>,
    /// The leader asked for a renewal that has not been done yet.
    renew: bool,
    /// When to ask for the next certificate.
    renew_at: SystemTime,
    /// A step failed; the next try is then.
    retry_at: Option<Instant>,
    /// Moves when the manager's state does, while the node is one.
    changes: Option<watch::Receiver<u64>>,
    /// Whether this node is all that it is to be.
    ready: watch::Sender<bool>,
}

impl Supervisor {
    /// For the node, which hears `news` from its leader.
    pub(crate) fn new(shared: Arc<Shared>, news: mpsc::Receiver<News>) -> Supervisor {
        let changes = shared.office().map(|office| office.manager.changes());
        let renew_at = keys::renewal_time(&shared.credentials);
        let ready = watch::Sender::new(false);
        Supervisor { shared, news, node: None, renew: false, renew_at, retry_at: None, changes, ready }
    }

    /// Tells when this node is all that its cluster wants it to be.
    pub(crate) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Runs until told to stop. What it does to the outside is safe to be cut off anywhere.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let worked = async {
                self.work().await;
                let pause = self.pause();
                tokio::select! {
                    Some(news) = self.news.recv() => self.hear(news).await,
                    () = changed(&mut self.changes) => {}
                    () = tokio::time::sleep(pause) => {}
                }
            };
            tokio::select! {
                biased;
                _ = &mut stop => return,
                () = worked => {}
            }
        }
    }

    fn pause(&self) -> Duration {
        let renewal = self.renew_at.duration_since(SystemTime::now()).unwrap_or_default();
        let retry = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        // A renewal that is due and failed waits for its retry.
        retry.unwrap_or(renewal).min(LOOK)
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Node(node) => {
                if self.node.as_ref().is_some_and(|known| known.spec.role != node.spec.role) {
                    self.retry_at = None;
                }
                self.node = Some(*node);
            }
            News::Managers(managers) => {
                for address in self.shared.managers.learn(&managers) {
                    self.shared.connections.forget(&address);
                }
            }
            News::Authority { roots, renew } => {
                self.renew |= renew;
                if let Err(error) = keys::trust(&self.shared, roots).await {
                    warn!(%error, "the cluster's new roots are not taken");
                }
            }
        }
    }

    /// Does what is to be done now; what fails is tried again after a while.
    async fn work(&mut self) {
        if self.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.retry_at = None;
        match self.advance().await {
            Ok(()) => {
                self.ready.send_if_modified(|ready| {
                    !std::mem::replace(ready, self.node.is_some()) && self.node.is_some()
                });
            }
            Err(error) => {
                warn!(%error, "this node is not yet what its swarm wants it to be");
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    async fn advance(&mut self) -> Result<(), SwarmError> {
        if self.renew || self.renew_at <= SystemTime::now() {
            self.renew().await?;
        }
        match self.node.as_ref().map(|node| (node.spec.role, node.manager.clone())) {
            Some((NodeRole::Manager, seat)) => self.become_manager(seat.map(|seat| seat.raft)).await?,
            // Its seat is taken away first: until then the others count on its vote.
            Some((NodeRole::Worker, None)) => self.become_worker().await?,
            Some((NodeRole::Worker, Some(_))) | None => {}
        }
        match self.shared.office() {
            Some(office) => {
                office.cut_off_removed();
                office.rotate_network_keys().await?;
                keys::follow_unlock_key(&self.shared, &office.manager).await
            }
            None => Ok(()),
        }
    }

    async fn renew(&mut self) -> Result<(), SwarmError> {
        keys::renew(&self.shared).await?;
        self.renew = false;
        self.renew_at = keys::renewal_time(&self.shared.credentials);
        Ok(())
    }

    async fn become_manager(&mut self, seat: Option<u64>) -> Result<(), SwarmError> {
        if self.shared.credentials.identity().role != Role::Manager {
            self.renew().await?;
        }
        let office = match self.shared.office() {
            Some(office) => office,
            None => {
                // Whatever log is there belongs to a seat that is gone.
                self.wipe_log().await?;
                let record = crate::record::Record { seat: Some(founding::seat()?), ..self.shared.record() };
                self.shared.set_record(record).await?;
                info!("this node becomes a manager");
                Office::open(&self.shared).await?
            }
        };
        self.changes = Some(office.manager.changes());
        if seat != self.shared.record().seat {
            office.take_seat(&self.shared).await.map_err(SwarmError::from)?;
            // Until the leader says so itself.
            if let Some(node) = &mut self.node {
                let record = self.shared.record();
                node.manager =
                    record.seat.map(|raft| skep_types::node::Member { raft, address: record.advertise_addr });
            }
        }
        Ok(())
    }

    async fn become_worker(&mut self) -> Result<(), SwarmError> {
        if self.shared.credentials.identity().role != Role::Worker {
            self.renew().await?;
        }
        self.changes = None;
        if let Some(office) = self.shared.set_office(None) {
            office.close().await;
            // Its removal from the managers came after all that it had been told.
            let version = office.manager.read(|objects| objects.applied()) + 1;
            keys::forget_manager(&self.shared, version).await?;
            info!("this node is a worker from now on");
        }
        let record = self.shared.record();
        if record.seat.is_some() {
            self.wipe_log().await?;
            self.shared.set_record(crate::record::Record { seat: None, ..record }).await?;
        }
        Ok(())
    }

    async fn wipe_log(&self) -> Result<(), SwarmError> {
        let folder = self.shared.folder.clone();
        let wipe = move || folder.wipe_log().map_err(|error| SwarmError::internal(&error));
        self.shared.on_disk(wipe).await
    }
}

/// When the manager's state moves; never, while the node is no manager.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    let ended = match changes {
        Some(receiver) => receiver.changed().await.is_err(),
        None => return std::future::pending().await,
    };
    if ended {
        *changes = None;
    }
}
