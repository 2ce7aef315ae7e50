//! Real clients against real daemons: each test has a [`Host`] of its own, a network namespace in which
//! `skep daemon` runs with its own socket and folders, and drives it with the stock `docker` command line.
//!
//! A missing tool, kernel feature or right fails the test; nothing is skipped.
#![expect(clippy::unwrap_used, reason = "a broken harness should stop the test where it broke")]

pub mod archive;
pub mod dns;
pub mod faults;
mod host;
pub mod http;
mod lab;
pub mod load;
mod output;
pub mod registry;
mod session;
mod shortcuts;
mod traces;
pub mod truth;
mod wait;

pub use host::{ADDRESS, Host, NEIGHBOUR, binary, finish, image_archive, signal};
pub use lab::Lab;
pub use output::Output;
pub use session::Session;
pub use wait::eventually;
