//! A deterministic simulation of a cluster of many machines: the real managers' brains and the real agents
//! over modelled consensus, links, clocks and containers, in one thread and in virtual time.
//!
//! A run has three phases. While it is unsafe, faults strike and users ask for things; after each entry of
//! the log and at each start of a container nothing may be wrong that must never be. Then everything heals.
//! Then, within a bound of virtual time, what was acknowledged must be so: every service with its replicas
//! running on its newest specification, everything removed gone with its containers.
//!
//! Absent: real time, threads, files, sockets, and any randomness but the seed's. Two runs of one seed
//! log the same lines. docs/adr/0011-simulator.md says what is modelled and why.

mod chance;
mod checks;
mod consensus;
mod disk;
mod links;
mod machine;
mod manager;
mod options;
mod story;
mod user;
mod world;

pub use options::{Failure, Flaw, Options, Outcome};
pub use world::run;
