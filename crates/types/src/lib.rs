//! The vocabulary of Skep: identifiers, time, specifications, objects and their states.
//!
//! Everything here is plain data. `types` never reads a clock, a file, a socket or a source of
//! randomness, and holds no `HashMap`: the same input gives the same bytes everywhere.

pub mod assignment;
pub mod container;
pub mod device;
pub mod events;
pub mod generic;
pub mod health;
pub mod id;
pub mod ip;
pub mod mount;
pub mod network;
pub mod node;
pub mod object;
pub mod placement;
pub mod port;
pub mod records;
pub mod resources;
pub mod security;
pub mod service;
pub mod swarm;
pub mod task;
pub mod template;
pub mod time;
pub mod tunnel;
pub mod ulimit;

pub use id::{ClusterId, ContainerId, Ids, NetworkId, NodeId, ServiceId, TaskId};
pub use object::{Meta, Version};
pub use task::{Task, TaskState, TaskStatus};
pub use time::Time;
