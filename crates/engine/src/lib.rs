//! One machine: containers, images, volumes and networks, composed of the adapters below.
//!
//! The engine decides nothing about a cluster and speaks no HTTP. A container outlives the engine: what runs
//! is known to the kernel and to its shim, and [`Engine::open`] finds it again without touching it.
//!
//! Invariants:
//! - A container's life-cycle changes happen one after the other, under its own lock. Only its end is told from
//!   outside that lock, by the one task that watches it.
//! - What a client was told is on the disk (creation), or with the kernel and the shim (everything later).
//! - Nothing is mounted in the host's namespace, and no process is forked here.
//! - A change that has begun runs to its end, also when the client that asked for it hangs up.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use skep_images::Store;
use skep_names::Names;
use skep_runtime::Runtime;
use skep_types::Ids;
use skep_types::events::EventKind;

use crate::containers::registry::Registry;
use crate::events::{EventStream, Events};
use crate::networks::Networks;
use crate::options::EventQuery;
use crate::tasks::Tasks;
use crate::volumes::Volumes;

pub mod build;
mod clock;
pub mod config;
pub mod containers;
mod copy_up;
mod disk;
pub mod error;
pub mod events;
mod files;
pub mod images;
mod info;
mod names;
pub mod networks;
mod open;
pub mod options;
mod signals;
mod tasks;
pub mod view;
pub mod volumes;

pub use config::EngineConfig;
pub use error::{Error, ErrorKind, Result};
pub use info::machine;

/// A handle to the engine of this machine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) identity: open::Identity,
    pub(crate) images: Store,
    pub(crate) runtime: Runtime,
    pub(crate) networks: Arc<Networks>,
    pub(crate) names: Names,
    /// Who speaks for the cluster.
    pub(crate) cluster: RwLock<Option<Arc<dyn networks::guests::Cluster>>>,
    pub(crate) containers: Registry,
    pub(crate) volumes: Volumes,
    pub(crate) execs: containers::exec::Execs,
    pub(crate) events: Events,
    pub(crate) ids: Mutex<Ids>,
    pub(crate) tasks: Tasks,
    /// Room for archives that are being read.
    pub(crate) uploads: tokio::sync::Semaphore,
    /// Room for archives that are being saved.
    pub(crate) saves: tokio::sync::Semaphore,
    /// The client of registries.
    pub(crate) registries: skep_registry::Client,
    /// Whose turn it is to fetch a layer.
    pub(crate) turns: images::Turns,
    /// Room for layers that are being pulled.
    pub(crate) downloads: tokio::sync::Semaphore,
    /// Room for layers that are being pushed.
    pub(crate) pushes: tokio::sync::Semaphore,
    /// Room for builds.
    pub(crate) builds: tokio::sync::Semaphore,
    /// Containers of builds under way.
    pub(crate) building: build::Building,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_root", &self.shared.config.data_root).finish_non_exhaustive()
    }
}

impl Engine {
    /// Ends the engine's own work; containers go on running.
    pub async fn shutdown(&self) {
        self.shared.events.close();
        self.shared.tasks.shutdown().await;
        self.shared.names.shutdown().await;
    }

    /// Follows events.
    pub fn events(&self, query: EventQuery) -> EventStream {
        self.shared.events.subscribe(query)
    }

    /// Tells those who follow events that the daemon read its settings again.
    pub fn tell_reload(&self, labels: &[String], debug: bool) {
        let attributes = events::attributes([
            ("name", info::hostname()),
            ("labels", format!("[{}]", labels.join(","))),
            ("debug", debug.to_string()),
        ]);
        self.shared.events.emit(EventKind::Daemon, "reload", self.shared.identity.id.clone(), attributes);
    }

    /// A name for what a user did not name, one that `is_free`.
    pub fn draw_name(&self, is_free: impl Fn(&str) -> bool) -> Option<String> {
        self.draw(|ids| names::draw(ids, is_free))
    }

    /// 64 hexadecimal digits that were never drawn before.
    pub(crate) fn draw_id(&self) -> String {
        self.draw(Ids::container).to_string()
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Ids) -> T) -> T {
        draw(&mut self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs what may block for a while off the async threads.
///
/// # Errors
/// Internal, when it panicked or the engine's threads are gone.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::failed("an operation of the engine failed", &error))
}
