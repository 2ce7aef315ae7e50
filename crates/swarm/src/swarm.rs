//! The handle that the API holds: always present, inactive until a swarm is founded.

use std::sync::{Arc, RwLock};

use skep_cluster::{Event, Objects};
use skep_engine::Engine;
use skep_types::NodeId;
use skep_types::Time;
use skep_types::events;
use tokio::sync::broadcast;
use tracing::{error, info, warn};

use crate::announce::Announcer;
use crate::founding::{self, random};
use crate::log_worker::chain;
use crate::lone::Manager;
use crate::manager::Input;
use crate::record::{Folder, Record};
use crate::worker::{self, End, Worker};
use crate::{InitRequest, LocalState, SwarmConfig, SwarmError, SwarmInfo, operations};

// Moby's words (daemon/cluster/errors.go, swarm.go).
const EXISTS: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
const NO_SWARM: &str = "This node is not part of a swarm";
const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                          connect this node to swarm and try again.";
const LEAVE_LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager \
     erases all current state of the swarm. Use `--force` to ignore this message. ";
const LEAVE_BROKEN: &str = "You are attempting to leave the swarm on a node that is participating as a manager. Doing so may lose the \
     consensus of your cluster. The only way to restore a swarm that has lost consensus is to reinitialize it with \
     `--force-new-cluster`. Use `--force` to suppress this message.";

/// This node's place in a swarm. Clones share it.
#[derive(Clone, Debug)]
pub struct Swarm {
    inner: Arc<Inner>,
}

/// Events of the swarm's scope.
#[derive(Debug)]
pub struct EventSubscription {
    /// Events already past, oldest first, from the asked time on (bounded: the last 256).
    pub past: Vec<events::Event>,
    /// Events from now on.
    pub future: broadcast::Receiver<events::Event>,
}

#[derive(Debug)]
struct Inner {
    config: SwarmConfig,
    folder: Folder,
    engine: Engine,
    announcer: Announcer,
    /// Held while the node enters, leaves or shuts down: one of these at a time.
    control: tokio::sync::Mutex<()>,
    membership: RwLock<Membership>,
}

/// Whether and how this node is in a swarm.
#[derive(Clone, Debug)]
enum Membership {
    None,
    Active(Arc<Active>),
    /// In one whose state cannot be used.
    Broken(String),
}

#[derive(Debug)]
struct Active {
    record: Record,
    manager: Manager,
    worker: Worker,
}

impl Swarm {
    /// Opens the node's state; a node that was in a swarm resumes by itself. State that cannot be used does
    /// not fail this: it is shown by [`Swarm::info`], and the node can leave.
    ///
    /// # Errors
    /// Internal, when what an interrupted `init` or `leave` left cannot be removed.
    pub async fn open(config: SwarmConfig, engine: Engine) -> Result<Swarm, SwarmError> {
        let folder = Folder::new(config.dir.clone());
        let membership = RwLock::new(Membership::None);
        let control = tokio::sync::Mutex::new(());
        let inner = Inner { config, folder, engine, announcer: Announcer::new(), control, membership };
        let swarm = Swarm { inner: Arc::new(inner) };
        let membership = match swarm.inner.folder.read() {
            Ok(None) => {
                swarm.wipe().await?;
                Membership::None
            }
            Ok(Some(record)) => match swarm.resume(record).await {
                Ok(active) => Membership::Active(active),
                Err(reason) => Membership::Broken(reason),
            },
            Err(error) => Membership::Broken(chain(&error)),
        };
        if let Membership::Broken(reason) = &membership {
            error!(reason, "this node's swarm cannot be resumed");
        }
        swarm.set_membership(membership);
        Ok(swarm)
    }

    async fn resume(&self, record: Record) -> Result<Arc<Active>, String> {
        let seed = random().map_err(|error| error.to_string())?;
        let (log, announcer) = (self.inner.folder.log(), self.inner.announcer.clone());
        let started = Manager::start(log, record.node, u128::from_be_bytes(seed), announcer).await;
        let (manager, assigned) = started.map_err(|error| chain(&error))?;
        if !manager.read(|objects| objects.cluster().is_some_and(|cluster| cluster.id == record.cluster)) {
            manager.stop().await;
            return Err(format!("the log does not hold the cluster {}", record.cluster));
        }
        let active = self.activate(record, manager, assigned).await?;
        info!(node = %active.record.node, "this node is back in its swarm");
        Ok(active)
    }

    /// Starts the agent, and tells the manager that it is there.
    async fn activate(
        &self,
        record: Record,
        manager: Manager,
        assigned: tokio::sync::mpsc::Receiver<skep_types::assignment::Assignment>,
    ) -> Result<Arc<Active>, String> {
        let engine = self.inner.engine.clone();
        let worker = match Worker::start(engine, record.node, assigned, manager.inputs()).await {
            Ok(worker) => worker,
            Err(error) => {
                manager.stop().await;
                return Err(error.message);
            }
        };
        let ready = Event::NodeReady {
            node: record.node,
            description: Box::new(self.inner.config.description.clone()),
            address: record.address,
        };
        if manager.inputs().send(Input::Event(ready)).await.is_err() {
            return Err("the manager ended as soon as it started".to_owned());
        }
        Ok(Arc::new(Active { record, manager, worker }))
    }

