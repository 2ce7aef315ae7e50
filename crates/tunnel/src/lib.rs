//! Encrypted networks between nodes, on kernels that have neither IPsec nor WireGuard.
//!
//! A process of its own, `skep tunnel`, stands between a TAP device for each encrypted network, which is a port of the
//! network's bridge, and one UDP socket. It outlives the daemon, which tells it what to do through a [`Tunnel`].
//!
//! `tunnel` never sends a packet of a network in clear and never takes one: there is no way from a TAP device to the
//! wire but through a session's key, and none back but through its authentication.

mod clock;
mod exchange;
mod frame;
mod handle;
mod handover;
mod handshake;
mod inbound;
mod outbound;
mod process;
mod protocol;
mod session;
mod sys;
mod table;
mod window;
mod wire;

use std::ffi::OsString;

pub use handle::{Config, OpenError, Settings, Tunnel};
pub use protocol::Status;

/// What encryption adds to a packet of a network, in bytes: the headers of IPv4 (20) and UDP (8), ours (16), what is
/// encrypted along with a frame (8), the frame's own header (14) and the authentication (16). A network's packets are
/// this much smaller than those of the link between the nodes.
pub const OVERHEAD: u32 = 82;

/// `skep tunnel`: carries networks until there has been none for a while. `arguments` follow that word: the path of the
/// socket to listen at, which only root can open.
pub fn tunnel_main(arguments: &[OsString]) -> ! {
    match process::run(arguments) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("skep tunnel: {error}");
            std::process::exit(1)
        }
    }
}
