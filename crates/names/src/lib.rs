//! Names inside containers: the server behind 127.0.0.11, and the daemon's handle to it.
//!
//! The server is a process of its own that outlives the daemon (`docs/adr/0014-names.md`). It has a socket in each
//! sandbox, answers what the networks of that sandbox know, and passes other questions on to resolvers. The daemon
//! holds a [`Names`], tells it what there is, and may forget it again: the handle sees to it that a process runs while
//! there is a sandbox, and that it knows all of that.
//!
//! Absent here: rules that bring port 53 to the server (`skep_network` puts them into the sandbox), and any memory on disk.

mod handle;
mod name;
mod protocol;
mod resolve;
mod server;
mod sys;
mod tables;
mod wire;
mod zone;

pub use handle::{Config, Names};
pub use name::Name;
pub use server::names_main;
pub use tables::{Entry, Forwarding, Record, View, ZoneConfig};

use std::net::Ipv4Addr;

/// Where a container asks, as with Docker: `nameserver 127.0.0.11` in its `/etc/resolv.conf`.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port at [`ADDRESS`] that the server listens on, UDP and TCP, in every sandbox. Port 53 is redirected to it
/// inside the sandbox (`skep_network::Network::redirect_names`), so that a container may have port 53 itself. IANA has
/// assigned this one to nothing, it is in no range that programs choose ports from, and it takes root to bind.
pub const PORT: u16 = 14;
