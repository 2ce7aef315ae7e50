//! Docker's Engine API: HTTP and JSON on the outside, the engine and the swarm on the inside.
//!
//! `api` decides nothing. It reads a request, calls the engine or the swarm, and writes what they say in the
//! form that Docker's clients expect. What is absent: no state beyond the daemon's settings, no queue that a
//! slow client could fill (every stream is pulled by its reader), no panic on any input.
//!
//! Requests are told apart by matching slices of their path: an image's name holds slashes in the middle of
//! a path, which the usual routers cannot express.

mod body;
mod context;
mod detach;
mod error;
mod filters;
mod hijack;
mod http;
mod pruning;
mod query;
mod routes;
mod server;
mod translate;
mod version;

pub use context::{Daemon, Settings};
pub use error::ApiError;
pub use server::{Listener, serve};
pub use translate::node::plugins;
pub use version::{NEWEST, OLDEST, Version};
