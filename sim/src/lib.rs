//! A deterministic simulation of a cluster: the real manager's brain and the real agents over a modelled
//! log, modelled links and modelled containers, in one thread and in virtual time.
//!
//! A run has three phases. While it is unsafe, faults strike and a user asks for things; after each step
//! nothing may be wrong that must never be. Then everything heals. Then, within a bound of virtual time,
//! what was acknowledged must be so: every service with its replicas running on its newest
//! specification, everything removed gone with its containers.
//!
//! Absent: real time, threads, files, sockets, and any randomness but the seed's. Two runs of one seed
//! log the same lines.

mod chance;
mod checks;
mod log;
mod machine;
mod user;
mod world;

pub use world::{Failure, Flaw, Options, Outcome, run};
