//! The handle that the API holds: always present, inactive until a swarm is founded or joined.

use std::sync::{Arc, RwLock};

use skep_cluster::Objects;
use skep_consensus::Consensus;
use skep_engine::Engine;
use skep_identity::{Credentials, Files, Role, UnlockKey};
use skep_types::events;
use skep_types::{NodeId, Time};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::announce::Announcer;
use crate::manager::Manager;
use crate::node::{self, JOIN_TIMEOUT, Office, Resident, Shared, keys};
use crate::record::{Folder, Record};
use crate::standing;
use crate::worker::{self, End};
use crate::{InitRequest, JoinRequest, SwarmConfig, SwarmError, founding, operations};

// Moby's words (daemon/cluster/errors.go, helpers.go, swarm.go).
const EXISTS: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
const NO_SWARM: &str = "This node is not part of a swarm";
const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                          connect this node to swarm and try again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run \
     this command on a manager node or promote the current node to a manager.";
const PREPARING: &str =
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm \
                      unlock\" to unlock it.";
const JOIN_GOES_ON: &str = "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. \
     Use the \"docker info\" command to see the current swarm status of your node.";
const NOT_LOCKED: &str = "swarm is not locked";
const WRONG_KEY: &str = "swarm could not be unlocked: invalid key provided";

/// This node's place in a swarm. Clones share it.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub(crate) inner: Arc<Inner>,
}

