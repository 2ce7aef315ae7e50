//! Sessions between the leader and the nodes' agents.
//!
//! A [`Link`] is one session as its agent sees it, in process or over the network. [`Sessions`] is the leader's
//! side. What is absent: decisions on what an agent has to do, and on what its loss means.

mod keeper;
mod link;
mod sessions;

pub(crate) use keeper::{Keeper, Told, Word};
pub(crate) use link::{Connector, FromAgent, Hello, Link, News, ToAgent};
pub(crate) use sessions::Sessions;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod tests;