    /// Founds a swarm of this one node. Returns once the first objects are durable.
    ///
    /// # Errors
    /// 503 when the node is in a swarm already; 400 for an address that cannot be chosen or used.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, SwarmError> {
        let _control = self.inner.control.lock().await;
        if !matches!(self.membership(), Membership::None) {
            return Err(SwarmError::Unavailable(EXISTS.to_owned()));
        }
        let founding = founding::plan(request, &self.inner.config, &self.inner.engine)?;
        match self.found(founding).await {
            Ok(active) => {
                let node = active.record.node;
                self.set_membership(Membership::Active(active));
                Ok(node)
            }
            Err(error) => {
                if let Err(wiped) = self.wipe().await {
                    warn!(error = %wiped, "what a failed init left could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn found(&self, founding: founding::Founding) -> Result<Arc<Active>, SwarmError> {
        self.wipe().await?;
        let folder = self.inner.folder.clone();
        let record = founding.record.clone();
        let request = blocking(move || {
            folder.create().map_err(|error| internal(&error))?;
            founding.found(&folder)
        })
        .await?;
        let (log, announcer) = (self.inner.folder.log(), self.inner.announcer.clone());
        let seed = u128::from_be_bytes(random()?);
        let started = Manager::start(log, record.node, seed, announcer).await;
        let (manager, assigned) = started.map_err(|error| internal(&error))?;
        if let Err(refused) = manager.request(request).await {
            manager.stop().await;
            return Err(refused);
        }
        // From here on the node is a member, whatever happens.
        let (folder, kept) = (self.inner.folder.clone(), record.clone());
        if let Err(error) = blocking(move || folder.write(&kept).map_err(|error| internal(&error))).await {
            manager.stop().await;
            return Err(error);
        }
        self.activate(record, manager, assigned).await.map_err(SwarmError::Internal)
    }

    /// Refuses what only a node outside any swarm may do.
    ///
    /// # Errors
    /// 503 inside a swarm.
    pub fn refuse_second(&self) -> Result<(), SwarmError> {
        match self.membership() {
            Membership::None => Ok(()),
            Membership::Active(_) | Membership::Broken(_) => Err(SwarmError::Unavailable(EXISTS.to_owned())),
        }
    }

    /// Leaves the swarm: stops and removes all task containers, forgets all state. The last manager
    /// leaves only with `force`.
    ///
    /// # Errors
    /// 503 outside a swarm, or without `force` on the last manager.
    pub async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        let _control = self.inner.control.lock().await;
        let unavailable = |message: &str| Err(SwarmError::Unavailable(message.to_owned()));
        let engine = &self.inner.engine;
        match self.membership() {
            Membership::None => return unavailable(NO_SWARM),
            Membership::Active(_) if !force => return unavailable(LEAVE_LAST_MANAGER),
            Membership::Broken(_) if !force => return unavailable(LEAVE_BROKEN),
            Membership::Active(active) => {
                active.worker.end(End::Clear).await;
                active.manager.stop().await;
            }
            Membership::Broken(_) => worker::clear_machine(engine).await,
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
        if let Membership::Active(active) = self.membership() {
            active.worker.end(End::Keep).await;
            active.manager.stop().await;
        }
    }

    /// The `Swarm` part of `docker info`. Never fails.
    pub fn info(&self) -> SwarmInfo {
        let mut info = SwarmInfo {
            state: LocalState::Inactive,
            node_id: None,
            node_addr: String::new(),
            control_available: false,
            error: String::new(),
            remote_managers: Vec::new(),
            nodes: 0,
            managers: 0,
            cluster: None,
        };
        match self.membership() {
            Membership::None => {}
            Membership::Broken(reason) => {
                info.state = LocalState::Error;
                info.error = reason;
            }
            Membership::Active(active) => {
                info.state = LocalState::Active;
                info.node_id = Some(active.record.node);
                info.node_addr = active.record.address.to_string();
                info.remote_managers = vec![(active.record.node, active.record.advertise_addr.clone())];
                let trouble = active.manager.trouble();
                info.control_available = trouble.is_none();
                info.error = trouble.unwrap_or_default();
                active.manager.read(|objects| {
                    info.nodes = objects.nodes().count();
                    info.managers = objects.nodes().filter(|node| node.manager.is_some()).count();
                    info.cluster = objects.cluster().cloned();
                });
            }
        }
        info
    }

    /// Events of the swarm's scope: those since `since` that are still remembered, and those to come.
    pub fn events(&self, since: Option<Time>) -> EventSubscription {
        let (past, future) = self.inner.announcer.subscribe(since);
        EventSubscription { past, future }
    }

    fn membership(&self) -> Membership {
        self.inner.membership.read().expect("nothing panics while it holds the membership").clone()
    }

    fn set_membership(&self, membership: Membership) {
        *self.inner.membership.write().expect("nothing panics while it holds the membership") = membership;
    }

    /// This node's manager.
    pub(crate) fn manager(&self) -> Result<Manager, SwarmError> {
        match self.membership() {
            Membership::Active(active) => Ok(active.manager.clone()),
            Membership::None => Err(SwarmError::Unavailable(NO_MANAGER.to_owned())),
            Membership::Broken(reason) => Err(SwarmError::Unavailable(reason)),
        }
    }

    /// This node's id, where it is in a swarm.
    pub(crate) fn own_id(&self) -> Option<NodeId> {
        match self.membership() {
            Membership::Active(active) => Some(active.record.node),
            Membership::None | Membership::Broken(_) => None,
        }
    }

    /// The folder of this node's swarm state.
    pub(crate) fn folder(&self) -> &Folder {
        &self.inner.folder
    }

    /// Reads the committed state.
    pub(crate) async fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> Result<T, SwarmError> {
        Ok(self.manager()?.read(read))
    }

    async fn wipe(&self) -> Result<(), SwarmError> {
        let folder = self.inner.folder.clone();
        blocking(move || folder.wipe().map_err(|error| internal(&error))).await
    }
}

fn internal(error: &dyn std::error::Error) -> SwarmError {
    SwarmError::Internal(chain(error))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
) -> Result<T, SwarmError> {
    tokio::task::spawn_blocking(work).await.expect("the work neither panics nor is aborted")
}