/// Events of the swarm's scope.
#[derive(Debug)]
pub struct EventSubscription {
    /// Events already past, oldest first, from the asked time on (bounded: the last 256).
    pub past: Vec<events::Event>,
    /// Events from now on.
    pub future: broadcast::Receiver<events::Event>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Inner {
    config: SwarmConfig,
    folder: Folder,
    pub(crate) engine: Engine,
    announcer: Announcer,
    /// Held while the node enters, leaves or shuts down: one of these at a time.
    control: tokio::sync::Mutex<()>,
    membership: RwLock<Membership>,
    /// A join that goes on in the background.
    joining: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Whether and how this node is in a swarm.
#[derive(Clone, Debug)]
pub(crate) enum Membership {
    None,
    /// On its way in; already let in, but not yet all that it is to be, with the node.
    Joining(Option<Arc<Resident>>),
    Active(Arc<Resident>),
    /// In one, as a manager whose keys are locked.
    Locked(Record),
    /// In one whose state cannot be used.
    Broken(String),
}

impl Swarm {
    /// Opens the node's state; a node that was in a swarm resumes by itself. State that cannot be used does
    /// not fail this: it is shown by [`Swarm::info`], and the node can leave.
    ///
    /// # Errors
    /// Internal, when what an interrupted `init` or `leave` left cannot be removed.
    pub async fn open(config: SwarmConfig, engine: Engine) -> Result<Swarm, SwarmError> {
        let inner = Inner {
            folder: Folder::new(config.dir.clone()),
            config,
            engine,
            announcer: Announcer::new(),
            control: tokio::sync::Mutex::new(()),
            membership: RwLock::new(Membership::None),
            joining: std::sync::Mutex::new(None),
        };
        let swarm = Swarm { inner: Arc::new(inner) };
        Swarm::speak_for_cluster(&swarm.inner);
        let membership = match swarm.inner.folder.read() {
            Ok(None) => {
                swarm.wipe().await?;
                Membership::None
            }
            Ok(Some(record)) => swarm.resume(record, None).await,
            Err(error) => Membership::Broken(SwarmError::internal(&error).to_string()),
        };
        match &membership {
            Membership::Broken(reason) => error!(reason, "this node's swarm cannot be resumed"),
            Membership::Locked(_) => warn!("{LOCKED}"),
            Membership::Active(resident) => {
                info!(node = %resident.shared.node(), "this node is back in its swarm");
            }
            Membership::None | Membership::Joining(_) => {}
        }
        swarm.set_membership(membership);
        Ok(swarm)
    }

    /// Takes the node up where it was; `unlock_key` is what a user gave for its keys.
    async fn resume(&self, record: Record, unlock_key: Option<UnlockKey>) -> Membership {
        let loaded = keys::load(self.inner.folder.clone(), unlock_key).await;
        let (credentials, files) = match loaded {
            Ok(keys::Loaded::Open(credentials, files)) => (credentials, files),
            Ok(keys::Loaded::Locked) => return Membership::Locked(record),
            Err(error) => return Membership::Broken(error.to_string()),
        };
        match self.start(record, credentials, files).await {
            Ok(resident) => Membership::Active(resident),
            Err(error) => Membership::Broken(error.to_string()),
        }
    }

    async fn start(
        &self,
        record: Record,
        credentials: Credentials,
        files: Files,
    ) -> Result<Arc<Resident>, SwarmError> {
        let Inner { config, engine, announcer, .. } = &*self.inner;
        let is_manager = record.seat.is_some() && credentials.identity().role == Role::Manager;
        let cluster = record.cluster;
        let shared = Shared::new(config, engine.clone(), announcer.clone(), record, credentials, files);
        if is_manager {
            let office = Office::open(&shared).await?;
            office.until_read().await;
            let found = office.manager.read(|objects| objects.cluster().map(|cluster| cluster.id));
            if found.is_some_and(|found| found != cluster) {
                office.close().await;
                return Err(SwarmError::Internal(format!("the log does not hold the cluster {cluster}")));
            }
        }
        Resident::start(shared).await.map(Arc::new)
    }

    /// Founds a swarm of this one node, or makes one anew from this manager's state. Returns once the first
    /// objects are durable.
    ///
    /// # Errors
    /// 503 when the node is in a swarm already; 400 for an address that cannot be chosen or used.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, SwarmError> {
        let _control = self.inner.control.lock().await;
        match self.membership() {
            Membership::None => {}
            Membership::Active(resident) if request.force_new_cluster => {
                return self.force_new_cluster(&resident, request).await;
            }
            Membership::Joining(_)
            | Membership::Active(_)
            | Membership::Locked(_)
            | Membership::Broken(_) => return Err(SwarmError::Unavailable(EXISTS.to_owned())),
        }
        let founding = founding::plan(request, &self.inner.config, &self.inner.engine)?;
        match self.found(founding).await {
            Ok(resident) => {
                let node = resident.shared.node();
                self.set_membership(Membership::Active(resident));
                Ok(node)
            }
            Err(error) => {
                self.wipe_after("init").await;
                Err(error)
            }
        }
    }

    async fn found(&self, founding: founding::Founding) -> Result<Arc<Resident>, SwarmError> {
        self.wipe().await?;
        let folder = self.inner.folder.clone();
        let record = founding.record.clone();
        let found = move || {
            folder.create().map_err(|error| SwarmError::internal(&error))?;
            founding.found(&folder)
        };
        let (request, credentials, files) = blocking(found).await?;
        let Inner { config, engine, announcer, folder, .. } = &*self.inner;
        let shared =
            Shared::new(config, engine.clone(), announcer.clone(), record.clone(), credentials, files);
        let office = Office::open(&shared).await?;
        let begun = async {
            office.manager.found(record.advertise_addr.clone(), request).await?;
            // From here on the node is a member, whatever happens.
            let (folder, record) = (folder.clone(), record.clone());
            blocking(move || folder.write(&record).map_err(|error| SwarmError::internal(&error))).await
        };
        if let Err(error) = begun.await {
            shared.set_office(None);
            office.close().await;
            return Err(error);
        }
        Resident::start(shared).await.map(Arc::new)
    }

    /// Makes a cluster of this one manager from its state, after the others are lost for good.
    async fn force_new_cluster(
        &self,
        resident: &Arc<Resident>,
        request: InitRequest,
    ) -> Result<NodeId, SwarmError> {
        if resident.shared.office().is_none() {
            return Err(SwarmError::Unavailable(WORKER.to_owned()));
        }
        let planned = founding::plan(request, &self.inner.config, &self.inner.engine)?.record;
        let record = Record {
            cluster: resident.shared.record().cluster,
            node: resident.shared.node(),
            seat: resident.shared.record().seat,
            ..planned
        };
        resident.end(End::Keep).await;
        let forced = async {
            let seat = record.seat.expect("a manager that runs has a seat");
            let shared = &resident.shared;
            let (folder, kept, files) = (self.inner.folder.clone(), record.clone(), shared.files.clone());
            let force = move || {
                let consensus = keys::consensus(&files, &folder, seat)?;
                Consensus::force_new(&consensus, kept.advertise_addr.clone())
                    .map_err(|error| SwarmError::internal(&error))?;
                folder.write(&kept).map_err(|error| SwarmError::internal(&error))?;
                // The others would only be asked in vain.
                folder.remember_managers(&Default::default()).map_err(|error| SwarmError::internal(&error))
            };
            blocking(force).await?;
            let resident =
                self.start(record.clone(), shared.credentials.clone(), shared.files.clone()).await?;
            let office = resident.shared.office().expect("a manager is started with its office");
            office.seat_alone(&resident.shared).await?;
            Ok(resident)
        };
        match forced.await {
            Ok(resident) => {
                info!("this manager is the only one of its swarm from now on");
                self.set_membership(Membership::Active(resident));
                Ok(record.node)
            }
            Err(error) => {
                let error: SwarmError = error;
                self.set_membership(Membership::Broken(error.to_string()));
                Err(error)
            }
        }
    }

    /// Joins a swarm that exists. Returns when the node is a working member.
    ///
    /// # Errors
    /// 503 when the node is in a swarm already, and after twenty seconds: the attempt goes on then. Otherwise why
    /// the node was not let in.
    pub async fn join(&self, request: JoinRequest) -> Result<(), SwarmError> {
        let _control = self.inner.control.lock().await;
        if !matches!(self.membership(), Membership::None) {
            return Err(SwarmError::Unavailable(EXISTS.to_owned()));
        }
        let joining = node::plan_join(request, &self.inner.config, &self.inner.engine)?;
        self.wipe().await?;
        self.set_membership(Membership::Joining(None));
        let (told, heard) = oneshot::channel();
        let swarm = self.clone();
        let task = tokio::spawn(async move {
            let Inner { config, engine, announcer, .. } = &*swarm.inner;
            let entered = match joining.enter(config.clone(), engine.clone(), announcer.clone()).await {
                Ok(resident) => {
                    let resident = Arc::new(resident);
                    swarm.set_membership(Membership::Joining(Some(Arc::clone(&resident))));
                    resident.until_ready().await;
                    swarm.set_membership(Membership::Active(Arc::clone(&resident)));
                    info!(node = %resident.shared.node(), "this node has joined a swarm");
                    Ok(())
                }
                Err(error) => {
                    warn!(%error, "this node was not let into the swarm");
                    swarm.wipe_after("join").await;
                    swarm.set_membership(Membership::None);
                    Err(error)
                }
            };
            // Whoever asked may have stopped waiting.
            let _ = told.send(entered);
        });
        self.set_joining(Some(task));
        match tokio::time::timeout(JOIN_TIMEOUT, heard).await {
            Ok(entered) => entered.expect("the join tells how it ends"),
            Err(_) => Err(SwarmError::Unavailable(JOIN_GOES_ON.to_owned())),
        }
    }

    /// Unlocks a manager that was started again under autolock.
    ///
    /// # Errors
    /// 409 when it is not locked; 400 for what is no key; 401 for the wrong one; 503 outside a swarm.
    pub async fn unlock(&self, key: &str) -> Result<(), SwarmError> {
        let _control = self.inner.control.lock().await;
        let record = match self.membership() {
            Membership::Locked(record) => record,
            Membership::Active(resident) if resident.shared.office().is_some() => {
                return Err(SwarmError::Conflict(NOT_LOCKED.to_owned()));
            }
            other => return Err(no_manager(&other)),
        };
        let key = key.parse().map_err(|error| SwarmError::InvalidParameter(format!("{error}")))?;
        match self.resume(record, Some(key)).await {
            Membership::Locked(_) => Err(SwarmError::Unauthorized(WRONG_KEY.to_owned())),
            Membership::Broken(reason) => {
                let message = format!("swarm component could not be started: {reason}");
                self.set_membership(Membership::Broken(reason));
                Err(SwarmError::Internal(message))
            }
            membership => {
                self.set_membership(membership);
                Ok(())
            }
        }
    }

    /// Leaves the swarm: stops and removes all task containers, forgets all state. A manager leaves only with
    /// `force`.
    ///
    /// # Errors
    /// 503 outside a swarm, or without `force` where others would miss this manager.
    pub async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        let _control = self.inner.control.lock().await;
        let engine = &self.inner.engine;
        let membership = self.membership();
        if !force {
            standing::refuse_leave(&membership)?;
        }
        self.stop_joining().await;
        // A join may just have succeeded.
        match self.membership() {
            Membership::None if matches!(membership, Membership::None) => {
                return Err(SwarmError::Unavailable(NO_SWARM.to_owned()));
            }
            Membership::None => {}
            Membership::Active(resident) | Membership::Joining(Some(resident)) => {
                resident.end(End::Clear).await;
            }
            Membership::Joining(None) | Membership::Locked(_) | Membership::Broken(_) => {
                worker::clear_machine(engine).await;
            }
        }
        operations::clear_networks(engine).await;
        self.wipe().await?;
        self.set_membership(Membership::None);
        info!("this node has left its swarm");
        Ok(())
    }

