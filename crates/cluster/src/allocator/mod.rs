//! Giving out what is scarce: addresses of networks and published ports.

pub(crate) mod ipam;
pub(crate) mod port;
pub(crate) mod subnet;
