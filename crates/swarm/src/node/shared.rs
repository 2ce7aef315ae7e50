//! What the parts of a node in a swarm share.

use std::sync::{Arc, PoisonError, RwLock};

use skep_engine::Engine;
use skep_identity::{Credentials, Files};
use skep_types::NodeId;
use skep_types::node::NodeDescription;
use tokio::sync::watch;

use super::keys::tls_of;
use super::managers::Managers;
use super::office::Office;
use crate::announce::Announcer;
use crate::record::{Folder, Record};
use crate::session::Hello;
use crate::wire::Connections;
use crate::{SwarmConfig, SwarmError};

/// A node's place in its swarm: who it is, whom it knows, and its office while it is a manager.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) engine: Engine,
    pub(crate) announcer: Announcer,
    pub(crate) credentials: Credentials,
    pub(crate) files: Files,
    pub(crate) connections: Connections,
    pub(crate) managers: Managers,
    record: RwLock<Record>,
    office: RwLock<Option<Arc<Office>>>,
    /// Why this node does not work as it should.
    trouble: RwLock<Option<String>>,
    /// What the agent opens its sessions with; a new value opens a new one.
    hello: watch::Sender<Hello>,
    /// Held while files of the node are written, so that leaving does not wipe under somebody's hands.
    disk: Arc<tokio::sync::Mutex<()>>,
    /// Shared by requests about one guest each, held alone while the managers are told of all of them.
    pub(crate) guests: tokio::sync::RwLock<()>,
}

fn read<T: Clone>(value: &RwLock<T>) -> T {
    value.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write<T>(value: &RwLock<T>, new: T) -> T {
    std::mem::replace(&mut *value.write().unwrap_or_else(PoisonError::into_inner), new)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("record", &self.record()).finish_non_exhaustive()
    }
}

impl Shared {
    /// A node with these credentials; it has no office yet.
    pub(crate) fn new(
        config: &SwarmConfig,
        engine: Engine,
        announcer: Announcer,
        record: Record,
        credentials: Credentials,
        files: Files,
    ) -> Arc<Shared> {
        let folder = Folder::new(config.dir.clone());
        let hello = Hello {
            description: NodeDescription { tls: tls_of(&credentials), ..config.description.clone() },
            address: record.address,
            data_path: record.data_path_addr,
        };
        Arc::new(Shared {
            managers: Managers::remembered(folder.clone(), record.joined_at.clone()),
            connections: Connections::new(credentials.clone()),
            folder,
            engine,
            announcer,
            credentials,
            files,
            record: RwLock::new(record),
            office: RwLock::new(None),
            trouble: RwLock::new(None),
            hello: watch::Sender::new(hello),
            disk: Arc::default(),
            guests: tokio::sync::RwLock::default(),
        })
    }

    /// This node's id.
    pub(crate) fn node(&self) -> NodeId {
        self.record().node
    }

    /// This node's membership.
    pub(crate) fn record(&self) -> Record {
        read(&self.record)
    }

    /// Changes this node's membership, durably.
    pub(crate) async fn set_record(&self, record: Record) -> Result<(), SwarmError> {
        let (folder, kept) = (self.folder.clone(), record.clone());
        self.on_disk(move || folder.write(&kept).map_err(|error| SwarmError::internal(&error))).await?;
        write(&self.record, record);
        Ok(())
    }

    /// What this node does as a manager; `None` while it is none.
    pub(crate) fn office(&self) -> Option<Arc<Office>> {
        read(&self.office)
    }

    /// Takes up an office, or gives it up.
    pub(crate) fn set_office(&self, office: Option<Arc<Office>>) -> Option<Arc<Office>> {
        write(&self.office, office)
    }

    /// Why this node does not work as it should.
    pub(crate) fn trouble(&self) -> Option<String> {
        read(&self.trouble)
    }

    /// Says why this node does not work as it should, or that it does.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        write(&self.trouble, trouble);
    }

    /// What this node tells of itself, now and whenever it changes.
    pub(crate) fn hello(&self) -> watch::Receiver<Hello> {
        self.hello.subscribe()
    }

    /// Tells what the certificate stands on now.
    pub(crate) fn tell_certificate(&self) {
        let tls = tls_of(&self.credentials);
        self.hello
            .send_if_modified(|hello| std::mem::replace(&mut hello.description.tls, tls.clone()) != tls);
    }

    /// Runs what writes the node's files: on a thread that may block, one at a time, and to its end even when its
    /// caller goes away.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
    ) -> Result<T, SwarmError> {
        let turn = Arc::clone(&self.disk).lock_owned().await;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.expect("the work neither panics nor is aborted")
    }
}