    /// Stops the actors. Containers go on running; [`Swarm::open`] takes them on again.
    pub async fn shutdown(&self) {
        let _control = self.inner.control.lock().await;
        self.stop_joining().await;
        if let Membership::Active(resident) | Membership::Joining(Some(resident)) = self.membership() {
            resident.end(End::Keep).await;
        }
    }

    /// Events of the swarm's scope: those since `since` that are still remembered, and those to come.
    pub fn events(&self, since: Option<Time>) -> EventSubscription {
        let (past, future) = self.inner.announcer.subscribe(since);
        EventSubscription { past, future }
    }

    pub(crate) fn membership(&self) -> Membership {
        self.inner.membership.read().expect("nothing panics while it holds the membership").clone()
    }

    fn set_membership(&self, membership: Membership) {
        *self.inner.membership.write().expect("nothing panics while it holds the membership") = membership;
    }

    fn set_joining(&self, task: Option<JoinHandle<()>>) -> Option<JoinHandle<()>> {
        let mut joining = self.inner.joining.lock().expect("nothing panics while it holds the join");
        std::mem::replace(&mut *joining, task)
    }

    /// Cuts off a join that goes on in the background. What it wrote is wiped by whoever calls this.
    async fn stop_joining(&self) {
        if let Some(task) = self.set_joining(None) {
            task.abort();
            // It was aborted or had ended.
            let _ = task.await;
        }
    }

