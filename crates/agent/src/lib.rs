//! The worker's brain: from assignments to the task ladder, from the ladder to operations on containers,
//! from their results to status reports.
//!
//! [`Agent::step`] is a function: it reads no clock, file or socket, draws no ids and iterates no `HashMap`.
//! Whoever drives it performs the operations, in any order and concurrently, and feeds each result back.
//! What must happen in order (networks before a container, peers before an endpoint that sends to them, an endpoint's
//! change before a task is stopped) is enforced here, by giving an operation out only when what it waits for has been reported done.
//!
//! At any time there is at most one operation under way for a task, a network with its peers, or an endpoint; only
//! [`Operation::Watch`], which lasts as long as its container runs, and [`Operation::AwaitReady`] go beside
//! the others, and an [`Operation::Drain`] beside the stop of a task that was taken away meanwhile.

mod agent;
mod duties;
mod event;
mod peers;
mod records;
mod work;

pub use agent::{Agent, AgentOutput};
pub use event::{AgentEvent, Launched, Observed, Operation, PeerChange, Recovered, Watched};

#[cfg(test)]
mod tests;
