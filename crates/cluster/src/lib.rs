//! The manager's brain: everything a cluster's leader decides, as one function.
//!
//! [`Cluster::step`] takes an event and answers with what to propose to the log, what to reply, what to
//! send to agents and when to be woken. The log holds decisions: every manager, leader or not, runs
//! [`Objects::apply`] over the committed [`Change`]s and so holds the same [`Objects`].
//!
//! Invariants, most of which [`check`] verifies:
//! - `cluster` never reads a clock, a socket, a file or a source of randomness: time and ids are arguments. Only what the
//!   world calls its time zones is asked of the machine (`schedule`).
//! - Nothing is decided from state that is not committed, and nothing is answered before it is committed.
//! - One proposal is in flight; what happens meanwhile is kept and decided together afterwards.
//! - A timer is a deadline in a replicated object, so a new leader forgets none.
//! - Every index lives in [`Objects`]; work per event follows what changed, never how much there is.

mod allocator;
mod autoscale;
mod check;
mod delays;
mod dependencies;
mod dispatcher;
mod draining;
mod leader;
mod objects;
mod orchestrator;
mod plan;
mod reaper;
mod rehearse;
mod request;
mod requests;
mod rotation;
mod schedule;
mod scheduler;
mod seats;
mod step;
mod tables;
mod tasks;
mod timers;
mod tunnels;
mod why;

#[cfg(test)]
mod tests;

pub use check::{Violation, check};
pub use objects::{
    Cause, Change, Failures, NewTask, Objects, RestartHistory, RestoreError, Rollout, Snapshot, UpdateStep,
    Watch,
};
pub use rehearse::{Effect, Rehearsal, rehearse};
pub use request::{Answer, Force, Refusal, RefusalKind, Reply, Request, RequestId};
pub use rotation::{RotationProgress, rotation_progress};
pub use step::{Cluster, Event, Output, SeatStep};
pub use why::{Convergence, convergence, why_node, why_service, why_task};