    /// This node's manager.
    pub(crate) fn manager(&self) -> Result<Manager, SwarmError> {
        let membership = self.membership();
        if let Membership::Active(resident) = &membership
            && let Some(office) = resident.shared.office()
            && office.manager.read(|objects| objects.cluster().is_some())
        {
            return Ok(office.manager.clone());
        }
        Err(no_manager(&membership))
    }

    /// The node, where it is in a swarm and works.
    pub(crate) fn resident(&self) -> Result<Arc<Resident>, SwarmError> {
        match self.membership() {
            Membership::Active(resident) => Ok(resident),
            Membership::None => Err(SwarmError::Unavailable(NO_SWARM.to_owned())),
            other => Err(no_manager(&other)),
        }
    }

    /// This node's id, where it is in a swarm.
    pub(crate) fn own_id(&self) -> Option<NodeId> {
        match self.membership() {
            Membership::Active(resident) | Membership::Joining(Some(resident)) => {
                Some(resident.shared.node())
            }
            Membership::Locked(record) => Some(record.node),
            Membership::None | Membership::Joining(None) | Membership::Broken(_) => None,
        }
    }

    /// Reads the committed state, with everything that was answered before the call.
    pub(crate) async fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> Result<T, SwarmError> {
        self.manager()?.read_current(read).await
    }

    async fn wipe(&self) -> Result<(), SwarmError> {
        let folder = self.inner.folder.clone();
        blocking(move || folder.wipe().map_err(|error| SwarmError::internal(&error))).await
    }

    async fn wipe_after(&self, what: &str) {
        if let Err(error) = self.wipe().await {
            warn!(%error, "what a failed {what} left could not be removed");
        }
    }
}

/// Moby's `errNoManager`.
fn no_manager(membership: &Membership) -> SwarmError {
    SwarmError::Unavailable(match membership {
        Membership::None => NO_MANAGER.to_owned(),
        Membership::Locked(_) => LOCKED.to_owned(),
        Membership::Broken(reason) => reason.clone(),
        Membership::Active(resident) if resident.shared.office().is_none() => WORKER.to_owned(),
        Membership::Joining(_) | Membership::Active(_) => PREPARING.to_owned(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
) -> Result<T, SwarmError> {
    tokio::task::spawn_blocking(work).await.expect("the work neither panics nor is aborted")
}
