//! One machine: containers, images, volumes and networks, composed of the adapters below.
//!
//! The engine decides nothing about a cluster and speaks no HTTP. A container outlives the engine: what runs
//! is known to the kernel and to its shim, and [`Engine::open`] finds it again without touching it.

use crate::events::EventStream;
use crate::options::EventQuery;
use crate::view::Info;

mod clock;
pub mod config;
pub mod containers;
mod copy_up;
mod disk;
pub mod error;
pub mod events;
mod files;
mod names;
pub mod networks;
pub mod options;
mod signals;
pub mod view;
pub mod volumes;

pub use config::EngineConfig;
pub use error::{Error, ErrorKind, Result};

/// A handle to the engine of this machine. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine {}

impl Engine {
    /// Opens the engine: finds what runs, reports what ended meanwhile, repairs what a crash left.
    ///
    /// # Errors
    /// Internal, when a folder, the kernel or the firewall cannot be used.
    pub async fn open(_config: EngineConfig) -> Result<Engine> {
        todo!()
    }

    /// Ends the engine's own work; containers go on running.
    pub async fn shutdown(&self) {
        todo!()
    }

    /// Follows events.
    pub fn events(&self, _query: EventQuery) -> EventStream {
        todo!()
    }

    /// What `docker info` tells about this machine.
    pub async fn info(&self) -> Info {
        todo!()
    }
}
