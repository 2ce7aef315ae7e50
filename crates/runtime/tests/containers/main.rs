//! Real containers on the real kernel. Needs root, cgroups, and Debian's busybox-static.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod exec;
mod isolation;
mod lifecycle;
mod limits;
mod oracle;
mod streams;
mod v2;
mod world;
