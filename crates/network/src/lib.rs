//! The host's network for containers: bridges, sandboxes, interfaces and published ports.
//!
//! A sandbox is a named network namespace. A published port is a rule in an nft table of our own that rewrites the
//! destination of new connections; no process stands in the path. Everything lives in the kernel, so containers stay
//! reachable while no daemon runs, and [`Network::reconcile`] mends what a crash left.
//!
//! `network` never runs a program, never touches a table or an interface that is not its own, and holds no state that
//! the kernel or the caller could not give back. Calls block for a few milliseconds at most.

mod attachments;
mod conntrack;
mod error;
mod kernel;
mod mesh;
mod model;
mod names;
mod namespace;
mod netlink;
mod network;
mod overlay;
mod plan;
mod ports;
mod redirect;
mod reservation;
mod route;
mod rules;
mod tap;
mod vip;

pub use error::{KernelError, LinkError, OpenError, PublishError};
pub use model::{
    Address6, Bridge, Config, Desired, Endpoint, MacAddress, Overlay, Peers, Publication, PublicationKey,
    Report, Transport, VirtualServices,
};
pub use network::Network;
