//! The life of a node in its swarm: how it enters, what it is while it is in, and how it leaves.
//!
//! Every node has an agent, whose sessions with the leader [`connector`] opens. A manager has an [`Office`] besides:
//! its part in the consensus and the listener, answering by the [`desk`]. The [`supervisor`] keeps certificate,
//! role and seat what the cluster wants them to be. [`Resident`] is all of them together. What is absent: decisions
//! on the cluster, and what certificates hold.

mod connector;
mod desk;
mod guests;
mod joining;
pub(crate) mod keys;
mod managers;
mod office;
mod resident;
mod shared;
mod supervisor;
mod transport;

pub(crate) use joining::plan as plan_join;
pub(crate) use office::Office;
pub(crate) use resident::{JOIN_TIMEOUT, Resident};
pub(crate) use shared::Shared;
