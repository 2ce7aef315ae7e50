//! One node in a cluster: the manager and agent actors, their durable state, and the node's life cycle.
//!
//! Each actor is a loop: select one event, `step` the brain, perform what it decided. Nothing is decided
//! here. A reply leaves only after the log entry that it rests on is synced to disk.
//! [`node`] is a node's life, [`manager`] and [`worker`] are its actors, [`wire`] and [`session`] are what nodes
//! say to each other, [`authority`] is who is let in.

mod addresses;
mod announce;
mod authority;
mod clock;
mod codec;
mod container;
mod error;
mod founding;
mod guests;
mod interfaces;
mod lookup;
mod manager;
mod networks;
mod node;
mod operations;
mod record;
mod request;
mod requests;
mod session;
mod settings;
mod standing;
mod status;
mod swarm;
mod users;
mod why;
mod wire;
mod worker;

pub use error::SwarmError;
pub use request::{ClusterUpdate, InitRequest, JoinRequest, LocalState, SigningRoot, SwarmConfig, SwarmInfo};
pub use skep_cluster::{Convergence, Effect, Force, Rehearsal};
pub use status::{ManagerStatus, NodeView, Reachability};
pub use swarm::{EventSubscription, Swarm};
pub use users::{NetworkService, NetworkTask, NetworkUsers};
