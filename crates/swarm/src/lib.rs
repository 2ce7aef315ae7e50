//! One node in a cluster: the manager and agent actors, their durable state, and the node's life cycle.
//!
//! Each actor is a loop: select one event, `step` the brain, perform what it decided. Nothing is decided
//! here. A reply leaves only after the log entry that it rests on is synced to disk.
//! What is absent: `swarm` opens no listener yet, so no second node can join.

mod addresses;
mod announce;
#[allow(dead_code, unused_imports, reason = "its users come with the next commits")]
mod authority;
mod clock;
mod codec;
mod container;
mod error;
mod founding;
mod interfaces;
mod log_worker;
mod lone;
mod lookup;
#[expect(dead_code, reason = "takes the place of `lone` together with the node's life")]
mod manager;
mod operations;
mod record;
mod request;
mod requests;
#[allow(dead_code, reason = "its users come with the next commits")]
mod session;
mod status;
mod swarm;
#[expect(dead_code, unused_imports, reason = "its users come with the next commits")]
mod wire;
mod worker;

pub use error::SwarmError;
pub use request::{ClusterUpdate, InitRequest, LocalState, SwarmConfig, SwarmInfo};
pub use requests::TlsInfo;
pub use status::{ManagerStatus, NodeView, Reachability};
pub use swarm::{EventSubscription, Swarm};
